//! The DNS protocol (RFC 1035): octets of a message in, octets of its answer out.
//!
//! What belongs here: reading queries ([`wire`]), the data of records ([`record`]), and replies with their
//! response codes, EDNS and truncation ([`message`]). Pure, and total: no octets make it fail. Which names
//! exist is left to [`super::zones`], reading and writing the octets to [`super::server`].

pub mod message;
pub mod record;
pub mod wire;
