//! Kernel settings below `/proc/sys`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Settings without which VIPs do not work as they should, with the reason for each.
pub const REQUIRED: &[(&str, &str)] = &[
    // Lets netfilter see the connections of containers, so that their source can be masqueraded.
    ("net/ipv4/vs/conntrack", "1"),
    // A connection whose backend is gone is reset at once instead of hanging.
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    // Clients of a persistent service leave a backend that takes no new connections.
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    // Containers reach backends on other nodes through this one.
    ("net/ipv4/ip_forward", "1"),
];

/// Settings that only VIPs need whose connections survive any idle time: packets of connections that
/// the kernel has forgotten are scheduled like new ones.
pub const STICKY: &[(&str, &str)] = &[("net/ipv4/vs/sloppy_tcp", "1")];

/// Values of `paths` as they are now; those that the kernel doesn't have are missing.
pub fn read<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    paths.into_iter().filter_map(|path| Some((path.to_owned(), value(path)?))).collect()
}

/// One value, without the line end; `None` where the kernel has no such setting.
pub fn value(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    Some(text.trim().to_owned())
}

/// Sets one value.
///
/// # Errors
/// Where the kernel has no such setting, refuses the value, or the process may not write it.
pub fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new("/proc/sys").join(path), value)
}
