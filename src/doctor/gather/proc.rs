//! Files of `/proc` and `/sys` that say something of this node, and the programs that run on it.
//!
//! Everything here blocks, and reads a bounded number of bytes and entries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::dataplane::host::sysctl;
use crate::dataplane::kernel::KernelOptions;
use crate::dataplane::rules;
use crate::dataplane::{Capabilities, ebpf};
use crate::doctor::facts::{BoundSocket, KernelFacts, Program, ProgramKind};

/// Octets of a file of the kernel that are read: a list of a hundred thousand sockets.
const MAX_OCTETS: u64 = 16 << 20;

/// Processes that are looked at, and open files of all of them together.
const MAX_PROCESSES: usize = 65_536;
const MAX_FILES: usize = 524_288;

/// Network namespace of the thread that looks.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Path of the connections of IPVS.
pub const IPVS_CONNECTIONS: &str = "/proc/thread-self/net/ip_vs_conn";

/// Settings that are looked at beside those that l4lbd sets.
const CONNTRACK_COUNT: &str = "net/netfilter/nf_conntrack_count";
const CONNTRACK_MAX: &str = "net/netfilter/nf_conntrack_max";

/// Reads a file of the kernel; one that cannot be read is empty.
pub fn read(path: impl AsRef<Path>) -> String {
    let mut octets = Vec::new();
    // What was read before an error counts.
    let _ = fs::File::open(path).and_then(|file| file.take(MAX_OCTETS).read_to_end(&mut octets));
    String::from_utf8_lossy(&octets).into_owned()
}

/// Reads the kernel's own state.
pub fn kernel(options: &KernelOptions) -> KernelFacts {
    let release = sysctl::value("kernel/osrelease").unwrap_or_default();
    let wanted = rules::sysctls(Capabilities::default(), true);
    let paths = wanted.keys().map(String::as_str);
    let sysctls = sysctl::read(paths);
    let is_readonly = |path: &&String| access(&Path::new("/proc/sys").join(path), AccessFlags::W_OK).is_err();
    let number = |path| sysctl::value(path).and_then(|value| value.parse().ok());
    let cgroup = ebpf::cgroup(options.ebpf.cgroup.as_deref()).err().map(|error| error.to_string());
    let bpf = match ebpf::is_bpf(&options.ebpf.pins) {
        Ok(true) => None,
        Ok(false) => Some("no BPF file system is mounted there".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    KernelFacts {
        loaded: loaded_modules(),
        available: available_modules(&release),
        readonly: sysctls.keys().filter(is_readonly).cloned().collect(),
        rp_filter: rp_filters(),
        rp_filter_drops: counter(&read("/proc/thread-self/net/netstat"), "TcpExt", "IPReversePathFilter")
            .unwrap_or_default(),
        conntrack: number(CONNTRACK_COUNT).zip(number(CONNTRACK_MAX)),
        has_ipvs: Path::new("/proc/thread-self/net/ip_vs").exists(),
        cgroup,
        bpf,
        nft: None,
        sysctls,
        release,
    }
}

/// Lists the modules in memory, and those built in that have parameters.
fn loaded_modules() -> BTreeSet<String> {
    let modules = read("/proc/modules");
    let listed = modules.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    let shown = fs::read_dir("/sys/module").into_iter().flatten().flatten();
    listed.chain(shown.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
}

/// Lists the modules on disk and those built in; `None` without the lists of this release.
fn available_modules(release: &str) -> Option<BTreeSet<String>> {
    let directory = Path::new("/lib/modules").join(release);
    let lists: Vec<String> =
        ["modules.dep", "modules.builtin"].iter().map(|list| read(directory.join(list))).collect();
    let names: BTreeSet<String> = lists.iter().flat_map(|list| module_names(list)).collect();
    (!names.is_empty()).then_some(names)
}

/// Returns the modules of `modules.dep` or `modules.builtin` as the kernel names them.
fn module_names(list: &str) -> impl Iterator<Item = String> {
    list.lines().filter_map(|line| {
        let file = line.split(':').next()?.rsplit('/').next()?;
        Some(file.split(".ko").next()?.replace('-', "_"))
    })
}

/// Returns the reverse path filter of each link as it acts: the larger one of its own and that of all links.
fn rp_filters() -> BTreeMap<String, u8> {
    let directory = Path::new("/proc/sys/net/ipv4/conf");
    let value = |link: &str| read(directory.join(link).join("rp_filter")).trim().parse::<u8>().ok();
    let all = value("all").unwrap_or_default();
    let links = fs::read_dir(directory).into_iter().flatten().flatten();
    let links = links.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let links = links.filter(|link| !["all", "default", "lo"].contains(&link.as_str()));
    links.filter_map(|link| Some((link.clone(), value(&link)?.max(all)))).collect()
}

/// Finds a counter in the text of `/proc/net/netstat`: a line of names before a line of numbers.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|other| other == name)?;
    numbers.split(' ').nth(place)?.parse().ok()
}

/// Lists the hosts in the table of neighbours that have answered.
pub fn neighbours() -> BTreeSet<IpAddr> {
    let text = read("/proc/thread-self/net/arp");
    let answered = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, flags, ..] = words.as_slice() else { return None };
        // Bit 1 is that of a complete entry (ATF_COM).
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
        (flags & 2 != 0).then(|| address.parse().ok()).flatten()
    };
    text.lines().skip(1).filter_map(answered).collect()
}

/// A line of `/proc/net/tcp` and its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketLine {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: u8,
    pub inode: u64,
}

/// State of a TCP socket that listens, and of a UDP socket that is not connected.
const LISTEN: u8 = 0x0a;
const UNCONNECTED: u8 = 0x07;

/// Lists the sockets of one kind in the network namespace of this thread.
pub fn sockets(table: &str) -> Vec<SocketLine> {
    let text = read(Path::new("/proc/thread-self/net").join(table));
    text.lines().skip(1).filter_map(socket_line).collect()
}

fn socket_line(line: &str) -> Option<SocketLine> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (words.next()?, words.next()?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    // Queues, timers, retransmissions, user and timeout are between.
    let inode = words.nth(5)?.parse().ok()?;
    Some(SocketLine { local: socket_address(local)?, remote: socket_address(remote)?, state, inode })
}

/// Parses an address of `/proc/net`: words of the host's byte order in hexadecimal.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut octets = Vec::new();
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(octets) => IpAddr::from(Ipv4Addr::from(octets)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets.as_slice()).ok()?)),
    };
    // A socket of IPv6 that is used for IPv4 has its addresses in their IPv6 form.
    Some(SocketAddr::new(address.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// Lists the sockets that take connections or datagrams and that `is_wanted`, each with its process if this user may
/// know it.
pub fn bound_sockets(is_wanted: impl Fn(SocketAddr) -> bool) -> Vec<BoundSocket> {
    let of = |table: &'static str, is_tcp: bool, state: u8| {
        sockets(table).into_iter().filter(move |line| line.state == state).map(move |line| (is_tcp, line))
    };
    let lines = of("tcp", true, LISTEN).chain(of("tcp6", true, LISTEN));
    let lines = lines.chain(of("udp", false, UNCONNECTED)).chain(of("udp6", false, UNCONNECTED));
    let lines: Vec<(bool, SocketLine)> = lines.filter(|(_, line)| is_wanted(line.local)).collect();
    let inodes: BTreeSet<u64> = lines.iter().map(|(_, line)| line.inode).collect();
    let owners = if inodes.is_empty() { BTreeMap::new() } else { owners(&inodes) };
    let socket = |(is_tcp, line): (bool, SocketLine)| BoundSocket {
        is_tcp,
        address: line.local,
        owner: owners.get(&line.inode).cloned(),
    };
    lines.into_iter().map(socket).collect()
}

/// Finds the processes that have these sockets open.
fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, (u32, String)> {
    let (mut found, mut looked_at) = (BTreeMap::new(), 0);
    for process in processes() {
        // Only root may list the descriptors of other users' processes.
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        for file in files {
            looked_at += 1;
            if looked_at > MAX_FILES || found.len() == inodes.len() {
                return found;
            }
            let inode = fs::read_link(file.path()).ok().and_then(|target| {
                target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_insert_with(|| (process, name(process)));
            }
        }
    }
    found
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(MAX_PROCESSES)
}

/// Returns the name of a process, which it chooses itself.
pub fn name(process: u32) -> String {
    read(format!("/proc/{process}/comm")).trim_end().to_owned()
}

fn namespace_of(process: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/net")).ok().map(|metadata| metadata.ino())
}

/// Lists the programs in this network namespace that work on the same parts of the kernel, this process excepted.
pub fn programs() -> Vec<Program> {
    let own = fs::metadata(NAMESPACE).ok().map(|metadata| metadata.ino());
    let here = |process: &u32| *process != std::process::id() && namespace_of(*process) == own;
    let program = |process: u32| kind(process).map(|kind| Program { process, kind });
    // The name is cheap to read, and most processes are none of them.
    processes().filter_map(program).filter(|program| here(&program.process)).collect()
}

fn kind(process: u32) -> Option<ProgramKind> {
    let words = || read(format!("/proc/{process}/cmdline"));
    match name(process).as_str() {
        // A command such as `l4lbd status` changes nothing.
        "l4lbd" => (words().split('\0').nth(1) == Some("run")).then_some(ProgramKind::L4lbd),
        "kube-proxy" => Some(ProgramKind::KubeProxy),
        // The virtual machine of Erlang, which other programs run in as well.
        "beam.smp" => {
            let words = words();
            ["dcos-net", "dcos_net", "navstar", "minuteman"]
                .iter()
                .any(|name| words.contains(name))
                .then_some(ProgramKind::DcosNet)
        }
        _ => None,
    }
}

/// Returns true if this process is in a control group (version 2), or in one below it.
pub fn is_in_cgroup(group: &Path) -> bool {
    let text = read("/proc/self/cgroup");
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.zip(ebpf::cgroup_tree()).map(|(own, tree)| tree.join(own));
    match (own.map(fs::canonicalize), fs::canonicalize(group)) {
        (Some(Ok(own)), Ok(group)) => own.starts_with(group),
        // Where that cannot be told, trying does no harm.
        _ => true,
    }
}

/// Returns a process of each pair of a network namespace but this one and a mount namespace, the one with the
/// smallest number, and no more than `most`; and the number of pairs. Containers of a pod share a network, and each
/// has its own files.
pub fn namespaces(most: usize) -> (Vec<u32>, usize) {
    let own = fs::metadata(NAMESPACE).ok().map(|metadata| metadata.ino());
    let mut found: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    for process in processes() {
        let network = namespace_of(process).filter(|network| Some(*network) != own);
        let files = || fs::metadata(format!("/proc/{process}/ns/mnt")).ok().map(|metadata| metadata.ino());
        if let Some(pair) = network.and_then(|network| Some((network, files()?))) {
            let first = found.entry(pair).or_insert(process);
            // The smallest number is mostly that of the first process, which lasts as long as the container.
            *first = process.min(*first);
        }
    }
    let mut first: Vec<u32> = found.values().copied().collect();
    first.sort_unstable();
    first.truncate(most);
    (first, found.len())
}

/// Finds the server that IPVS chose for a connection, in the lines of `/proc/net/ip_vs_conn`.
pub fn chosen_server(
    lines: impl Iterator<Item = String>,
    client: SocketAddr,
    service: SocketAddr,
) -> Option<SocketAddr> {
    lines.skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let mut next = || ipvs_address(words.next()?, words.next()?);
        let (from, to, server) = (next()?, next()?, next()?);
        (from == client && to == service).then_some(server)
    })
}

/// Parses an address of `/proc/net/ip_vs_conn`: IPv4 in hexadecimal, IPv6 in words with colons, perhaps in brackets.
fn ipvs_address(address: &str, port: &str) -> Option<SocketAddr> {
    let address = match u32::from_str_radix(address, 16) {
        Ok(bits) if address.len() == 8 => IpAddr::from(Ipv4Addr::from_bits(bits)),
        _ => IpAddr::from(address.trim_matches(['[', ']']).parse::<Ipv6Addr>().ok()?),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_as_the_kernel_prints_them() {
        let line = "  12: 0164A8C0:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0000 0";
        let read = socket_line(line).unwrap();
        assert_eq!(
            (read.local, read.state, read.inode),
            ("192.168.100.1:53".parse().unwrap(), UNCONNECTED, 4242)
        );
        let line = " 0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A \
                    00000000:00000000 00:00000000 00000000     0        0 77 1";
        assert_eq!(socket_line(line).unwrap().local, "[::1]:631".parse().unwrap());
        for line in ["", "1: 0:0", "1: 0164A8C0 00000000:0000 07 a b c d e f"] {
            assert_eq!(socket_line(line), None, "{line}");
        }
        // A socket of this test is found, with this process.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let found = bound_sockets(|other| other == address);
        assert_eq!(found[0].owner.as_ref().unwrap().0, std::process::id());
    }

    #[test]
    fn modules_are_named_as_the_kernel_names_them() {
        let list = "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/net/nf_conntrack.ko.xz\nkernel/drivers/net/nft-nat.ko\n";
        assert_eq!(module_names(list).collect::<Vec<_>>(), ["ip_vs", "nft_nat"]);
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 1 23\nIpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(counter(text, "TcpExt", "IPReversePathFilter"), Some(23));
        assert_eq!(counter(text, "IpExt", "InNoRoutes"), Some(5));
        assert_eq!(counter(text, "IpExt", "Other"), None);
    }

    #[test]
    fn the_chosen_server_is_that_of_the_connection() {
        let text = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n\
                    TCP C0A83201 9C40 0B000007 0050 C0A83202 1F90 ESTABLISHED     899\n\
                    TCP [fd50:0:0:0:0:0:0:1] 9C40 [fd01:c:0:0:0:0:0:7] 0050 [fd50:0:0:0:0:0:0:2] 1F90 ESTABLISHED 899\n";
        let chosen = |client: &str, service: &str| {
            chosen_server(text.lines().map(str::to_owned), client.parse().unwrap(), service.parse().unwrap())
                .map(|server| server.to_string())
        };
        assert_eq!(chosen("192.168.50.1:40000", "11.0.0.7:80").unwrap(), "192.168.50.2:8080");
        assert_eq!(chosen("[fd50::1]:40000", "[fd01:c::7]:80").unwrap(), "[fd50::2]:8080");
        assert_eq!(chosen("192.168.50.1:40001", "11.0.0.7:80"), None);
    }
}
