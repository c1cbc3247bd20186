//! The daemon of the demonstration: its configuration, and what it says of itself.

use std::path::Path;

use reqwest::Method;

use super::Error;
use super::client::NAME;
use super::sandbox::{NODE, Stage};
use crate::api;
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::ebpf::Options;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::{DataPlane, PlaneKind};
use crate::status::{Backend, Status, Vip};

/// Finds a data plane that this kernel has; without a wanted one IPVS before eBPF, as the daemon does. To be called
/// on the stage, within a runtime.
///
/// # Errors
/// When there is none, or not the wanted one.
pub fn choose(stage: &Stage, wanted: Option<PlaneKind>) -> Result<PlaneKind, Error> {
    // Without a cgroup of the stage's own, programs would hold for the whole machine.
    let plane = match (wanted, stage.ebpf()) {
        (Some(PlaneKind::Ebpf), None) => {
            return Err(Error::NoDataPlane(
                "eBPF needs the cgroup v2 tree and the BPF file system".to_owned(),
            ));
        }
        (None, None) => Some(PlaneKind::Ipvs),
        (wanted, _) => wanted,
    };
    // The same file as the daemon's, so that both open the kernel in the same way.
    let kind = plane.map_or("auto".to_owned(), |plane| plane.to_string());
    let config = Config::parse(&stage.config, &text(stage, &kind))
        .map_err(|error| Error::Refused(error.to_string()))?;
    let options = wiring::kernel(&config);
    let kernel = Kernel::open(&options).map_err(|error| Error::NoDataPlane(error.to_string()))?;
    Ok(kernel.choice().plane)
}

/// The configuration file. With IPVS in turn, because a spread is seen soonest that way: by the number of connections,
/// the usual way, an instance that is new gets them all for a while.
pub fn config(stage: &Stage, plane: PlaneKind) -> String {
    text(stage, &plane.to_string())
}

/// The file for a data plane of this kind, which may be `auto`.
fn text(stage: &Stage, kind: &str) -> String {
    let show = |path: &Path| path.display().to_string();
    let (state, state_dir, socket) = (show(&stage.state), show(&stage.state_dir), show(&stage.socket));
    let mut text = format!(
        "[dataplane]\nkind = \"{kind}\"\n\n\
         [source]\nmasters = [\"file:{state}\"]\ninterval = \"250ms\"\n\n\
         [node]\naddress = \"{NODE}\"\n\n\
         [ipvs]\nscheduler = \"rr\"\n\n\
         [daemon]\nstate_dir = \"{state_dir}\"\nsocket = \"{socket}\"\n\n\
         [dns]\nresolved = \"off\"\n"
    );
    if let Some(Options { cgroup: Some(cgroup), pins }) = stage.ebpf() {
        text += &format!("\n[ebpf]\ncgroup = \"{}\"\npins = \"{}\"\n", show(&cgroup), show(&pins));
    }
    text
}

/// What `l4lbd status` is told; `None` when the daemon is not there.
pub async fn status(socket: &Path) -> Option<Status> {
    Some(api::client::ask(socket, Method::GET, "/status").await.ok()?.status)
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
        let config = Config::parse(&stage.config, &config(&stage, PlaneKind::Ebpf)).unwrap();
        assert_eq!(config.daemon.socket, stage.socket);
        assert_eq!(Some(wiring::kernel(&config).ebpf), stage.ebpf());
        assert_eq!(wiring::origins(&config), ["file:/run/x/state.json"]);
    }
}
