//! The kernel as its own tools show and change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::host::Host;
use super::lab::AGENT;
use super::lab::Lab;
use super::plane::{self, Plane};

impl Host {
    /// `ip` commands, one per line.
    pub fn configure(&self, commands: &str) -> Result<()> {
        self.run_with(&["ip", "-batch", "-"], commands).map(drop)
    }

    pub fn nft(&self, rules: &str) -> Result<()> {
        self.run_with(&["nft", "-f", "-"], rules).map(drop)
    }

    /// Publishes TCP ports of containers on every address of this host, as Docker and the CNI port mapper
    /// do it.
    pub fn publish_ports(&self, mappings: &[(u16, SocketAddr)]) -> Result<()> {
        let rules: String = mappings
            .iter()
            .map(|(port, to)| format!("fib daddr type local tcp dport {port} dnat to {to}\n"))
            .collect();
        self.nft(&format!(
            "table ip portmap {{
               chain prerouting {{ type nat hook prerouting priority dstnat; {rules} }}
               chain output {{ type nat hook output priority -100; {rules} }}
               chain postrouting {{
                 type nat hook postrouting priority srcnat
                 ct status dnat ct original ip daddr {AGENT} masquerade
               }}
             }}"
        ))
    }

    /// Runs `ipvsadm` with these words.
    pub fn ipvsadm(&self, words: &str) -> Result<()> {
        let program: Vec<&str> = std::iter::once("ipvsadm").chain(words.split_whitespace()).collect();
        self.run(&program).map(drop)
    }

    /// Every service and real server, as commands that would make them again, in an order of their own.
    pub fn services(&self) -> Result<Vec<String>> {
        let mut lines: Vec<String> =
            self.run(&["ipvsadm", "-Sn"])?.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        Ok(lines)
    }

    fn connections_of(&self, service: SocketAddr) -> Result<u64> {
        let table = self.run_line("ipvsadm -Ln --stats --exact")?;
        let service = service.to_string();
        let count = table.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("TCP") && words.next() == Some(&service)).then(|| words.next())?
        });
        Ok(count.with_context(|| format!("no service {service} in {table}"))?.parse()?)
    }
}

impl Lab {
    /// Every virtual service in the kernel, as `tcp 11.0.0.1:80`.
    pub fn services(&self) -> Result<BTreeSet<String>> {
        match plane::current() {
            Plane::Ipvs => Ok(self.agent.services()?.iter().filter_map(|line| ipvs_service(line)).collect()),
            Plane::Ebpf => self.map("vips")?.iter().map(|entry| ebpf_service(&entry["key"])).collect(),
        }
    }

    /// Connections of a TCP service: with IPVS all that it has taken since it was made, which the kernel adds
    /// up every two seconds, and with eBPF those that are open.
    pub fn connections_of(&self, service: SocketAddr) -> Result<u64> {
        if plane::current() == Plane::Ipvs {
            return self.agent.connections_of(service);
        }
        let status: Value = serde_json::from_str(&self.l4lbd(&["status", "--json"])?)?;
        let vips = status["vips"].as_array().context("VIPs")?.iter();
        let own = vips.filter(|vip| {
            vip["address"] == service.ip().to_string()
                && vip["port"] == service.port()
                && vip["protocol"] == "tcp"
        });
        let backends = own.flat_map(|vip| vip["backends"].as_array().into_iter().flatten());
        Ok(backends.filter_map(|backend| backend["active"].as_u64()).sum())
    }

    /// A pinned map, entry by entry.
    fn map(&self, name: &str) -> Result<Vec<Value>> {
        let path = self.pin(name)?;
        Ok(serde_json::from_str(&self.agent.run(&["bpftool", "-j", "map", "dump", "pinned", &path])?)?)
    }

    /// Deletes all entries of a pinned map.
    pub fn empty(&self, name: &str) -> Result<()> {
        let path = self.pin(name)?;
        for entry in self.map(name)? {
            let mut command = vec!["bpftool", "map", "delete", "pinned", &path, "key"];
            command.extend(entry["key"].as_array().context("bytes")?.iter().filter_map(Value::as_str));
            self.agent.run(&command)?;
        }
        Ok(())
    }

    fn pin(&self, name: &str) -> Result<String> {
        Ok(self.pins.join("v1").join(name).to_str().context("a path in UTF-8")?.to_owned())
    }

    /// All that a data plane consists of: services, rules with their handles, routes and links.
    pub fn snapshot(&self) -> Result<String> {
        let mut text = String::new();
        let mut commands = vec![
            "nft -a list ruleset",
            "ip -oneline link show",
            "ip -oneline address show",
            "ip route show table all",
            "ip -6 route show table all",
        ];
        match plane::current() {
            Plane::Ipvs => commands.push("ipvsadm -Sn"),
            Plane::Ebpf => {
                for map in ["vips", "networks"] {
                    for entry in self.map(map)? {
                        text.push_str(&format!("{map} {} {}\n", entry["key"], entry["value"]));
                    }
                }
            }
        }
        for command in commands {
            // A bridge notices after a while that its ports are up.
            let output = self.agent.run_line(command)?.replace(" state UNKNOWN ", " state UP ");
            // Link-local addresses come with their links in their own time.
            let mut lines: Vec<&str> = output
                .lines()
                .filter(|line| !line.contains("fe80:") && !line.contains("ff00::/8"))
                .map(str::trim)
                .collect();
            if command.starts_with("ipvsadm -S") {
                lines.sort_unstable();
            }
            text.push_str(&format!("# {command}\n{}\n", lines.join("\n")));
        }
        Ok(text)
    }
}

/// From a line of `ipvsadm -Sn`.
fn ipvs_service(line: &str) -> Option<String> {
    let (protocol, rest) = match line.strip_prefix("-A -t ") {
        Some(rest) => ("tcp", rest),
        None => ("udp", line.strip_prefix("-A -u ")?),
    };
    Some(format!("{protocol} {}", rest.split(' ').next()?))
}

/// From the bytes of a key: address (IPv4 as `::ffff:a.b.c.d`), port, protocol.
fn ebpf_service(key: &Value) -> Result<String> {
    let byte = |byte: &Value| {
        let digits = byte.as_str().context("a byte")?.trim_start_matches("0x");
        Ok(u8::from_str_radix(digits, 16)?)
    };
    let bytes: Vec<u8> = key.as_array().context("bytes")?.iter().map(byte).collect::<Result<_>>()?;
    let address: [u8; 16] = *bytes.first_chunk().context("an address")?;
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    let protocol = if bytes[18] == 6 { "tcp" } else { "udp" };
    Ok(format!("{protocol} {}", SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)))
}

/// Requires two snapshots to be equal, and shows only where they are not.
pub fn must_be_equal(before: &str, after: &str, when: &str) -> Result<()> {
    let only_in = |one: &str, other: &str, sign: &str| -> String {
        one.lines()
            .filter(|line| !other.lines().any(|same| same == *line))
            .fold(String::new(), |text, line| text + sign + line + "\n")
    };
    let difference = only_in(before, after, "- ") + &only_in(after, before, "+ ");
    ensure!(before == after, "{when} the kernel differs:\n{difference}");
    Ok(())
}

/// Sees the writes that anybody makes to IPVS, routes, links, addresses and nftables, by probes in
/// the kernel.
pub enum WriteWatch<'a> {
    /// Probes in the kernel tell of every write.
    Probes,
    /// For data planes whose tables show every write to them.
    Snapshot { lab: &'a Lab, before: String },
}

/// The kernel's functions that every such write passes.
const WRITES: &[&str] = &[
    "ip_vs_genl_set_cmd",
    "inet_rtm_newroute",
    "inet_rtm_delroute",
    "inet6_rtm_newroute",
    "inet6_rtm_delroute",
    "inet_rtm_newaddr",
    "inet_rtm_deladdr",
    "inet6_rtm_newaddr",
    "inet6_rtm_deladdr",
    "rtnl_newlink",
    "rtnl_dellink",
    "nf_tables_commit",
];

const TRACING: &str = "/sys/kernel/tracing";

/// The probes' own name in the kernel. Tests run one after the other, so one set is enough.
const PROBES: &str = "l4lbd_writes";

impl<'a> WriteWatch<'a> {
    pub fn start(lab: &'a Lab) -> Result<Self> {
        if plane::current() == Plane::Ebpf {
            return Ok(Self::Snapshot { lab, before: lab.snapshot()? });
        }
        let watch = Self::Probes;
        for function in WRITES {
            tell("kprobe_events", &format!("p:{PROBES}/{function} {function}\n"))
                .with_context(|| format!("no probe on {function}"))?;
        }
        fs::write(format!("{TRACING}/trace"), "")?;
        fs::write(switch(), "1").context("the probes cannot be switched on")?;
        Ok(watch)
    }

    /// Who wrote what since the start, and how often.
    fn writes() -> Result<BTreeMap<String, usize>> {
        let mut writes = BTreeMap::new();
        // `   tokio-rt-231     [000] d....    12.345678: rtnl_newlink: (rtnl_newlink+0x0/0x70)`
        for line in fs::read_to_string(format!("{TRACING}/trace"))?.lines() {
            let Some((before, _)) = line.split_once(": (") else {
                continue;
            };
            let Some((task, rest)) = before.trim_start().split_once(" [") else {
                continue;
            };
            let function = rest.rsplit(' ').next().unwrap_or(rest);
            let task = task.trim_end().rsplit_once('-').map_or(task, |(name, _)| name);
            // `ip link show` finds out by an empty request whether the kernel is older than 2008.
            if (task, function) == ("ip", "rtnl_newlink") {
                continue;
            }
            *writes.entry(format!("{task}: {function}")).or_default() += 1;
        }
        Ok(writes)
    }

    /// Requires that nobody wrote.
    pub fn must_be_idle(&self) -> Result<()> {
        match self {
            Self::Probes => {
                let writes = Self::writes()?;
                ensure!(writes.is_empty(), "somebody wrote to the kernel: {writes:?}");
                Ok(())
            }
            Self::Snapshot { lab, before } => must_be_equal(before, &lab.snapshot()?, "since the start"),
        }
    }
}

impl Drop for WriteWatch<'_> {
    fn drop(&mut self) {
        if matches!(self, Self::Snapshot { .. }) {
            return;
        }
        let _ = fs::write(switch(), "0");
        for function in WRITES {
            let _ = tell("kprobe_events", &format!("-:{PROBES}/{function}\n"));
        }
    }
}

fn switch() -> String {
    format!("{TRACING}/events/{PROBES}/enable")
}

fn tell(file: &str, line: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(format!("{TRACING}/{file}"))?.write_all(line.as_bytes())
}
