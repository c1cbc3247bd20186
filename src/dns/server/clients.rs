//! The check which clients are answered: this node, its containers, and those that the configuration
//! names.
//!
//! The listener's address is one of the node's own, so that a neighbour who routes it to the node
//! reaches the listener. A client is inside if its network is connected directly, over a link that does
//! not lead out of the node ([`Node::inside`](crate::dataplane::Node::inside)). The node's networks come
//! from the reconcile loop, which reads them again whenever the kernel reports a change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use super::rules::{ClientRule, ServiceRules};
use crate::plan::NodeView;

/// Decides for one socket or thread which clients are answered, by the newest view of the node.
///
/// Before the first reading of the kernel the node's networks are unknown. Until then only loopback
/// clients, the node from the server's own addresses, and configured networks are answered.
#[derive(Clone)]
pub struct ClientFilter {
    rules: watch::Receiver<Arc<ServiceRules>>,
    rule: Arc<ServiceRules>,
    /// Addresses that the server listens on.
    own: Vec<IpAddr>,
    views: watch::Receiver<Arc<NodeView>>,
    view: Arc<NodeView>,
}

impl ClientFilter {
    /// A filter for a server that listens on `own`.
    pub fn new(
        rules: &watch::Receiver<Arc<ServiceRules>>,
        own: &[IpAddr],
        views: &watch::Receiver<Arc<NodeView>>,
    ) -> Self {
        // The view that is there counts as seen, so that only a later one is fetched.
        let (mut rules, mut views) = (rules.clone(), views.clone());
        let (rule, view) = (rules.borrow_and_update().clone(), views.borrow_and_update().clone());
        Self { rules, rule, own: own.to_vec(), views, view }
    }

    /// Returns true if `client` is a process of this node: it asks from loopback or from the address that it
    /// asks.
    pub fn is_node(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_loopback() || self.own.contains(&client)
    }

    /// Returns true if `client` is answered.
    pub fn allows(&mut self, client: IpAddr) -> bool {
        // The last view stays in use when its sender is gone.
        if !matches!(self.views.has_changed(), Ok(false)) {
            self.view = self.views.borrow_and_update().clone();
        }
        if !matches!(self.rules.has_changed(), Ok(false)) {
            self.rule = self.rules.borrow_and_update().clone();
        }
        // A dual-stack socket shows IPv4 clients as IPv6 addresses.
        let client = client.to_canonical();
        self.rule.clients.iter().any(|rule| match rule {
            ClientRule::Any => true,
            ClientRule::Network(network) => network.contains(&client),
            // A process of this node asks from the address that it asks, or from another one of the node.
            ClientRule::Node => {
                client.is_loopback() || self.own.contains(&client) || covers(&self.view.node.inside, client)
            }
        })
    }
}

/// Returns true if any of `networks` has `address` in it. Prefixes of one address are few, whatever the
/// number of networks.
fn covers(networks: &BTreeSet<IpNet>, address: IpAddr) -> bool {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    // Not from 0: a network of all addresses would let every stranger in.
    (1..=longest)
        .rev()
        .any(|length| IpNet::new(address, length).is_ok_and(|network| networks.contains(&network.trunc())))
}

#[cfg(test)]
mod tests;
