//! The daemon of the demonstration: its configuration, and what it says of itself.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client::NAME;
use super::stage::{NODE, Stage, ip};
use super::{Error, Plane};
use crate::config::{Config, KEYS};
use crate::dataplane::kernel::Kernel;
use crate::status::{Backend, Status, Vip};

/// Longest wait for a status.
const PATIENCE: Duration = Duration::from_secs(10);

/// The link that IPVS needs, tried out under another name.
const TRIAL: &str = "link add l4lbd-trial type dummy\nlink delete l4lbd-trial\n";

/// Finds a data plane that this kernel has; [`Plane::Auto`] is none. To be called on the stage, within a runtime.
///
/// # Errors
/// When there is none, or not the wanted one.
pub fn choose(wanted: Plane) -> Result<Plane, Error> {
    let ipvs = || {
        Kernel::open(&Config::default().ipvs.link).map_err(|error| error.to_string())?;
        ip(TRIAL).map_err(|error| format!("IPVS needs dummy links, and: {error}"))?;
        Ok(Plane::Ipvs)
    };
    let ebpf = || match has_choice() {
        true => Ok(Plane::Ebpf),
        false => Err("this version of l4lbd knows IPVS only".to_owned()),
    };
    match wanted {
        Plane::Ipvs => ipvs(),
        Plane::Ebpf => ebpf(),
        Plane::Auto => {
            ipvs().or_else(|no_ipvs: String| ebpf().map_err(|no_ebpf| format!("{no_ipvs}; {no_ebpf}")))
        }
    }
    .map_err(Error::NoDataPlane)
}

/// Whether the daemon can be told which data plane to use.
fn has_choice() -> bool {
    KEYS.iter().any(|key| key.path == "dataplane")
}

/// The configuration file. In turn is how a spread is seen soonest: by the number of connections, the usual way,
/// an instance that is new gets them all for a while.
pub fn config(stage: &Stage, plane: Plane) -> String {
    let show = |path: &Path| path.display().to_string();
    let (state, state_dir, socket) = (show(&stage.state), show(&stage.state_dir), show(&stage.socket));
    let mut text = String::new();
    if has_choice() {
        text += &format!("dataplane = \"{plane}\"\n\n");
    }
    text += &format!(
        "[source]\nmasters = [\"file:{state}\"]\ninterval = \"250ms\"\n\n\
         [node]\naddress = \"{NODE}\"\n\n\
         [ipvs]\nscheduler = \"rr\"\n\n\
         [daemon]\nstate_dir = \"{state_dir}\"\nsocket = \"{socket}\"\n\n\
         [dns]\nresolved = \"off\"\n"
    );
    if let (true, Some(cgroup), Some(pins)) = (has_choice(), &stage.cgroup, &stage.pins) {
        text += &format!("\n[ebpf]\ncgroup = \"{}\"\npins = \"{}\"\n", show(cgroup), show(pins));
    }
    text
}

/// What `l4lbd status` is told.
///
/// # Errors
/// When the daemon is not there, or says what is not a status.
pub async fn status(socket: &Path) -> io::Result<Status> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"GET /status HTTP/1.0\r\nHost: l4lbd\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_str(body)?)
    };
    tokio::time::timeout(PATIENCE, asked).await?
}

/// The VIP that is dialled.
pub fn vip(status: &Status) -> Option<&Vip> {
    status.vips.iter().find(|vip| vip.name.as_deref() == Some(NAME))
}

/// Whether clients can be let loose: the VIP is served and its name answered.
pub fn is_ready(status: &Status) -> bool {
    let serves = |vip: &Vip| vip.backends.iter().any(takes_connections);
    status.pass.errors.is_empty() && !status.dns.addresses.is_empty() && vip(status).is_some_and(serves)
}

/// Whether new connections go there.
pub fn takes_connections(backend: &Backend) -> bool {
    backend.weight > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid() {
        let stage = Stage {
            state: "/run/x/state.json".into(),
            config: "/run/x/l4lbd.toml".into(),
            state_dir: "/run/x/state".into(),
            socket: "/run/x/l4lbd.sock".into(),
            log: "/run/x/l4lbd.log".into(),
            cgroup: Some("/run/x/cgroup".into()),
            pins: Some("/run/x/bpf".into()),
        };
        let config = Config::parse(&stage.config, &config(&stage, Plane::Auto)).unwrap();
        assert_eq!(config.daemon.socket, stage.socket);
        assert_eq!(config.places(), ["file:/run/x/state.json"]);
    }
}
