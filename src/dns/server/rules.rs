//! Rules for a server: who is answered, and where other names are asked for. They can change while it listens.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::dns::forward::Forwarder;

/// One entry of `dns.clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ClientRule {
    /// Processes and containers of this node.
    Node,
    Any,
    Network(IpNet),
}

impl FromStr for ClientRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "node" => Ok(Self::Node),
            "any" => Ok(Self::Any),
            _ => text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(Self::Network)
                .map_err(|_| format!("{text:?} is neither node, any nor a network such as 10.0.0.0/8")),
        }
    }
}

impl TryFrom<String> for ClientRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Rules that can change while the server listens.
#[derive(Clone, Default)]
pub struct ServiceRules {
    pub clients: Vec<ClientRule>,
    /// Resolver for names that are not in the catalog; `None` where they are refused.
    pub forwarder: Option<Forwarder>,
}
