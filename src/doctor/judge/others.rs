//! Checks of the configuration, of the daemon, and of other programs that are at work on the same things.

use std::net::SocketAddr;

use caps::Capability;

use crate::dataplane::PlaneKind;
use crate::dataplane::ebpf::{capability_names, lacking_for_ebpf};
use crate::doctor::facts::{BoundSocket, NodeFacts, Program, ProgramKind};
use crate::doctor::finding::Finding;
use crate::doctor::settings::DoctorSettings;

/// First port that needs no capability (`net.ipv4.ip_unprivileged_port_start`).
const FIRST_FREE_PORT: u16 = 1024;

/// Foreign services and warnings that are shown.
const SHOWN: usize = 8;

pub fn config(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "config";
    let config = &facts.config;
    // A path that a shell would read otherwise is left to its author.
    let is_plain = config.file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte));
    let check =
        if is_plain { format!("l4lbd check --config {}", config.file) } else { "l4lbd check".to_owned() };
    let problems = config.problems.iter().map(|problem| {
        Finding::fault(CHECK, problem.as_str()).at(config.file.as_str()).mended_by(check.as_str())
    });
    let remarks =
        config.remarks.iter().map(|remark| Finding::warning(CHECK, remark.as_str()).at(config.file.as_str()));
    let found: Vec<Finding> = problems.chain(remarks).collect();
    if found.is_empty() { vec![Finding::ok(CHECK, "is valid").at(config.file.as_str())] } else { found }
}

pub fn daemon(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "daemon";
    let status = match &facts.daemon.status {
        Ok(status) => status,
        Err(reason) if !facts.daemon.may_ask => return vec![Finding::skipped(CHECK, reason.as_str())],
        Err(reason) => {
            return vec![Finding::fault(CHECK, reason.as_str()).mended_by("systemctl start l4lbd")];
        }
    };
    let reasons =
        status.reasons.iter().map(|reason| Finding::fault(CHECK, reason.as_str()).at("l4lbd status"));
    let warnings =
        status.warnings.iter().map(|warning| Finding::warning(CHECK, warning.as_str()).at("l4lbd status"));
    let mut found: Vec<Finding> = reasons.chain(warnings.take(SHOWN)).collect();
    if found.is_empty() {
        found.push(Finding::ok(CHECK, format!("l4lbd {} works: {}", status.version, status.counts())));
    }
    found
}

pub fn capabilities(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "capabilities";
    let held = match (&facts.daemon.process, &facts.daemon.capabilities) {
        (Some(_), Ok(held)) => held,
        (_, Ok(_)) => return vec![Finding::skipped(CHECK, "the daemon's process is not known")],
        (_, Err(reason)) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    let mut missing = match facts.plane {
        PlaneKind::Ebpf => lacking_for_ebpf(held),
        PlaneKind::Ipvs => {
            let wanted = Capability::CAP_NET_ADMIN;
            (!held.contains(&wanted)).then_some(wanted).into_iter().collect()
        }
    };
    let binds_low = settings.listen.iter().any(|listener| listener.port() < FIRST_FREE_PORT);
    let to_bind = Capability::CAP_NET_BIND_SERVICE;
    missing.extend((binds_low && !held.contains(&to_bind)).then_some(to_bind));
    vec![match missing.is_empty() {
        true => Finding::ok(CHECK, "the daemon has what it needs"),
        false => Finding::fault(CHECK, format!("the daemon lacks {}", capability_names(&missing)))
            .at(facts.daemon.process.map(|process| format!("process {process}")).unwrap_or_default())
            .mended_by(
                "systemctl edit l4lbd: AmbientCapabilities= and CapabilityBoundingSet= with these, see systemd/README.md; \
                 systemctl restart l4lbd",
            ),
    }]
}

/// Returns true if a socket keeps the DNS server from an address.
fn is_in_the_way(socket: &BoundSocket, wanted: &SocketAddr) -> bool {
    let address = socket.address;
    let is_same = address.ip() == wanted.ip();
    // One on all addresses of IPv6 takes those of IPv4 as well, unless it was made otherwise.
    let is_any = address.ip().is_unspecified() && (address.is_ipv6() || wanted.is_ipv4());
    address.port() == wanted.port() && (is_same || is_any)
}

pub fn listeners(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "listeners";
    let sockets = match &facts.sockets {
        Ok(sockets) => sockets,
        Err(reason) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    let serves = facts.daemon.status.as_ref().map(|status| status.dns.addresses.clone()).unwrap_or_default();
    let is_daemon = |socket: &BoundSocket| {
        socket.owner.as_ref().is_some_and(|(process, _)| Some(*process) == facts.daemon.process)
    };
    let mut found = Vec::new();
    for wanted in &settings.listen {
        let in_the_way = sockets.iter().filter(|socket| is_in_the_way(socket, wanted) && !is_daemon(socket));
        for socket in in_the_way.take(SHOWN) {
            // Both listen, as with an address that is more exact: the daemon is asked.
            if serves.contains(wanted) {
                continue;
            }
            let protocol = if socket.is_tcp { "tcp" } else { "udp" };
            found.push(
                Finding::fault(
                    CHECK,
                    format!(
                        "{} has {protocol} {}, so that l4lbd cannot answer DNS at {wanted}",
                        owner(socket),
                        socket.address
                    ),
                )
                .at(wanted.to_string())
                .mended_by(other_addresses(socket, settings, wanted)),
            );
        }
    }
    // A VIP is answered by its tasks, and never by a program of the node.
    let networks = settings.networks();
    let is_vip =
        |socket: &&BoundSocket| networks.iter().any(|network| network.contains(&socket.address.ip()));
    for socket in sockets.iter().filter(is_vip).filter(|socket| !is_daemon(socket)).take(SHOWN) {
        found.push(
            Finding::warning(
                CHECK,
                format!(
                    "{} listens at {}, which is in the range of VIPs and leads to no program of this node",
                    owner(socket),
                    socket.address
                ),
            )
            .mended_by(format!(
                "have it listen at an address of this node (ss -lnp 'sport = :{}' shows it)",
                socket.address.port()
            )),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no other program has the addresses of the DNS server"));
    }
    found
}

fn owner(socket: &BoundSocket) -> String {
    match &socket.owner {
        Some((process, name)) => format!("{name} (process {process})"),
        None => "a program".to_owned(),
    }
}

/// Returns the step by which a program leaves an address free.
fn other_addresses(socket: &BoundSocket, settings: &DoctorSettings, wanted: &SocketAddr) -> String {
    let link = &settings.kernel.link;
    match socket.owner.as_ref().map(|(_, name)| name.as_str()) {
        Some("dnsmasq") => format!(
            "printf 'bind-dynamic\\nexcept-interface={link}\\n' > /etc/dnsmasq.d/l4lbd.conf && systemctl restart dnsmasq"
        ),
        Some("named") => {
            format!("listen-on {{ !{}; any; }}; in named.conf, then: systemctl restart named", wanted.ip())
        }
        Some("unbound") => "interface: 127.0.0.1 in unbound.conf, then: systemctl restart unbound".to_owned(),
        _ => format!(
            "have it listen at single addresses other than {}, or set dns.listen; ss -lnp 'sport = :{}' shows it",
            wanted.ip(),
            wanted.port()
        ),
    }
}

pub fn programs(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "programs";
    let programs = match &facts.programs {
        Ok(programs) => programs,
        Err(reason) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    let of = |kind| programs.iter().filter(move |program| program.kind == kind);
    let mut found = Vec::new();
    // The one that answers on the socket is the one that should run.
    let others: Vec<&Program> =
        of(ProgramKind::L4lbd).filter(|program| Some(program.process) != facts.daemon.process).collect();
    // Where the daemon is not known, a single process may be the daemon itself.
    for other in others.iter().filter(|_| facts.daemon.process.is_some() || others.len() > 1) {
        found.push(
            Finding::fault(
                CHECK,
                "another l4lbd runs in this network namespace, and the two undo each other's changes",
            )
            .at(format!("process {}", other.process))
            .mended_by(format!("kill {}", other.process)),
        );
    }
    for other in of(ProgramKind::DcosNet) {
        found.push(
            Finding::fault(
                CHECK,
                "dcos-net runs, and its load balancer has the same addresses; see l4lbd-migrate(7)",
            )
            .at(format!("process {}", other.process))
            .mended_by("systemctl disable --now dcos-net"),
        );
    }
    // kube-proxy makes this link in its mode ipvs alone.
    let is_ipvs = settings.has_packets(facts.plane) && has_link(facts, "kube-ipvs0");
    for other in of(ProgramKind::KubeProxy) {
        let finding = match is_ipvs {
            true => Finding::fault(CHECK, "kube-proxy uses IPVS and removes services that it does not know")
                .mended_by(format!(
                    "kube-proxy --ipvs-exclude-cidrs={}, and the networks of literal VIPs",
                    settings.range_of(true)
                )),
            false => Finding::ok(CHECK, "kube-proxy runs, and does not use IPVS"),
        };
        found.push(finding.at(format!("process {}", other.process)));
    }
    if found.is_empty() && !facts.is_root {
        return vec![Finding::skipped(CHECK, "only root sees which network namespace a program is in")];
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no other load balancer is at work"));
    }
    found
}

fn has_link(facts: &NodeFacts, link: &str) -> bool {
    // The link of kube-proxy is down for ever, and so is not among those that carry packets.
    facts.network.as_ref().is_ok_and(|(_, surroundings)| surroundings.links.contains(link))
}

pub fn foreign(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "foreign";
    let table = match &facts.table {
        Ok(table) => table,
        Err(reason) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    let networks = settings.networks();
    let mut found = Vec::new();
    for foreign in table.foreign.iter().take(SHOWN) {
        let is_vip =
            foreign.key.is_some_and(|key| networks.iter().any(|network| network.contains(&key.address)));
        let flag = foreign.key.map(|key| match key.protocol {
            crate::cluster::Protocol::Tcp => format!("-t {}", SocketAddr::new(key.address, key.port)),
            crate::cluster::Protocol::Udp => format!("-u {}", SocketAddr::new(key.address, key.port)),
        });
        let finding = match is_vip {
            true => Finding::fault(CHECK, "a virtual service of another program is in the range of VIPs"),
            false => {
                Finding::warning(CHECK, "a virtual service of another program is in IPVS, and is left alone")
            }
        };
        let finding = finding.at(foreign.service.as_str());
        // Outside the range it may well be wanted, so that no command is given against it.
        found.push(match flag.filter(|_| is_vip) {
            Some(flag) => finding.mended_by(format!("ipvsadm -D {flag}")),
            None => finding,
        });
    }
    let more = table.foreign.len().saturating_sub(SHOWN);
    if more > 0 {
        found.push(Finding::warning(CHECK, format!("{more} more virtual services of other programs")));
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "there are no virtual services of other programs"));
    }
    found
}
