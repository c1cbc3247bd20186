//! Codec of the generic netlink family `IPVS`, version 1 (`include/uapi/linux/ip_vs.h`).
//!
//! What belongs here: bytes to messages and back, nothing else.
//!
//! A message is a command and a list of attributes, as in the rust-netlink crates; services and
//! destinations (real servers) are nested lists of their own in [`service`] and [`destination`].
//! Attributes that this codec does not know survive as `Other`. Bytes that do not fit their
//! attribute are an error of that message; nothing here panics on received bytes. Sockets, sequence numbers and dumps are left to the caller.
//!
//! `IPVS_CMD_FLUSH` cannot be sent with this codec: the kernel keeps removed destinations in a list
//! that it searches whenever one is added, so that filling the table again after a flush takes a
//! hundred times longer.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NLA_F_NESTED, NLA_TYPE_MASK, Nla, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

pub mod destination;
pub mod service;
pub mod stats;
pub mod traffic;

use super::nla::{self, number, put};

pub use destination::DestinationAttribute;
pub use service::{AF_INET, AF_INET6, Flags, ServiceAttribute};
pub use stats::Stats;

#[cfg(test)]
mod tests;

const FAMILY_NAME: &str = "IPVS";
const FAMILY_VERSION: u8 = 1;

const IPVS_CMD_UNSPEC: u8 = 0;
const IPVS_CMD_NEW_SERVICE: u8 = 1;
const IPVS_CMD_SET_SERVICE: u8 = 2;
const IPVS_CMD_DEL_SERVICE: u8 = 3;
const IPVS_CMD_GET_SERVICE: u8 = 4;
const IPVS_CMD_NEW_DEST: u8 = 5;
const IPVS_CMD_SET_DEST: u8 = 6;
const IPVS_CMD_DEL_DEST: u8 = 7;
const IPVS_CMD_GET_DEST: u8 = 8;
const IPVS_CMD_SET_CONFIG: u8 = 12;
const IPVS_CMD_GET_CONFIG: u8 = 13;
const IPVS_CMD_SET_INFO: u8 = 14;
const IPVS_CMD_GET_INFO: u8 = 15;

const IPVS_CMD_ATTR_SERVICE: u16 = 1;
const IPVS_CMD_ATTR_DEST: u16 = 2;
const IPVS_CMD_ATTR_TIMEOUT_TCP: u16 = 4;
const IPVS_CMD_ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const IPVS_CMD_ATTR_TIMEOUT_UDP: u16 = 6;

const IPVS_INFO_ATTR_VERSION: u16 = 1;
const IPVS_INFO_ATTR_CONN_TAB_SIZE: u16 = 2;

/// A message of the family, without the netlink and generic netlink headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsMessage {
    pub command: IpvsCommand,
    pub attributes: Vec<IpvsAttribute>,
}

/// Command of a request or answer (`IPVS_CMD_*`).
///
/// The kernel answers `GetService` with `NewService`, `GetDestination` with `NewDestination`,
/// `GetConfig` with `SetConfig` and `GetInfo` with `SetInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvsCommand {
    NewService,
    SetService,
    DelService,
    GetService,
    NewDestination,
    SetDestination,
    DelDestination,
    GetDestination,
    SetConfig,
    GetConfig,
    SetInfo,
    GetInfo,
    /// A command that this codec only recognises; see [`OtherCommand`].
    Other(OtherCommand),
}

/// A command that was received but is never sent: the flush, and those about sync daemons and
/// counters. It comes from decoding only, and encodes as the invalid command 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherCommand(u8);

/// First-level attribute (`IPVS_CMD_ATTR_*`, in `SetInfo` messages `IPVS_INFO_ATTR_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpvsAttribute {
    Service(Vec<ServiceAttribute>),
    Destination(Vec<DestinationAttribute>),
    /// Idle timeout of established TCP connections, in seconds; 0 in a request leaves it.
    TimeoutTcp(u32),
    /// Timeout of TCP connections after a FIN, in seconds; 0 in a request leaves it.
    TimeoutTcpFin(u32),
    /// Idle timeout of UDP connections, in seconds; 0 in a request leaves it.
    TimeoutUdp(u32),
    /// Version of IPVS, one byte each for major, minor and patch level.
    InfoVersion(u32),
    /// Buckets of the connection table.
    InfoConnectionTableSize(u32),
    Other(DefaultNla),
}

impl IpvsMessage {
    /// A message without attributes, such as a dump of all services.
    pub const fn new(command: IpvsCommand) -> Self {
        Self { command, attributes: Vec::new() }
    }

    /// A message about the service that `service` identifies or describes.
    pub fn with_service(command: IpvsCommand, service: Vec<ServiceAttribute>) -> Self {
        Self { command, attributes: vec![IpvsAttribute::Service(service)] }
    }

    /// A message about one destination of `service`.
    pub fn with_destination(
        command: IpvsCommand,
        service: Vec<ServiceAttribute>,
        destination: Vec<DestinationAttribute>,
    ) -> Self {
        Self {
            command,
            attributes: vec![IpvsAttribute::Service(service), IpvsAttribute::Destination(destination)],
        }
    }

    /// Attributes of the service in this message.
    pub fn service(&self) -> Option<&[ServiceAttribute]> {
        self.attributes.iter().find_map(|attribute| match attribute {
            IpvsAttribute::Service(service) => Some(service.as_slice()),
            _ => None,
        })
    }

    /// Attributes of the destination in this message.
    pub fn destination(&self) -> Option<&[DestinationAttribute]> {
        self.attributes.iter().find_map(|attribute| match attribute {
            IpvsAttribute::Destination(destination) => Some(destination.as_slice()),
            _ => None,
        })
    }
}

impl OtherCommand {
    /// The number that was received.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl From<u8> for IpvsCommand {
    fn from(number: u8) -> Self {
        match number {
            IPVS_CMD_NEW_SERVICE => Self::NewService,
            IPVS_CMD_SET_SERVICE => Self::SetService,
            IPVS_CMD_DEL_SERVICE => Self::DelService,
            IPVS_CMD_GET_SERVICE => Self::GetService,
            IPVS_CMD_NEW_DEST => Self::NewDestination,
            IPVS_CMD_SET_DEST => Self::SetDestination,
            IPVS_CMD_DEL_DEST => Self::DelDestination,
            IPVS_CMD_GET_DEST => Self::GetDestination,
            IPVS_CMD_SET_CONFIG => Self::SetConfig,
            IPVS_CMD_GET_CONFIG => Self::GetConfig,
            IPVS_CMD_SET_INFO => Self::SetInfo,
            IPVS_CMD_GET_INFO => Self::GetInfo,
            other => Self::Other(OtherCommand(other)),
        }
    }
}

impl From<IpvsCommand> for u8 {
    fn from(command: IpvsCommand) -> Self {
        match command {
            IpvsCommand::NewService => IPVS_CMD_NEW_SERVICE,
            IpvsCommand::SetService => IPVS_CMD_SET_SERVICE,
            IpvsCommand::DelService => IPVS_CMD_DEL_SERVICE,
            IpvsCommand::GetService => IPVS_CMD_GET_SERVICE,
            IpvsCommand::NewDestination => IPVS_CMD_NEW_DEST,
            IpvsCommand::SetDestination => IPVS_CMD_SET_DEST,
            IpvsCommand::DelDestination => IPVS_CMD_DEL_DEST,
            IpvsCommand::GetDestination => IPVS_CMD_GET_DEST,
            IpvsCommand::SetConfig => IPVS_CMD_SET_CONFIG,
            IpvsCommand::GetConfig => IPVS_CMD_GET_CONFIG,
            IpvsCommand::SetInfo => IPVS_CMD_SET_INFO,
            IpvsCommand::GetInfo => IPVS_CMD_GET_INFO,
            // Among them is the flush, which must not be sent even if it was received.
            IpvsCommand::Other(_) => IPVS_CMD_UNSPEC,
        }
    }
}

impl GenlFamily for IpvsMessage {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command.into()
    }

    fn version(&self) -> u8 {
        FAMILY_VERSION
    }
}

impl Emitable for IpvsMessage {
    fn buffer_len(&self) -> usize {
        nla::length(&self.attributes)
    }

    fn emit(&self, buffer: &mut [u8]) {
        nla::emit(&self.attributes, buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for IpvsMessage {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let command = IpvsCommand::from(header.cmd);
        // Answers to GetInfo use the same numbers for other attributes.
        let attributes = match command {
            IpvsCommand::SetInfo => nla::parse(bytes, IpvsAttribute::parse_info),
            _ => nla::parse(bytes, IpvsAttribute::parse),
        }
        .context("invalid IPVS message")?;
        Ok(Self { command, attributes })
    }
}

impl Nla for IpvsAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Service(service) => nla::length(service),
            Self::Destination(destination) => nla::length(destination),
            Self::TimeoutTcp(_)
            | Self::TimeoutTcpFin(_)
            | Self::TimeoutUdp(_)
            | Self::InfoVersion(_)
            | Self::InfoConnectionTableSize(_) => size_of::<u32>(),
            Self::Other(other) => other.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Service(_) => IPVS_CMD_ATTR_SERVICE | NLA_F_NESTED,
            Self::Destination(_) => IPVS_CMD_ATTR_DEST | NLA_F_NESTED,
            Self::TimeoutTcp(_) => IPVS_CMD_ATTR_TIMEOUT_TCP,
            Self::TimeoutTcpFin(_) => IPVS_CMD_ATTR_TIMEOUT_TCP_FIN,
            Self::TimeoutUdp(_) => IPVS_CMD_ATTR_TIMEOUT_UDP,
            Self::InfoVersion(_) => IPVS_INFO_ATTR_VERSION,
            Self::InfoConnectionTableSize(_) => IPVS_INFO_ATTR_CONN_TAB_SIZE,
            Self::Other(other) => other.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Service(service) => nla::emit(service, buffer),
            Self::Destination(destination) => nla::emit(destination, buffer),
            Self::TimeoutTcp(value)
            | Self::TimeoutTcpFin(value)
            | Self::TimeoutUdp(value)
            | Self::InfoVersion(value)
            | Self::InfoConnectionTableSize(value) => put(buffer, &value.to_ne_bytes()),
            Self::Other(other) => other.emit_value(buffer),
        }
    }
}

impl IpvsAttribute {
    fn parse(kind: u16, value: &[u8]) -> Result<Self, DecodeError> {
        match kind & NLA_TYPE_MASK {
            IPVS_CMD_ATTR_SERVICE => nla::parse(value, ServiceAttribute::parse).map(Self::Service),
            IPVS_CMD_ATTR_DEST => nla::parse(value, DestinationAttribute::parse).map(Self::Destination),
            IPVS_CMD_ATTR_TIMEOUT_TCP => number(value).map(Self::TimeoutTcp),
            IPVS_CMD_ATTR_TIMEOUT_TCP_FIN => number(value).map(Self::TimeoutTcpFin),
            IPVS_CMD_ATTR_TIMEOUT_UDP => number(value).map(Self::TimeoutUdp),
            _ => Ok(Self::Other(DefaultNla::new(kind, value.to_vec()))),
        }
        .with_context(|| format!("invalid IPVS_CMD_ATTR {}", kind & NLA_TYPE_MASK))
    }

    /// The answer to `GetInfo` numbers its attributes differently from all other messages.
    fn parse_info(kind: u16, value: &[u8]) -> Result<Self, DecodeError> {
        match kind & NLA_TYPE_MASK {
            IPVS_INFO_ATTR_VERSION => number(value).map(Self::InfoVersion),
            IPVS_INFO_ATTR_CONN_TAB_SIZE => number(value).map(Self::InfoConnectionTableSize),
            _ => Ok(Self::Other(DefaultNla::new(kind, value.to_vec()))),
        }
        .with_context(|| format!("invalid IPVS_INFO_ATTR {}", kind & NLA_TYPE_MASK))
    }
}
