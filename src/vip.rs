//! From tasks to virtual addresses: label grammar, names, the table of VIPs, and addresses.
//!
//! Everything below is pure. [`table`] turns a [`crate::task::Snapshot`] into a [`VipTable`];
//! [`alloc`] gives each name in it an address; the data plane and the DNS zone are made from both.

pub mod alloc;
pub mod label;
pub mod name;
pub mod options;
pub mod rules;
pub mod table;

pub use options::Options;
pub use rules::Rules;
pub use table::{Backend, Condition, Host, Vip, VipKey, VipTable};
