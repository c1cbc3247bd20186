//! The kernel of this node: what holds services, rtnetlink, netfilter and sysctl behind [`DataPlane`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::ebpf::{self, Ebpf};
use super::host::link::{self, Routing};
use super::host::nft::{self, Netfilter};
use super::host::sysctl;
use super::ipvs::{self, Ipvs};
use super::rules::{REQUIRED_SYSCTLS, STICKY_SYSCTLS};
use super::{
    Actual, Connections, DataPlane, Depth, Foreign, Op, OpError, Plane, PlaneChoice, Route, Service,
    ServiceKey, State, Timeouts,
};

/// Settings that are read to describe the node, but never written.
const BRIDGE_NETFILTER: &str = "net/bridge/bridge-nf-call-iptables";
const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// Where a node's nameservers are: the resolver's own file names only itself where it forwards.
const RESOLVERS: &[&str] = &["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Why the data plane could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach IPVS in the kernel: {0}; try: modprobe ip_vs")]
    Ipvs(#[source] ipvs::Error),
    #[error("cannot use eBPF: {0}")]
    Ebpf(#[source] ebpf::Error),
    #[error("this kernel has neither IPVS ({ipvs}; try: modprobe ip_vs) nor eBPF for us ({ebpf})")]
    Neither { ipvs: ipvs::Error, ebpf: ebpf::Error },
    #[error("cannot read links, addresses or routes: {0}")]
    Routing(#[source] link::Error),
    #[error("cannot read netfilter rules: {0}")]
    Netfilter(#[source] nft::Error),
}

/// What to open.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// `None` where the kernel decides: IPVS if it has that.
    pub plane: Option<Plane>,
    /// Name of our link.
    pub link: String,
    pub ebpf: ebpf::Options,
    /// Whether programs may be attached; without that, what they find pinned is only looked at.
    pub attach: bool,
}

/// Sockets to the kernel of the network namespace in which they were opened.
pub struct Kernel {
    choice: PlaneChoice,
    services: Services,
    routing: Routing,
}

enum Services {
    Ipvs(Box<Packets>),
    Ebpf(Box<Ebpf>),
    /// What is pinned there, to be looked at.
    Pinned(ebpf::Options),
}

/// IPVS, and what else packets pass.
struct Packets {
    ipvs: Ipvs,
    netfilter: Netfilter,
    /// Size of the connection table, which is fixed once the module is loaded.
    connection_buckets: Option<u32>,
    /// Programs that an earlier run may have left, which go as soon as they are not needed.
    programs: Option<ebpf::Options>,
}

/// What is read of services, whatever holds them.
#[derive(Default)]
struct Reading {
    services: BTreeMap<ServiceKey, Service>,
    foreign: Vec<Foreign>,
    connections: BTreeMap<(ServiceKey, SocketAddr), Connections>,
    timeouts: Option<Timeouts>,
    /// Where the data plane has networks of its own instead of routes.
    networks: Option<BTreeSet<Route>>,
}

impl From<ebpf::EbpfReading> for Reading {
    fn from(table: ebpf::EbpfReading) -> Self {
        let route = |destination| Route { destination, source: None };
        Self {
            services: table.services,
            connections: table.connections,
            networks: Some(table.networks.into_iter().map(route).collect()),
            ..Self::default()
        }
    }
}

impl Services {
    fn open(options: &KernelOptions) -> Result<(Self, PlaneChoice), Error> {
        let chosen = |plane| PlaneChoice { plane, reason: "as configured".to_owned() };
        match options.plane {
            Some(Plane::Ipvs) => Ok((Self::ipvs(options).map_err(Error::Ipvs)?, chosen(Plane::Ipvs))),
            Some(Plane::Ebpf) => Ok((Self::ebpf(options).map_err(Error::Ebpf)?, chosen(Plane::Ebpf))),
            None => match Self::ipvs(options) {
                Ok(services) => {
                    Ok((services, PlaneChoice { plane: Plane::Ipvs, reason: "the kernel has it".to_owned() }))
                }
                Err(ipvs) => match Self::ebpf(options) {
                    Ok(services) => {
                        Ok((services, PlaneChoice { plane: Plane::Ebpf, reason: ipvs.to_string() }))
                    }
                    Err(ebpf) => Err(Error::Neither { ipvs, ebpf }),
                },
            },
        }
    }

    fn ipvs(options: &KernelOptions) -> Result<Self, ipvs::Error> {
        let mut ipvs = Ipvs::open()?;
        Ok(Self::Ipvs(Box::new(Packets {
            connection_buckets: ipvs.connection_table_size().ok(),
            ipvs,
            netfilter: Netfilter::open(),
            programs: Some(options.ebpf.clone()),
        })))
    }

    fn ebpf(options: &KernelOptions) -> Result<Self, ebpf::Error> {
        Ok(match options.attach {
            true => Self::Ebpf(Box::new(Ebpf::open(&options.ebpf)?)),
            false => Self::Pinned(options.ebpf.clone()),
        })
    }

    /// The kernel answers at once or not at all, so blocking a worker thread for it is bounded.
    fn read(&mut self, depth: Depth) -> Result<Reading, Error> {
        tokio::task::block_in_place(|| match self {
            Self::Ipvs(packets) => {
                let ipvs = &mut packets.ipvs;
                let table = match depth {
                    Depth::Audit => ipvs.audit(),
                    Depth::Full => ipvs.read(),
                };
                let table = table.map_err(Error::Ipvs)?;
                Ok(Reading {
                    services: table.services,
                    foreign: table.foreign,
                    connections: table.connections,
                    timeouts: Some(ipvs.timeouts().map_err(Error::Ipvs)?),
                    networks: None,
                })
            }
            Self::Ebpf(ebpf) => {
                let repaired = ebpf.repair().map_err(Error::Ebpf)?;
                if !repaired.is_empty() {
                    tracing::warn!(
                        hooks = repaired.join(", "),
                        "somebody detached our programs, attached again"
                    );
                }
                ebpf.read().map(Reading::from).map_err(Error::Ebpf)
            }
            Self::Pinned(options) => Ebpf::look(options).map(Reading::from).map_err(Error::Ebpf),
        })
    }

    fn takes(&self, op: &Op) -> bool {
        let is_network = matches!(op, Op::AddRoute(_) | Op::DelRoute(_));
        op.service().is_some() || (is_network && !matches!(self, Self::Ipvs(_)))
    }

    fn apply(&mut self, ops: &[&Op]) -> Vec<(usize, String)> {
        fn texts(errors: Vec<(usize, impl ToString)>) -> Vec<(usize, String)> {
            errors.into_iter().map(|(index, error)| (index, error.to_string())).collect()
        }
        tokio::task::block_in_place(|| match self {
            Self::Ipvs(packets) => texts(packets.ipvs.apply(ops)),
            Self::Ebpf(ebpf) => texts(ebpf.apply(ops)),
            Self::Pinned(_) => {
                ops.iter().enumerate().map(|(index, _)| (index, "only looking".to_owned())).collect()
            }
        })
    }
}

impl Kernel {
    /// Opens all sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Without the wanted data plane in the kernel, or without the right to use it.
    pub fn open(options: &KernelOptions) -> Result<Self, Error> {
        let (services, choice) = Services::open(options)?;
        Ok(Self { choice, services, routing: Routing::open(&options.link).map_err(Error::Routing)? })
    }

    async fn apply_one(&mut self, op: &Op) -> Result<(), String> {
        match (op, &mut self.services) {
            (Op::SetSysctl { path, value }, _) => {
                sysctl::write(path, value).map_err(|error| error.to_string())
            }
            (Op::SetTimeouts(timeouts), Services::Ipvs(packets)) => {
                packets.ipvs.set_timeouts(*timeouts).map_err(|error| error.to_string())
            }
            (Op::ReplaceRules(rules), Services::Ipvs(packets)) => {
                packets.netfilter.replace(rules).await.map_err(|error| error.to_string())
            }
            (Op::DelRules, Services::Ipvs(packets)) => {
                packets.netfilter.delete().await.map_err(|error| error.to_string())
            }
            _ => self.routing.apply(op).await.map_err(|error| error.to_string()),
        }
    }

    /// The stretch of operations on services that starts at `start`.
    fn run(&self, ops: &[Op], start: usize) -> Range<usize> {
        let rest = ops.get(start..).unwrap_or_default();
        start..start + rest.iter().take_while(|op| self.services.takes(op)).count()
    }
}

impl Packets {
    /// Programs of an earlier run would lead clients to what was then.
    fn remove_programs(&mut self) -> Result<(), ebpf::Error> {
        let Some(options) = &self.programs else { return Ok(()) };
        match Ebpf::purge(options) {
            // Only root may look into /sys/fs/bpf on most nodes, and a service for IPVS need not.
            Err(error) if error.is_denied() => {
                tracing::info!(%error, "cannot look for programs of an earlier run; if it used ebpf: l4lbd purge");
            }
            purged => purged?,
        }
        self.programs = None;
        Ok(())
    }
}

impl DataPlane for Kernel {
    fn choice(&self) -> PlaneChoice {
        self.choice.clone()
    }

    async fn read(&mut self, depth: Depth) -> Result<Actual, Error> {
        let Reading { services, foreign, connections, timeouts, networks } = self.services.read(depth)?;
        let link::Reading { link, addresses, routes, mut node } =
            self.routing.read().await.map_err(Error::Routing)?;
        if sysctl::value(BRIDGE_NETFILTER).as_deref() != Some("1") {
            node.no_hairpin.clear();
        }
        node.plane = self.choice.plane;
        node.forwards_ipv6 = sysctl::value(IPV6_FORWARDING).as_deref() == Some("1");
        node.nameservers = RESOLVERS.iter().flat_map(|path| nameservers(path)).collect();
        let mut state = State {
            services,
            link,
            addresses,
            routes: networks.unwrap_or(routes),
            timeouts,
            ..State::default()
        };
        if let Services::Ipvs(packets) = &mut self.services {
            node.connection_buckets = packets.connection_buckets;
            state.sysctls =
                sysctl::read(REQUIRED_SYSCTLS.iter().chain(STICKY_SYSCTLS).map(|(path, _)| *path));
            state.rules = packets.netfilter.read().await.map_err(Error::Netfilter)?;
        }
        Ok(Actual { state, foreign, connections, node })
    }

    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError> {
        let mut errors = Vec::new();
        let mut next = 0;
        while let Some(op) = ops.get(next) {
            if self.services.takes(op) {
                let run = self.run(ops, next);
                let batch: Vec<&Op> = ops.get(run.clone()).unwrap_or_default().iter().collect();
                let failed = self.services.apply(&batch);
                errors.extend(
                    failed.into_iter().filter_map(|(index, error)| {
                        Some(OpError { op: (*batch.get(index)?).clone(), error })
                    }),
                );
                next = run.end;
            } else {
                if let Err(error) = self.apply_one(op).await {
                    errors.push(OpError { op: op.clone(), error });
                }
                next += 1;
            }
        }
        errors
    }

    async fn conclude(&mut self, complete: bool) -> Result<(), String> {
        tokio::task::block_in_place(|| match &mut self.services {
            Services::Ipvs(packets) if complete => packets
                .remove_programs()
                .map_err(|error| format!("cannot remove the programs of an earlier run with ebpf: {error}")),
            Services::Ebpf(ebpf) => ebpf.conclude(complete).map_err(|error| error.to_string()),
            Services::Ipvs(_) | Services::Pinned(_) => Ok(()),
        })
    }
}

/// The addresses in a `resolv.conf`; none where there is no such file.
fn nameservers(path: &str) -> BTreeSet<IpAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}
