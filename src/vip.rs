//! From tasks to virtual addresses: label grammar, names, the table of VIPs, and addresses.
//!
//! What belongs here: decisions that are the same on every node, so that nodes agree without talking.
//! What one node makes of them is left to [`crate::plan`]. Everything is pure. [`table`] turns a
//! [`crate::cluster::Snapshot`] into a [`VipTable`]; [`alloc`] gives each name in it an address; the data
//! plane and the DNS zone are made from both.

pub mod alloc;
pub mod asked;
mod contest;
pub mod doubtful;
pub mod endpoints;
pub mod key;
pub mod label;
pub mod pattern;
pub mod policy;
pub mod reserved;
pub mod settings;
pub mod table;
pub mod tenant;

pub use crate::cluster::PortOptions;
use crate::cluster::dns_label::fragment;
pub use key::{Host, VipKey};
pub use policy::LabelPolicy;
pub use table::{Backend, Condition, TableMemory, Vip, VipTable};
pub use tenant::{Tenant, Tenants};

/// Zone of the names unless the configuration says otherwise; that of DC/OS.
pub const DEFAULT_ZONE: &str = "l4lb.thisdcos.directory";

/// The name of a VIP below its zone, such as `web.marathon` for label `/web` of framework
/// `marathon`. Distinct labels can share a name; they are then one VIP.
pub fn vip_name(label: &str, framework: &str) -> String {
    format!("{}.{}", fragment(label), fragment(framework))
}

/// Returns the first items and the number of the rest, for one line of text.
pub fn summarize<T: std::fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let mut all = all.into_iter();
    let shown: Vec<String> = all.by_ref().take(SHOWN).map(|one| one.to_string()).collect();
    let more = match all.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::summarize;

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(summarize(1..=5), "1, 2, 3, 4, 5");
        assert_eq!(summarize(1..=300), "1, 2, 3, 4, 5 and 295 more");
        assert_eq!(summarize([""; 0]), "");
    }
}
