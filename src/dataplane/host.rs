//! What both data planes need of the node: our link with its addresses and routes, netfilter rules,
//! and kernel settings.

pub mod link;
pub mod nft;
pub mod sysctl;
