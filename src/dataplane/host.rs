//! The host's side of the kernel, the same for both data planes.
//!
//! What belongs here: our link with its addresses and routes, the node's networks, netfilter rules,
//! kernel settings, and the resolver's configuration.

pub mod inventory;
pub mod link;
pub mod nft;
pub mod resolv;
pub mod sysctl;
