//! The kernel of this node: IPVS, rtnetlink, netfilter and sysctl behind [`DataPlane`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

use super::ipvs::{self, Ipvs};
use super::netfilter::Netfilter;
use super::routing::{self, Routing};
use super::{Actual, DataPlane, Depth, Error, Op, OpError, State, sysctl};

/// Settings that are read to describe the node, but never written.
const BRIDGE_NETFILTER: &str = "net/bridge/bridge-nf-call-iptables";
const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// Where a node's nameservers are: the resolver's own file names only itself where it forwards.
const RESOLVERS: &[&str] = &["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Sockets to the kernel of the network namespace in which they were opened.
pub struct Kernel {
    ipvs: Ipvs,
    routing: Routing,
    netfilter: Netfilter,
    /// Size of the connection table, which is fixed once the module is loaded.
    connection_buckets: Option<u32>,
}

impl Kernel {
    /// Opens all sockets; `link` is the name of our link. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Without IPVS in the kernel, or without the right to use netlink.
    pub fn open(link: &str) -> Result<Self, Error> {
        let mut ipvs = Ipvs::open().map_err(Error::Ipvs)?;
        Ok(Self {
            connection_buckets: ipvs.connection_table_size().ok(),
            ipvs,
            routing: Routing::open(link).map_err(Error::Routing)?,
            netfilter: Netfilter::open(),
        })
    }

    async fn apply_one(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::SetSysctl { path, value } => sysctl::write(path, value).map_err(|error| error.to_string()),
            Op::SetTimeouts(timeouts) => self.ipvs.set_timeouts(*timeouts).map_err(|error| error.to_string()),
            Op::ReplaceRules(rules) => self.netfilter.replace(rules).await.map_err(|error| error.to_string()),
            Op::DelRules => self.netfilter.delete().await.map_err(|error| error.to_string()),
            _ => self.routing.apply(op).await.map_err(|error| error.to_string()),
        }
    }
}

impl DataPlane for Kernel {
    async fn read(&mut self, depth: Depth) -> Result<Actual, Error> {
        // IPVS answers at once or not at all, so blocking a worker thread for it is bounded.
        let (table, timeouts) = tokio::task::block_in_place(|| -> Result<_, ipvs::Error> {
            let table = match depth {
                Depth::Audit => self.ipvs.audit()?,
                Depth::Full => self.ipvs.read()?,
            };
            Ok((table, self.ipvs.timeouts()?))
        })
        .map_err(Error::Ipvs)?;
        let routing::Reading { link, addresses, routes, mut node } =
            self.routing.read().await.map_err(Error::Routing)?;
        if sysctl::value(BRIDGE_NETFILTER).as_deref() != Some("1") {
            node.no_hairpin.clear();
        }
        node.forwards_ipv6 = sysctl::value(IPV6_FORWARDING).as_deref() == Some("1");
        node.nameservers = RESOLVERS.iter().flat_map(|path| nameservers(path)).collect();
        node.connection_buckets = self.connection_buckets;
        let state = State {
            services: table.services,
            link,
            addresses,
            routes,
            sysctls: sysctl::read(sysctl::REQUIRED.iter().chain(sysctl::STICKY).map(|(path, _)| *path)),
            rules: self.netfilter.read().await.map_err(Error::Netfilter)?,
            timeouts: Some(timeouts),
        };
        Ok(Actual { state, foreign: table.foreign, connections: table.connections, node })
    }

    async fn apply(&mut self, ops: &[Op]) -> Vec<OpError> {
        let mut errors = Vec::new();
        let mut next = 0;
        while let Some(op) = ops.get(next) {
            if op.service().is_some() {
                let run = run_of_ipvs(ops, next);
                let batch: Vec<&Op> = ops.get(run.clone()).unwrap_or_default().iter().collect();
                let failed = tokio::task::block_in_place(|| self.ipvs.apply(&batch));
                errors.extend(failed.into_iter().filter_map(|(index, error)| {
                    Some(OpError { op: (*batch.get(index)?).clone(), error: error.to_string() })
                }));
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
}

/// The addresses in a `resolv.conf`; none where there is no such file.
fn nameservers(path: &str) -> BTreeSet<IpAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}

/// The stretch of IPVS operations that starts at `start`.
fn run_of_ipvs(ops: &[Op], start: usize) -> Range<usize> {
    let length = ops.get(start..).unwrap_or_default().iter().take_while(|op| op.service().is_some()).count();
    start..start + length
}
