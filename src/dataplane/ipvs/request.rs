//! Messages to the kernel for the operations on services, real servers and timeouts, and its refusals
//! in words.

use std::io;
use std::net::SocketAddr;

use libc::{EAFNOSUPPORT, EEXIST, EINVAL, ENOENT, EPERM, ERANGE, ESRCH};

use crate::cluster::Protocol;
use crate::netlink::batch::{self, MessageError};
use crate::netlink::ipvs::{
    DestinationAttribute, Flags, IpvsAttribute, IpvsCommand, IpvsMessage, ServiceAttribute, destination,
    service,
};

use super::table::OWNER_TAG;
use crate::dataplane::op::Op;
use crate::dataplane::state::{Forwarding, RealServer, Scheduling, ServiceKey};

/// Reason for which an operation had no effect, or none that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The kernel's answer as a positive errno; `None` when there is none.
    pub errno: Option<i32>,
    /// The cause in words, with a hint where there is one.
    pub text: String,
}

impl Refusal {
    /// Explains the kernel's answer to `op`.
    pub(super) fn new(op: &Op, failure: MessageError) -> Self {
        match failure {
            MessageError::Refused(errno) => Self::refused(op, errno),
            MessageError::Unsent(errno) => Self { errno: Some(errno), text: failure.to_string() },
            MessageError::Unknown => Self { errno: None, text: failure.to_string() },
        }
    }

    /// An operation that was not tried, because the kernel could not be reached.
    pub(super) fn unsent(error: &batch::Error) -> Self {
        Self { errno: None, text: error.to_string() }
    }

    fn refused(op: &Op, errno: i32) -> Self {
        let text = hint(op, errno).unwrap_or_else(|| io::Error::from_raw_os_error(errno).to_string());
        Self { errno: Some(errno), text }
    }
}

/// Returns the message that carries out `op`.
///
/// # Errors
/// When the kernel would misread the operation, or it is not one of IPVS.
pub(super) fn change(op: &Op) -> Result<IpvsMessage, Refusal> {
    Ok(match op {
        Op::AddService(key, scheduling) => {
            IpvsMessage::with_service(IpvsCommand::NewService, describe(*key, scheduling)?)
        }
        Op::SetService(key, scheduling) => {
            IpvsMessage::with_service(IpvsCommand::SetService, describe(*key, scheduling)?)
        }
        // Identity alone: the kernel looks at nothing else of a service that goes.
        Op::DelService(key) => IpvsMessage::with_service(IpvsCommand::DelService, identify(*key)),
        Op::AddServer(key, address, server) => IpvsMessage::with_destination(
            IpvsCommand::NewDestination,
            identify(*key),
            describe_server(*address, server),
        ),
        Op::SetServer(key, address, server) => IpvsMessage::with_destination(
            IpvsCommand::SetDestination,
            identify(*key),
            describe_server(*address, server),
        ),
        Op::DelServer(key, address) => IpvsMessage::with_destination(
            IpvsCommand::DelDestination,
            identify(*key),
            identify_server(*address),
        ),
        // All three at once, because the kernel leaves those that are missing as they are.
        Op::SetTimeouts(timeouts) => IpvsMessage {
            command: IpvsCommand::SetConfig,
            attributes: vec![
                IpvsAttribute::TimeoutTcp(timeouts.tcp),
                IpvsAttribute::TimeoutTcpFin(timeouts.tcp_fin),
                IpvsAttribute::TimeoutUdp(timeouts.udp),
            ],
        },
        other => {
            debug_assert!(false, "not an operation of IPVS: {other}");
            return Err(Refusal { errno: None, text: "not an operation of IPVS".to_owned() });
        }
    })
}

/// Returns the request for a service alone.
pub(super) fn show_service(key: ServiceKey) -> IpvsMessage {
    IpvsMessage::with_service(IpvsCommand::GetService, identify(key))
}

/// Returns the request for the real servers of a service.
pub(super) fn list_servers(key: ServiceKey) -> IpvsMessage {
    IpvsMessage::with_service(IpvsCommand::GetDestination, identify(key))
}

fn identify(key: ServiceKey) -> Vec<ServiceAttribute> {
    // With room for the four that `describe` adds.
    let mut attributes = Vec::with_capacity(8);
    attributes.extend([
        ServiceAttribute::Family(service::family(key.address)),
        ServiceAttribute::Protocol(match key.protocol {
            Protocol::Tcp => service::PROTOCOL_TCP,
            Protocol::Udp => service::PROTOCOL_UDP,
        }),
        ServiceAttribute::Address(service::address_bytes(key.address)),
        ServiceAttribute::Port(key.port),
    ]);
    attributes
}

fn describe(key: ServiceKey, scheduling: &Scheduling) -> Result<Vec<ServiceAttribute>, Refusal> {
    let Scheduling { scheduler, flags } = scheduling;
    // A NUL would end the name early, and the kernel does not say that a name is too long.
    if scheduler.is_empty() || scheduler.len() > service::NAME_MAX || scheduler.contains('\0') {
        return Err(Refusal {
            errno: Some(EINVAL),
            text: format!("{scheduler:?} can't be the name of a scheduler (1 to 15 bytes, such as wlc)"),
        });
    }
    let mut attributes = identify(key);
    attributes.extend([
        ServiceAttribute::Scheduler(scheduler.clone()),
        // All flags, so that one which another program set is cleared.
        ServiceAttribute::Flags(Flags { flags: *flags, mask: u32::MAX }),
        // The kernel keeps it unused, because the service is not persistent.
        ServiceAttribute::Timeout(OWNER_TAG),
        // Of use to persistent services alone, but the kernel makes no service without it.
        ServiceAttribute::Netmask(service::netmask(key.address)),
    ]);
    Ok(attributes)
}

fn identify_server(address: SocketAddr) -> Vec<DestinationAttribute> {
    let mut attributes = Vec::with_capacity(7);
    attributes.extend([
        DestinationAttribute::Family(service::family(address.ip())),
        DestinationAttribute::Address(service::address_bytes(address.ip())),
        DestinationAttribute::Port(address.port()),
    ]);
    attributes
}

fn describe_server(address: SocketAddr, server: &RealServer) -> Vec<DestinationAttribute> {
    let mut attributes = identify_server(address);
    attributes.extend([
        // The kernel refuses a server that lacks any of these four.
        DestinationAttribute::ForwardMethod(match server.forwarding {
            Forwarding::Masquerade => destination::FORWARD_MASQUERADE,
            Forwarding::Local => destination::FORWARD_LOCAL,
            Forwarding::Tunnel => destination::FORWARD_TUNNEL,
            Forwarding::Route => destination::FORWARD_ROUTE,
            Forwarding::Other(method) => method,
        }),
        DestinationAttribute::Weight(server.weight),
        DestinationAttribute::UpperThreshold(server.upper_threshold),
        DestinationAttribute::LowerThreshold(server.lower_threshold),
    ]);
    attributes
}

/// Returns the meaning of `errno` for `op`, where the kernel's source (`ip_vs_ctl.c`) tells more than the
/// number.
fn hint(op: &Op, errno: i32) -> Option<String> {
    let text = match (errno, op) {
        (EPERM, _) => "not allowed to program IPVS (needs CAP_NET_ADMIN)".to_owned(),
        // The kernel tried to load the module itself before it answered.
        (ENOENT, Op::AddService(_, s) | Op::SetService(_, s)) => {
            let module = format!("ip_vs_{}", s.scheduler);
            format!("scheduler module {module} is not available (try: modprobe {module})")
        }
        (EEXIST, Op::AddService(..)) => {
            "a service with this address exists already, which l4lbd did not make (see: ipvsadm -Ln)"
                .to_owned()
        }
        // The kernel's answer for a missing service, where ENOENT stands for a missing server.
        (ESRCH, _) => {
            "the service does not exist, another program has removed it; the next pass adds it again"
                .to_owned()
        }
        (EEXIST, Op::AddServer(..)) => "the service has this real server already".to_owned(),
        (ENOENT, Op::SetServer(..) | Op::DelServer(..)) => {
            "the service has no such real server, another program has removed it; the next pass corrects it"
                .to_owned()
        }
        // Only tunnels may lead to another address family.
        (EINVAL, Op::AddServer(key, server, _) | Op::SetServer(key, server, _))
            if key.address.is_ipv4() != server.is_ipv4() =>
        {
            "a masqueraded real server needs the address family of its service".to_owned()
        }
        // The kernel looks the address up in its routes and takes unicast and local ones.
        (EINVAL, Op::AddServer(..) | Op::SetServer(..)) => {
            "not an address for a real server: it has to be unicast, and the link lo has to be up".to_owned()
        }
        (ERANGE, Op::AddServer(..) | Op::SetServer(..)) => {
            "the weight is above 2147483647, or the lower threshold above the upper one".to_owned()
        }
        // The kernel counts them in ticks of its clock, in 31 bits.
        (EINVAL, Op::SetTimeouts(_)) => {
            "a timeout is too long, with 1000 ticks a second more than 2147483 s (lower ipvs.tcp_timeout, \
             ipvs.tcp_fin_timeout or dataplane.udp_timeout)"
                .to_owned()
        }
        (EAFNOSUPPORT, _) => "the kernel has no IPVS for this address family".to_owned(),
        _ => return None,
    };
    Some(text)
}
