//! The plane of programs that change where sockets connect to.

use std::collections::BTreeSet;

use crate::dataplane::ebpf::{BOUNDS, Ebpf, EbpfReading, Error, Exemption, Options, SCHEDULER, UNEJECTED};
use crate::dataplane::lock::{Lock, Part};
use crate::dataplane::node::{Capabilities, PlaneKind};
use crate::dataplane::op::Op;
use crate::dataplane::plane::{Plane, PlaneError, PlaneReading};
use crate::dataplane::reading::{Depth, Unreached};
use crate::dataplane::state::{Route, ServerKey};
use crate::dataplane::traffic::{Counted, WholeCount};

/// Programs at a cgroup with their pinned maps.
pub struct EbpfPlane {
    options: Options,
    /// `None` if nothing may be attached; what is pinned is only looked at then.
    attached: Option<Ebpf>,
    /// Keeps the sources' answers and passwords away from VIPs; `None` if no program runs for this process.
    _exemption: Option<Exemption>,
}

/// Programs that an earlier run may have left pinned, while this run uses another plane. Clients would
/// still be sent to the backends of that time.
#[derive(Debug)]
pub struct Leftovers {
    /// `None` once they are gone.
    options: Option<Options>,
    /// Set while the programs may still run for this process.
    exemption: Option<Exemption>,
}

impl EbpfPlane {
    /// The capabilities of the programs. No packet ever has the address of a VIP, and a connection to a
    /// mapped port of this node is mapped as any other.
    pub const CAPABILITIES: Capabilities = Capabilities {
        packets: false,
        own_scheduler: Some(SCHEDULER),
        unejected: Some(UNEJECTED),
        bypasses_port_mappings: false,
        bounds: Some(BOUNDS),
    };

    /// The parts of the kernel that one daemon alone can have.
    ///
    /// # Errors
    /// Without a cgroup v2 tree, or a place for the pins.
    pub fn parts(options: &Options) -> Result<[Part; 2], PlaneError> {
        Ebpf::parts(options).map_err(error)
    }

    /// The parts of these that exist already, for who takes everything away.
    pub fn existing_parts(options: &Options) -> Vec<Part> {
        Ebpf::existing_parts(options)
    }

    /// Takes over what is pinned, and attaches what is not.
    ///
    /// # Errors
    /// Without the rights, a cgroup v2 tree, or a place for the pins.
    pub fn attach(options: &Options) -> Result<Self, PlaneError> {
        let attached = Some(Ebpf::open(options).map_err(error)?);
        let exemption = Ebpf::exempt_this_process(options).map_err(error)?;
        Ok(Self { options: options.clone(), attached, _exemption: exemption })
    }

    /// Looks at what is pinned without changing it; every operation is refused.
    pub fn look(options: &Options) -> Self {
        // Programs that may not be looked at are reported by the reading.
        let exemption = Ebpf::exempt_this_process(options).ok().flatten();
        Self { options: options.clone(), attached: None, _exemption: exemption }
    }
}

impl Plane for EbpfPlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Ebpf
    }

    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    fn takes(&self, op: &Op) -> bool {
        // The networks of VIPs are a map here.
        op.service().is_some() || matches!(op, Op::AddRoute(_) | Op::DelRoute(_))
    }

    fn read(&mut self, _: Depth) -> Result<PlaneReading, PlaneError> {
        let Some(ebpf) = &mut self.attached else {
            return Ebpf::look(&self.options).map(PlaneReading::from).map_err(error);
        };
        // The maps can be right while nothing reads them, so programs are checked in each reading.
        let repaired = ebpf.repair().map_err(error)?;
        if !repaired.is_empty() {
            tracing::warn!(
                hooks = repaired.join(", "),
                "eBPF programs had been detached or unpinned by another program, attached again"
            );
        }
        let table = ebpf.read().map_err(error)?;
        Ok(PlaneReading { seen: Some(ebpf.seen().map_err(error)?), ..table.into() })
    }

    fn count(&mut self, servers: &BTreeSet<ServerKey>) -> Result<Counted, PlaneError> {
        // Nothing drains where nothing may be changed.
        let Some(ebpf) = &self.attached else { return Ok(Counted::default()) };
        Ok(Counted { connections: ebpf.count(servers).map_err(error)?, ..Counted::default() })
    }

    fn count_all(&mut self) -> Result<Option<WholeCount>, PlaneError> {
        let Some(ebpf) = &self.attached else { return Ok(None) };
        let connections = ebpf.connections().map_err(error)?;
        Ok(Some(WholeCount { connections, seen: ebpf.seen().map_err(error)? }))
    }

    fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, String)> {
        match &mut self.attached {
            Some(ebpf) => {
                ebpf.apply(ops).into_iter().map(|(index, error)| (index, error.to_string())).collect()
            }
            None => (0..ops.len()).map(|index| (index, "opened for reading only".to_owned())).collect(),
        }
    }

    fn finish_pass(&mut self, all_programmed: bool) -> Result<(), String> {
        match &mut self.attached {
            Some(ebpf) => ebpf.finish_pass(all_programmed).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    fn unreached(&self) -> Option<Unreached> {
        self.attached.as_ref().and_then(Ebpf::unreached)
    }

    fn purge(&mut self) -> Result<Option<usize>, PlaneError> {
        // Reading while attached would attach again.
        self.attached = None;
        if !self.options.pins.exists() {
            return Ok(None);
        }
        // Maps that can't be read are removed all the same.
        let services = Ebpf::look(&self.options).map_or(0, |table| table.services.len());
        Ebpf::purge(&self.options).map_err(error)?;
        Ok(Some(services))
    }
}

impl Leftovers {
    /// Expects programs pinned where these options say, beside the plane `used`; `None` if that plane takes
    /// them over. Programs act before there is a packet, and so would hide any other plane's services.
    pub fn beside(used: PlaneKind, options: &Options) -> Option<Self> {
        // What fails here fails again when they are removed, and is reported then.
        let exemption = || Ebpf::exempt_this_process(options).ok().flatten();
        (used != PlaneKind::Ebpf).then(|| Self { options: Some(options.clone()), exemption: exemption() })
    }

    /// Detaches the programs and removes their pins, once. Their connections go on.
    ///
    /// # Errors
    /// When something was left, in words.
    pub fn remove(&mut self) -> Result<(), String> {
        let Some(options) = &self.options else { return Ok(()) };
        let failed = |error: &dyn std::error::Error| {
            format!(
                "cannot remove the eBPF programs of an earlier run, which still redirect clients: {error}"
            )
        };
        // A daemon that runs, perhaps in another network namespace, would attach them again. Without such a
        // directory there is nothing to lock, and one that is closed is reported below.
        let part = Ebpf::pins_part(options).ok();
        let _lock = part.map(|part| Lock::take(&part)).transpose().map_err(|error| failed(&error))?;
        match Ebpf::purge(options) {
            // Only root may look into /sys/fs/bpf on most nodes, and a daemon with IPVS need not be. Most nodes never
            // had programs, and should not be told of them at each start.
            Err(error) if error.is_denied() => tracing::debug!(
                %error,
                "cannot look for eBPF programs of an earlier run: if it used the data plane ebpf, run as root: \
                 l4lbd purge"
            ),
            purged => purged.map_err(|error| failed(&error))?,
        }
        // Nothing pins programs again while this run uses another plane.
        self.options = None;
        self.exemption = None;
        Ok(())
    }
}

impl From<EbpfReading> for PlaneReading {
    fn from(table: EbpfReading) -> Self {
        let route = |destination| Route { destination, source: None };
        Self {
            services: table.services.into_iter().map(|(key, service)| (key, service.into())).collect(),
            connections: table.connections,
            networks: Some(table.networks.into_iter().map(route).collect()),
            ..Self::default()
        }
    }
}

fn error(error: Error) -> PlaneError {
    PlaneError::new(PlaneKind::Ebpf, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;
    use crate::dataplane::ServiceKey;

    fn options(pins: std::path::PathBuf) -> Options {
        Options {
            cgroup: None,
            pins,
            udp_timeout: std::time::Duration::from_secs(60),
            ejection: crate::dataplane::ebpf::Ejection::default(),
        }
    }

    /// A plane that may attach nothing, where nothing is pinned.
    fn nothing_pinned(directory: &tempfile::TempDir) -> EbpfPlane {
        EbpfPlane::look(&options(directory.path().join("pins")))
    }

    fn ops() -> [Op; 4] {
        let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
        let route = Route { destination: "11.0.0.0/8".parse().unwrap(), source: None };
        [Op::DelService(key), Op::AddRoute(route), Op::DelRules, Op::AddLink]
    }

    #[test]
    fn plane_takes_services_and_networks() {
        let directory = tempfile::tempdir().unwrap();
        let plane = nothing_pinned(&directory);
        assert_eq!(ops().map(|op| plane.takes(&op)), [true, true, false, false]);
        assert_eq!((plane.kind(), plane.capabilities()), (PlaneKind::Ebpf, EbpfPlane::CAPABILITIES));
    }

    #[test]
    fn plane_without_attaching_refuses_changes_and_is_empty_without_pins() {
        let directory = tempfile::tempdir().unwrap();
        let mut plane = nothing_pinned(&directory);
        let [service, route, ..] = ops();
        let refused = plane.apply(&[&service, &route]);
        assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(plane.finish_pass(true), Ok(()));
        let empty = PlaneReading { networks: Some([].into()), ..PlaneReading::default() };
        assert_eq!(plane.read(Depth::Full).unwrap(), empty);
        assert_eq!(plane.purge().unwrap(), None);
    }

    #[test]
    fn leftovers_are_looked_for_until_they_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let pins = directory.path().join("pins");
        let options = options(pins.clone());
        assert!(Leftovers::beside(PlaneKind::Ebpf, &options).is_none(), "the plane takes them over");
        let mut leftovers = Leftovers::beside(PlaneKind::Ipvs, &options).unwrap();
        assert_eq!(leftovers.remove(), Ok(()));
        // A directory of that name that appears later is not of an earlier run.
        std::fs::create_dir(&pins).unwrap();
        assert_eq!(leftovers.remove(), Ok(()));
    }
}
