//! What `l4lbd status --json` tells, as far as the tests look at it.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub struct Status {
    pub degraded: bool,
    #[serde(default)]
    pub reasons: Vec<Value>,
    pub vips: Vec<Vip>,
    #[serde(default)]
    pub warnings: Vec<Value>,
    #[serde(default)]
    pub skipped: Vec<Value>,
    #[serde(default)]
    pub dns: Dns,
    /// The whole answer, for what is looked up by its wording only.
    #[serde(skip)]
    pub text: String,
}

#[derive(Debug, Default, Deserialize)]
pub struct Dns {
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Vip {
    pub name: Option<String>,
    pub address: IpAddr,
    pub port: u16,
    pub backends: Vec<Backend>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
}

impl Status {
    /// A VIP by the first label of its name, or by its literal address.
    pub fn vip(&self, name: &str, port: u16) -> Option<&Vip> {
        self.vips.iter().find(|vip| vip.port == port && vip.is_called(name))
    }

    /// What the daemon complains about, in one text.
    pub fn complaints(&self) -> String {
        let complaints = self.reasons.iter().chain(&self.warnings).chain(&self.skipped);
        complaints.map(Value::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl Vip {
    fn is_called(&self, name: &str) -> bool {
        self.address.to_string() == name
            || self
                .name
                .as_deref()
                .is_some_and(|own| own.trim_start_matches('/').split('.').next() == Some(name))
    }

    pub fn socket(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    pub fn weight_of(&self, backend: &str) -> Option<u32> {
        let backend: SocketAddr = backend.parse().ok()?;
        let found =
            self.backends.iter().find(|own| own.address == backend.ip() && own.port == backend.port())?;
        Some(found.weight)
    }
}
