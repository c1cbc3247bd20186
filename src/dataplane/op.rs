//! Operations on a kernel.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::rules::RuleSet;
use super::state::{RealServer, Route, Scheduling, ServiceKey, Timeouts};

/// One change to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    SetSysctl {
        path: String,
        value: String,
    },
    SetTimeouts(Timeouts),
    AddLink,
    SetLinkUp,
    DelLink,
    AddAddress(IpAddr),
    DelAddress(IpAddr),
    /// Adds the `local` route of an address that is on our link.
    AddLocalRoute(IpAddr),
    ReplaceRules(RuleSet),
    DelRules,
    AddRoute(Route),
    DelRoute(Route),
    AddService(ServiceKey, Scheduling),
    SetService(ServiceKey, Scheduling),
    DelService(ServiceKey),
    AddServer(ServiceKey, SocketAddr, RealServer),
    SetServer(ServiceKey, SocketAddr, RealServer),
    DelServer(ServiceKey, SocketAddr),
}

impl Op {
    /// All that [`Self::kind`] may return.
    pub const KINDS: [&str; 18] = [
        "set_sysctl",
        "set_timeouts",
        "add_link",
        "set_link_up",
        "delete_link",
        "add_address",
        "delete_address",
        "add_local_route",
        "replace_rules",
        "delete_rules",
        "add_route",
        "delete_route",
        "add_service",
        "set_service",
        "delete_service",
        "add_server",
        "set_server",
        "delete_server",
    ];

    /// Returns the kind of the operation, without what it concerns.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SetSysctl { .. } => "set_sysctl",
            Self::SetTimeouts(_) => "set_timeouts",
            Self::AddLink => "add_link",
            Self::SetLinkUp => "set_link_up",
            Self::DelLink => "delete_link",
            Self::AddAddress(_) => "add_address",
            Self::DelAddress(_) => "delete_address",
            Self::AddLocalRoute(_) => "add_local_route",
            Self::ReplaceRules(_) => "replace_rules",
            Self::DelRules => "delete_rules",
            Self::AddRoute(_) => "add_route",
            Self::DelRoute(_) => "delete_route",
            Self::AddService(..) => "add_service",
            Self::SetService(..) => "set_service",
            Self::DelService(_) => "delete_service",
            Self::AddServer(..) => "add_server",
            Self::SetServer(..) => "set_server",
            Self::DelServer(..) => "delete_server",
        }
    }

    /// Returns the service that is changed, or whose real server is.
    pub fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::AddService(key, _)
            | Self::SetService(key, _)
            | Self::DelService(key)
            | Self::AddServer(key, ..)
            | Self::SetServer(key, ..)
            | Self::DelServer(key, _) => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::SetSysctl { path, value } => write!(f, "set sysctl {path} = {value}"),
            Op::SetTimeouts(t) => {
                write!(f, "set connection timeouts tcp {} s, tcp fin {} s, udp {} s", t.tcp, t.tcp_fin, t.udp)
            }
            Op::AddLink => write!(f, "add link"),
            Op::SetLinkUp => write!(f, "set link up"),
            Op::DelLink => write!(f, "delete link"),
            Op::AddAddress(address) => write!(f, "add address {address}"),
            Op::DelAddress(address) => write!(f, "delete address {address}"),
            Op::AddLocalRoute(address) => {
                write!(f, "add route local {address}, which belongs to the address")
            }
            // The rules themselves are too long for a line of the log.
            Op::ReplaceRules(_) => write!(f, "replace netfilter rules"),
            Op::DelRules => write!(f, "delete netfilter rules"),
            Op::AddRoute(route) => write!(f, "add route {route}"),
            Op::DelRoute(route) => write!(f, "delete route {route}"),
            Op::AddService(key, s) => write!(f, "add service {key} {}", s.scheduler),
            Op::SetService(key, s) => write!(f, "set service {key} {}", s.scheduler),
            Op::DelService(key) => write!(f, "delete service {key}"),
            Op::AddServer(key, server, s) => write!(f, "add server {key} -> {server} weight {}", s.weight),
            Op::SetServer(key, server, s) => write!(f, "set server {key} -> {server} weight {}", s.weight),
            Op::DelServer(key, server) => write!(f, "delete server {key} -> {server}"),
        }
    }
}

/// An operation that the kernel refused; the rest of its batch was carried out all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {error}")]
pub struct OpError {
    pub op: Op,
    /// The kernel's or tool's answer, with a hint where the cause is known.
    pub error: String,
}
