//! The demonstration's daemon: its data plane, its configuration, and the parts of its status that are needed.

use std::path::Path;

use super::client::NAME;
use super::error::Error;
use super::sandbox::{NODE, Sandbox};
use crate::daemon;
use crate::dataplane::PlaneKind;
use crate::dataplane::ebpf::Options;
use crate::status::{Backend, Status, Vip};

/// Returns the data plane to show: the requested one, or else the one that the daemon would choose. To be called in the
/// sandbox, within a runtime.
///
/// # Errors
/// When this kernel lacks it.
pub fn choose(sandbox: &Sandbox, wanted: Option<PlaneKind>) -> Result<PlaneKind, Error> {
    // Without the sandbox's own control group, eBPF programs would take effect on the whole machine.
    let plane = match (wanted, sandbox.ebpf()) {
        (Some(PlaneKind::Ebpf), None) => {
            return Err(Error::NoDataPlane("eBPF needs cgroup v2 and the BPF file system".to_owned()));
        }
        (None, None) => Some(PlaneKind::Ipvs),
        (wanted, _) => wanted,
    };
    // The daemon's own file, so that both open the kernel in the same way.
    let kind = plane.map_or("auto".to_owned(), |plane| plane.to_string());
    daemon::data_plane(&sandbox.config, &text(sandbox, &kind))
        .map_err(|error| Error::NoDataPlane(error.to_string()))
}

/// Returns the text of the configuration file.
///
/// IPVS takes backends in turn (`rr`): that shows an even spread soonest. By the default, least connections, a new
/// instance would get all connections for a while.
pub fn config(sandbox: &Sandbox, plane: PlaneKind) -> String {
    text(sandbox, &plane.to_string())
}

/// Returns the file for a data plane of this kind, which may be `auto`.
fn text(sandbox: &Sandbox, kind: &str) -> String {
    let show = |path: &Path| path.display().to_string();
    let (state, state_dir, socket) = (show(&sandbox.state), show(&sandbox.state_dir), show(&sandbox.socket));
    let mut text = format!(
        "[dataplane]\nkind = \"{kind}\"\n\n\
         [source]\nmasters = [\"file:{state}\"]\ninterval = \"250ms\"\n\n\
         [node]\naddress = \"{NODE}\"\n\n\
         [ipvs]\nscheduler = \"rr\"\n\n\
         [daemon]\nstate_dir = \"{state_dir}\"\nsocket = \"{socket}\"\n\n\
         [dns]\nresolved = \"off\"\n"
    );
    if let Some(Options { cgroup: Some(cgroup), pins, .. }) = sandbox.ebpf() {
        text += &format!("\n[ebpf]\ncgroup = \"{}\"\npins = \"{}\"\n", show(&cgroup), show(&pins));
    }
    text
}

/// Returns the VIP that the client uses.
pub fn vip(status: &Status) -> Option<&Vip> {
    status.vips.iter().find(|vip| vip.name.as_deref() == Some(NAME))
}

/// True if clients can start: the VIP has a backend, its name is answered, and the last pass had no error.
pub fn is_ready(status: &Status) -> bool {
    let serves = |vip: &Vip| vip.backends.iter().any(takes_connections);
    status.pass.errors.is_empty() && !status.dns.addresses.is_empty() && vip(status).is_some_and(serves)
}

/// True if the backend gets new connections.
pub fn takes_connections(backend: &Backend) -> bool {
    backend.weight > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::daemon::wiring;

    #[test]
    fn the_configuration_is_valid() {
        let sandbox = Sandbox {
            state: "/run/x/state.json".into(),
            config: "/run/x/l4lbd.toml".into(),
            state_dir: "/run/x/state".into(),
            socket: "/run/x/l4lbd.sock".into(),
            log: "/run/x/l4lbd.log".into(),
            cgroup: Some("/run/x/cgroup".into()),
            pins: Some("/run/x/bpf".into()),
        };
        let config = Config::parse(&sandbox.config, &config(&sandbox, PlaneKind::Ebpf)).unwrap();
        assert_eq!(config.daemon.socket, sandbox.socket);
        assert_eq!(Some(wiring::kernel(&config).ebpf), sandbox.ebpf());
        assert_eq!(wiring::origins(&config), ["file:/run/x/state.json"]);
    }
}
