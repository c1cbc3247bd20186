//! A container on whatever network a test makes, beside those on the lab's own bridge.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::host::Host;
use super::lab::ip_batch;

static CONTAINERS: AtomicUsize = AtomicUsize::new(0);

/// Goes with everything in it when dropped.
pub struct Container {
    host: Host,
    /// The other end of its link, on its node.
    pub port: String,
}

impl Container {
    /// A container of `node` with one link to it, `eth0`, that nobody has configured.
    pub fn of(node: &Host) -> Result<Self> {
        let number = CONTAINERS.fetch_add(1, Ordering::Relaxed);
        let (name, port) = (format!("container{number}"), format!("p{number}"));
        ip_batch(&format!(
            "netns add {name}\nlink add {port} netns {} type veth peer name eth0 netns {name}\n",
            node.name
        ))?;
        Ok(Self { host: Host::enter(name)?, port })
    }

    /// A container on a bridge of `node`, with the address `address` such as `10.0.0.2/24` and, where the
    /// network has one, a default route.
    pub fn on_bridge(node: &Host, bridge: &str, address: &str, gateway: Option<&str>) -> Result<Self> {
        let container = Self::of(node)?;
        node.configure(&format!("link set {} master {bridge} up\n", container.port))?;
        let default = gateway.map(|gateway| format!("route add default via {gateway}\n")).unwrap_or_default();
        container.configure(&format!(
            "link set lo up\nlink set eth0 up\naddr add {address} dev eth0\n{default}"
        ))?;
        Ok(container)
    }

    /// A container with a link on top of one of `node`'s, as by the CNI plugins `macvlan` and `ipvlan`:
    /// `kind` is what `ip link` takes.
    pub fn on_top_of(node: &Host, link: &str, kind: &str, address: &str, gateway: &str) -> Result<Self> {
        let number = CONTAINERS.fetch_add(1, Ordering::Relaxed);
        let (name, port) = (format!("container{number}"), format!("p{number}"));
        ip_batch(&format!("netns add {name}\n"))?;
        node.configure(&format!(
            "link add link {link} name {port} type {kind}\nlink set {port} netns {name}\n"
        ))?;
        let host = Host::enter(name)?;
        host.configure(&format!(
            "link set lo up\nlink set {port} name eth0 up\naddr add {address} dev eth0\n\
             route add default via {gateway}\n"
        ))?;
        Ok(Self { host, port })
    }
}

impl Deref for Container {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = ip_batch(&format!("netns delete {}\n", self.host.name));
    }
}
