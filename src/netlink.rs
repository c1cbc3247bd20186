//! Netlink beyond what the rust-netlink crates offer.
//!
//! [`ipvs`] encodes and decodes the messages of the kernel's IPVS family and touches no socket;
//! [`batch`] carries messages of any generic netlink family to the kernel and back and knows none
//! of them; [`nftables`] asks for the generation of the netfilter rules. What the messages mean for virtual services is left to [`crate::dataplane::ipvs`].

pub mod batch;
pub mod frame;
pub mod ipvs;
pub mod monitor;
pub mod nftables;
pub mod nla;
pub mod replies;
