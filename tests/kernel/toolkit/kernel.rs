//! The kernel as its own tools show and change it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::host::Host;

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

    /// Connections that a TCP service has taken since it was made. The kernel adds them up every
    /// two seconds.
    pub fn connections_of(&self, service: SocketAddr) -> Result<u64> {
        let table = self.run_line("ipvsadm -Ln --stats --exact")?;
        let service = service.to_string();
        let count = table.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("TCP") && words.next() == Some(&service)).then(|| words.next())?
        });
        Ok(count.with_context(|| format!("no service {service} in {table}"))?.parse()?)
    }

    /// All that a data plane consists of: services, rules with their handles, routes and links.
    pub fn snapshot(&self) -> Result<String> {
        let mut text = String::new();
        for command in [
            "ipvsadm -Sn",
            "nft -a list ruleset",
            "ip -oneline link show",
            "ip -oneline address show",
            "ip route show table all",
            "ip -6 route show table all",
        ] {
            let output = self.run_line(command)?;
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
pub struct WriteWatch;

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

impl WriteWatch {
    pub fn start() -> Result<Self> {
        let watch = Self;
        for function in WRITES {
            tell("kprobe_events", &format!("p:{PROBES}/{function} {function}\n"))
                .with_context(|| format!("no probe on {function}"))?;
        }
        fs::write(format!("{TRACING}/trace"), "")?;
        fs::write(switch(), "1").context("the probes cannot be switched on")?;
        Ok(watch)
    }

    /// Who wrote what since the start, and how often.
    pub fn writes(&self) -> Result<BTreeMap<String, usize>> {
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
        let writes = self.writes()?;
        ensure!(writes.is_empty(), "somebody wrote to the kernel: {writes:?}");
        Ok(())
    }
}

impl Drop for WriteWatch {
    fn drop(&mut self) {
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
