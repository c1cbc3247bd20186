//! The DNS protocol (RFC 1035): octets of a message in, octets of its answer out.
//!
//! What belongs here: the wire format, the data of records, response codes, EDNS and truncation. Pure,
//! and total: no octets make it fail. Which names exist is left to [`super::zones`].

pub mod message;
pub mod record;
pub mod wire;
