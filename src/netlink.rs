//! Netlink beyond what the rust-netlink crates offer.
//!
//! What belongs here: the wire format and the sockets, each once. [`frame`] has the messages' headers,
//! [`nla`] their attributes, [`replies`] how an answer ends, and [`socket`] carries a request to the
//! kernel and its whole answer back. On these sit [`batch`] for generic netlink with many changes in
//! few system calls, the codecs [`ipvs`] and [`sock_diag`], and [`nftables`]. [`monitor`] only listens.
//! What messages mean for virtual services is left to [`crate::dataplane`].

pub mod batch;
pub mod frame;
pub mod ipvs;
pub mod monitor;
pub mod nftables;
pub mod nla;
pub mod replies;
pub mod sock_diag;
pub mod socket;
