//! The node beside its plane: our link with its addresses and routes, netfilter rules, kernel settings,
//! and what the node's own network is like.
//!
//! What belongs here: everything that is the same whichever plane spreads connections. Each file
//! reaches one interface of the kernel; [`Host`] puts them together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::error::Error;
use super::firewall::Dropped;
use super::node::{Capabilities, Node};
use super::op::Op;
use super::rules::{self, RuleSet};
use super::state::{Link, Route};
use inventory::Inventory;
use link::Routing;
use nft::Netfilter;
use resolv::Nameservers;

pub mod inventory;
pub mod link;
pub mod nft;
pub mod resolv;
pub mod sysctl;

/// Settings that are read to describe the node, but never written.
const BRIDGE_NETFILTER4: &str = "net/bridge/bridge-nf-call-iptables";
const BRIDGE_NETFILTER6: &str = "net/bridge/bridge-nf-call-ip6tables";
const HOSTNAME: &str = "kernel/hostname";
const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// Sockets and files of one network namespace.
pub struct Host {
    capabilities: Capabilities,
    routing: Routing,
    /// `None` if the plane leaves packets alone, and so needs no rules.
    netfilter: Option<Netfilter>,
}

/// Everything of ours that the host holds, and the node around it.
#[derive(Clone, Debug, Default)]
pub struct HostReading {
    pub link: Link,
    pub addresses: BTreeSet<IpAddr>,
    pub unrouted: BTreeSet<IpAddr>,
    pub routes: BTreeSet<Route>,
    /// Values of the settings that VIPs may need; empty if the plane leaves packets alone.
    pub sysctls: BTreeMap<String, String>,
    pub rules: Option<RuleSet>,
    pub dropped: Option<Dropped>,
    pub node: Node,
}

impl Host {
    /// Opens the sockets in the current network namespace, for a plane of these capabilities. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// Without a netlink socket.
    pub fn open(link: &str, capabilities: Capabilities) -> Result<Self, Error> {
        Ok(Self {
            capabilities,
            routing: Routing::open(link)?,
            // Opening the socket may load netfilter modules that such a node does without.
            netfilter: capabilities.packets.then(Netfilter::open),
        })
    }

    /// Reads all of it once.
    ///
    /// # Errors
    /// When rtnetlink or `nft` fail. A setting that the kernel lacks is left out.
    pub async fn read(&mut self) -> Result<HostReading, Error> {
        let Inventory { link, addresses, unrouted, routes, mut node } = self.inventory().await?;
        // All settings that may be wanted, because the desired state is not known here.
        let sysctls = rules::sysctls(self.capabilities, true);
        let (rules, dropped) = match &mut self.netfilter {
            Some(netfilter) => (netfilter.read().await?, netfilter.dropped().await),
            None => (None, None),
        };
        // A command of root, such as `l4lbd plan`, knows the daemon's group from the daemon's rules.
        node.own_group = node.own_group.or_else(|| rules.as_ref().and_then(RuleSet::own_group));
        Ok(HostReading {
            link,
            addresses,
            unrouted,
            routes,
            sysctls: sysctl::read(sysctls.keys().map(String::as_str)),
            rules,
            dropped,
            node,
        })
    }

    /// Reads the node alone.
    ///
    /// # Errors
    /// When rtnetlink fails.
    pub async fn read_node(&self) -> Result<Node, Error> {
        Ok(self.inventory().await?.node)
    }

    /// Links, addresses, routes and everything that describes the node.
    async fn inventory(&self) -> Result<Inventory, Error> {
        let mut inventory = self.routing.read().await?;
        let node = &mut inventory.node;
        let is_on = |setting| sysctl::value(setting).as_deref() == Some("1");
        node.filters_bridged4 = is_on(BRIDGE_NETFILTER4);
        node.filters_bridged6 = is_on(BRIDGE_NETFILTER6);
        node.capabilities = self.capabilities;
        node.hostname = sysctl::value(HOSTNAME).unwrap_or_default();
        node.forwards_ipv6 = is_on(IPV6_FORWARDING);
        node.own_group = Some(nix::unistd::getegid().as_raw()).filter(|group| *group != 0);
        node.nameservers = Nameservers::read().addresses().collect();
        Ok(inventory)
    }

    /// Carries out an operation on settings, rules, link, addresses or routes.
    ///
    /// # Errors
    /// The kernel's or tool's answer, in words.
    pub async fn apply(&mut self, op: &Op) -> Result<(), String> {
        match (op, &mut self.netfilter) {
            (Op::SetSysctl { path, value }, _) => {
                sysctl::write(path, value).map_err(|error| error.to_string())
            }
            (Op::ReplaceRules(rules), Some(netfilter)) => {
                netfilter.replace(rules).await.map_err(|error| error.to_string())
            }
            (Op::DelRules, Some(netfilter)) => netfilter.delete().await.map_err(|error| error.to_string()),
            (Op::ReplaceRules(_) | Op::DelRules, None) => {
                Err("this data plane has no netfilter rules".to_owned())
            }
            _ => self.routing.apply(op).await.map_err(|error| error.to_string()),
        }
    }
}
