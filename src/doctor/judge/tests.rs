use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::*;
use crate::cluster::Protocol;
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::firewall::Chains;
use crate::dataplane::host::inventory::Surroundings;
use crate::dataplane::host::resolv::ResolverFile;
use crate::dataplane::plane::PlaneReading;
use crate::dataplane::{Connections, Foreign, Node, PlaneKind, ServiceKey};
use crate::doctor::facts::{
    BoundSocket, ConfigFacts, DaemonFacts, FirewallFacts, KernelFacts, PlaceFacts, Program, ProgramKind,
    ResolverFacts, ServerFacts,
};
use crate::doctor::finding::Verdict;
use crate::doctor::resolver::{Libc, NameReply, Said};
use crate::status::Status;

const VIP: &str = "web.marathon.l4lb.thisdcos.directory";
const LISTENER: &str = "198.51.100.1:53";

fn settings_of(text: &str) -> DoctorSettings {
    wiring::doctor(&Config::parse(Path::new("l4lbd.toml"), text).unwrap())
}

fn settings() -> DoctorSettings {
    settings_of("[source]\nmasters = [\"http://10.0.0.11:5050\"]\n")
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn place(libc: Libc, file: &str, replies: &[(&str, &str, Said)]) -> PlaceFacts {
    let replies = replies.iter().map(|(server, name, said)| {
        (
            (server.parse::<SocketAddr>().unwrap(), (*name).to_owned()),
            NameReply { said: said.clone(), millis: 1 },
        )
    });
    PlaceFacts { libc, file: Ok(ResolverFile::parse(file)), replies: replies.collect() }
}

fn right() -> Said {
    Said::Addresses(vec![address("11.0.0.7")])
}

/// A node of which every part is read, and nothing is wrong.
fn healthy() -> NodeFacts {
    let own = "nameserver 198.51.100.1\n";
    let modules: BTreeSet<String> =
        kernel::MODULES.iter().map(|module| (*module).to_owned()).chain(["ip_vs_wlc".to_owned()]).collect();
    let sysctls = crate::dataplane::rules::sysctls(crate::dataplane::Capabilities::default(), true);
    let node = Node {
        connected: BTreeSet::from([("172.17.0.0/16".parse().unwrap(), "docker0".to_owned())]),
        inside: BTreeSet::from(["172.17.0.0/16".parse().unwrap()]),
        addresses: BTreeSet::from([address("10.0.0.1")]),
        ..Node::default()
    };
    let surroundings = Surroundings {
        routes: BTreeSet::from([("10.0.0.0/24".parse().unwrap(), "eth0".to_owned())]),
        mtus: BTreeMap::from([("eth0".to_owned(), 1500), ("docker0".to_owned(), 1500)]),
        uplinks: BTreeSet::from(["eth0".to_owned()]),
        links: BTreeSet::from(["eth0".to_owned(), "docker0".to_owned()]),
    };
    let held = [caps::Capability::CAP_NET_ADMIN, caps::Capability::CAP_NET_BIND_SERVICE];
    NodeFacts {
        is_root: true,
        config: ConfigFacts { file: "/etc/l4lbd/l4lbd.toml".to_owned(), ..ConfigFacts::default() },
        daemon: DaemonFacts {
            status: Ok(Status::default()),
            may_ask: true,
            process: Some(42),
            capabilities: Ok(held.into_iter().collect()),
        },
        kernel: KernelFacts {
            release: "6.1.0-18-amd64".to_owned(),
            loaded: modules.clone(),
            available: Some(modules),
            sysctls,
            rp_filter: BTreeMap::from([("eth0".to_owned(), 1)]),
            conntrack: Some((100, 262_144)),
            has_ipvs: true,
            ..KernelFacts::default()
        },
        plane: PlaneKind::Ipvs,
        table: Ok(PlaneReading { connection_buckets: Some(4096), ..PlaneReading::default() }),
        network: Ok((node, surroundings)),
        neighbours: BTreeSet::from([address("10.0.0.2")]),
        firewall: Ok(FirewallFacts::default()),
        sockets: Ok(Vec::new()),
        programs: Ok(vec![Program { process: 42, kind: ProgramKind::L4lbd }]),
        name: Ok((VIP.to_owned(), address("11.0.0.7"))),
        resolver: Ok(ResolverFacts {
            resolved: Ok(vec![address("11.0.0.7")]),
            place: place(Libc::Glibc, own, &[(LISTENER, VIP, right())]),
            has_resolved: false,
        }),
        containers: Ok(vec![(
            "process 7 (sh)".to_owned(),
            Ok(place(Libc::Musl, own, &[(LISTENER, VIP, right())])),
        )]),
        servers: vec![ServerFacts {
            key: "source.masters",
            state: Some(Ok("3 agents".to_owned())),
            url: "http://10.0.0.11:5050".to_owned(),
            clock: Ok(1),
        }],
    }
}

/// Breaks a healthy node, and returns what is found then.
fn broken_by(settings: &DoctorSettings, break_it: impl FnOnce(&mut NodeFacts)) -> Vec<Finding> {
    let mut facts = healthy();
    break_it(&mut facts);
    findings(settings, &facts).into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
}

/// Breaks a healthy node in one way, and requires one finding of this check.
#[track_caller]
fn one(check: &str, verdict: Verdict, break_it: impl FnOnce(&mut NodeFacts)) -> Finding {
    let found = broken_by(&settings(), break_it);
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((finding.check, finding.verdict), (check, verdict), "{finding:?}");
    finding.clone()
}

fn chains(chains: &[&str]) -> Chains {
    let chain = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let base = match words[3..] {
            [hook, policy] => format!(r#", "hook": "{hook}", "prio": 0, "policy": "{policy}""#),
            _ => String::new(),
        };
        format!(
            r#"{{"chain": {{"family": "{}", "table": "{}", "name": "{}"{base}}}}}"#,
            words[0], words[1], words[2]
        )
    };
    let listed: Vec<String> = chains.iter().map(chain).collect();
    Chains::parse(&format!(r#"{{"nftables": [{}]}}"#, listed.join(", ")))
}

fn firewall(listed: &[&str], rules: &str) -> FirewallFacts {
    let table = listed[0].split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
    // Rules without a chain are in the first one.
    let chain = listed[0].split(' ').nth(2).unwrap();
    let rules = match rules.starts_with("table") {
        true => rules.to_owned(),
        false => format!("table x y {{\n\tchain {chain} {{\n{rules}\t}}\n}}\n"),
    };
    let rules = BTreeMap::from([((table[0].clone(), table[1].clone()), rules)]);
    FirewallFacts { chains: chains(listed), rules, old: String::new() }
}

#[test]
fn a_healthy_node_has_no_finding() {
    assert_eq!(broken_by(&settings(), |_| {}), []);
}

#[test]
fn what_cannot_be_read_is_skipped_and_never_a_fault() {
    let found = broken_by(&settings(), |facts| {
        let reason = || "not root".to_owned();
        facts.table = Err(reason());
        facts.network = Err(reason());
        facts.firewall = Err(reason());
        facts.sockets = Err(reason());
        facts.programs = Err(reason());
        facts.name = Err(reason());
        facts.resolver = Err(reason());
        facts.containers = Err(reason());
        facts.daemon.capabilities = Err(reason());
        facts.kernel = KernelFacts { release: "?".to_owned(), ..KernelFacts::default() };
        facts.servers[0].clock = Err(reason());
    });
    assert!(found.len() > 10, "{found:#?}");
    assert!(found.iter().all(|finding| finding.verdict == Verdict::Skipped), "{found:#?}");
}

#[test]
fn errors_of_the_configuration_and_reasons_of_the_daemon_are_faults() {
    let finding = one("config", Verdict::Fault, |facts| facts.config.problems.push("vips.max: 0".to_owned()));
    assert_eq!(
        (finding.what.as_str(), finding.mend.as_deref()),
        ("vips.max: 0", Some("l4lbd check --config /etc/l4lbd/l4lbd.toml"))
    );
    one("config", Verdict::Warning, |facts| facts.config.remarks.push("note".to_owned()));
    let mut status = Status { reasons: vec!["store: full".to_owned()], ..Status::default() };
    one("daemon", Verdict::Fault, |facts| facts.daemon.status = Ok(status.clone()));
    status = Status { warnings: vec!["odd".to_owned()], ..Status::default() };
    one("daemon", Verdict::Warning, |facts| facts.daemon.status = Ok(status));
    let stopped = broken_by(&settings(), |facts| facts.daemon.status = Err("no daemon answers".to_owned()));
    assert_eq!(stopped[0].mend.as_deref(), Some("systemctl start l4lbd"));
    one("daemon", Verdict::Skipped, |facts| {
        facts.daemon.status = Err("no permission".to_owned());
        facts.daemon.may_ask = false;
    });
}

#[test]
fn a_daemon_without_a_capability_is_told() {
    let finding = one("capabilities", Verdict::Fault, |facts| {
        facts.daemon.capabilities = Ok([caps::Capability::CAP_NET_ADMIN].into_iter().collect());
    });
    assert!(finding.what.contains("CAP_NET_BIND_SERVICE"), "{finding:?}");
}

#[test]
fn the_kernel_s_release_and_modules_are_looked_at() {
    one("kernel", Verdict::Fault, |facts| facts.kernel.release = "4.19.0-26-amd64".to_owned());
    let missing = |facts: &mut NodeFacts| {
        facts.kernel.available.as_mut().unwrap().remove("nft_masq");
        facts.kernel.loaded.remove("nft_masq");
    };
    assert!(one("modules", Verdict::Fault, missing).what.contains("nft_masq"));
    let unloaded = |facts: &mut NodeFacts| {
        facts.kernel.loaded.remove("ip_vs");
        facts.kernel.has_ipvs = false;
    };
    assert_eq!(one("modules", Verdict::Warning, unloaded).mend.as_deref(), Some("modprobe -a ip_vs"));
    let finding = one("nft", Verdict::Fault, |facts| facts.kernel.nft = Some("cannot run nft".to_owned()));
    assert_eq!(finding.mend.as_deref(), Some("apt install nftables"));
}

#[test]
fn the_unit_loads_the_modules_that_are_looked_for() {
    let unit = include_str!("../../../systemd/l4lbd.service");
    let line = unit.lines().find_map(|line| line.split_once("modprobe -a ")).unwrap().1;
    assert_eq!(line.split(' ').collect::<Vec<_>>(), kernel::MODULES);
}

#[test]
fn a_setting_with_another_value_is_told_with_its_command() {
    let finding = one("sysctls", Verdict::Fault, |facts| {
        facts.kernel.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    });
    assert_eq!(finding.mend.as_deref(), Some("sysctl -w net.ipv4.ip_forward=1"));
    let finding = one("sysctls", Verdict::Fault, |facts| {
        facts.kernel.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
        facts.kernel.readonly.insert("net/ipv4/ip_forward".to_owned());
    });
    assert!(finding.what.contains("read-only"), "{finding:?}");
    let finding = one("sysctls", Verdict::Warning, |facts| {
        let (node, _) = facts.network.as_mut().unwrap();
        node.no_hairpin.insert("docker0".to_owned());
        node.filters_bridged4 = true;
    });
    assert_eq!(finding.mend.as_deref(), Some("sysctl -w net.bridge.bridge-nf-call-iptables=0"));
}

#[test]
fn a_reverse_path_filter_that_drops_is_told() {
    let finding = one("rp_filter", Verdict::Warning, |facts| facts.kernel.rp_filter_drops = 3);
    assert!(finding.what.contains("has dropped 3 packets"), "{finding:?}");
    assert_eq!(finding.mend.as_deref(), Some("sysctl -w net/ipv4/conf/eth0/rp_filter=2"));
    // Strict filters of a node with two ways out drop what comes back by the other one.
    one("rp_filter", Verdict::Warning, |facts| {
        facts.network.as_mut().unwrap().1.uplinks.insert("eth1".to_owned());
    });
    assert_eq!(
        broken_by(&settings(), |facts| {
            facts.kernel.rp_filter_drops = 3;
            facts.kernel.rp_filter.insert("eth0".to_owned(), 2);
        }),
        []
    );
}

#[test]
fn mounts_matter_to_ebpf_alone() {
    let without = |facts: &mut NodeFacts| {
        facts.kernel.cgroup = Some("no control groups".to_owned());
        facts.kernel.bpf = Some("no BPF file system".to_owned());
    };
    assert_eq!(broken_by(&settings(), without), []);
    let found = broken_by(&settings(), |facts| {
        without(facts);
        facts.plane = PlaneKind::Ebpf;
    });
    let checks: Vec<&str> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["capabilities", "cgroup", "bpf"]);
}

#[test]
fn full_tables_of_connections_are_told() {
    let finding = one("conntrack", Verdict::Warning, |facts| facts.kernel.conntrack = Some((75, 100)));
    assert_eq!(finding.mend.as_deref(), Some("sysctl -w net.netfilter.nf_conntrack_max=200"));
    one("conntrack", Verdict::Fault, |facts| facts.kernel.conntrack = Some((100, 100)));
    let finding = one("conn_tab", Verdict::Warning, |facts| {
        let key = ServiceKey { protocol: Protocol::Tcp, address: address("11.0.0.7"), port: 80 };
        let count = Connections { active: 30_000, inactive: 0 };
        let table = facts.table.as_mut().unwrap();
        table.connections.insert((key, "10.0.0.5:80".parse().unwrap()), count);
    });
    assert!(finding.what.contains("only 4096 buckets"), "{finding:?}");
}

#[test]
fn another_program_at_the_listener_is_named() {
    let socket = |at: &str, name: &str| BoundSocket {
        is_tcp: false,
        address: at.parse().unwrap(),
        owner: Some((7, name.to_owned())),
    };
    for at in ["0.0.0.0:53", LISTENER, "[::]:53"] {
        let finding =
            one("listeners", Verdict::Fault, |facts| facts.sockets = Ok(vec![socket(at, "dnsmasq")]));
        assert!(finding.what.starts_with("dnsmasq (process 7) has udp "), "{finding:?}");
        assert!(finding.mend.unwrap().contains("except-interface=minuteman"));
    }
    // Others have other addresses or ports; the daemon itself is process 42, and serves.
    let mut own = socket(LISTENER, "l4lbd");
    own.owner = Some((42, "l4lbd".to_owned()));
    let others = vec![socket("127.0.0.53:53", "systemd-resolve"), socket("0.0.0.0:5353", "avahi"), own];
    assert_eq!(broken_by(&settings(), |facts| facts.sockets = Ok(others)), []);
    let at_vip = socket("11.0.0.7:8080", "haproxy");
    assert!(
        one("listeners", Verdict::Warning, |facts| facts.sockets = Ok(vec![at_vip])).what.contains("haproxy")
    );
}

#[test]
fn other_load_balancers_are_named() {
    let with = |kind| {
        move |facts: &mut NodeFacts| facts.programs.as_mut().unwrap().push(Program { process: 99, kind })
    };
    assert_eq!(one("programs", Verdict::Fault, with(ProgramKind::L4lbd)).mend.as_deref(), Some("kill 99"));
    let finding = one("programs", Verdict::Fault, with(ProgramKind::DcosNet));
    assert_eq!(finding.mend.as_deref(), Some("systemctl disable --now dcos-net"));
    assert_eq!(broken_by(&settings(), with(ProgramKind::KubeProxy)), []);
    one("programs", Verdict::Fault, |facts| {
        with(ProgramKind::KubeProxy)(facts);
        facts.network.as_mut().unwrap().1.links.insert("kube-ipvs0".to_owned());
    });
}

#[test]
fn virtual_services_of_others_are_named() {
    let foreign = |at: &str| {
        let at: SocketAddr = at.parse().unwrap();
        let key = ServiceKey { protocol: Protocol::Tcp, address: at.ip(), port: at.port() };
        Foreign { service: key.to_string(), key: Some(key) }
    };
    let finding = one("foreign", Verdict::Fault, |facts| {
        facts.table.as_mut().unwrap().foreign.push(foreign("11.0.0.9:80"));
    });
    assert_eq!(finding.mend.as_deref(), Some("ipvsadm -D -t 11.0.0.9:80"));
    let finding = one("foreign", Verdict::Warning, |facts| {
        facts.table.as_mut().unwrap().foreign.push(foreign("10.96.0.1:443"));
    });
    assert_eq!(finding.place, "tcp 10.96.0.1:443");
}

#[test]
fn what_is_in_the_range_of_vips_is_named() {
    for route in ["11.7.0.0/16", "11.0.0.0/8", "8.0.0.0/6"] {
        let finding = one("ranges", Verdict::Fault, |facts| {
            let (_, surroundings) = facts.network.as_mut().unwrap();
            surroundings.routes.insert((route.parse().unwrap(), "eth1".to_owned()));
        });
        assert!(finding.what.contains(&format!("{route} dev eth1")), "{finding:?}");
        assert!(finding.mend.unwrap().contains("vips.range4"));
    }
    let finding = one("ranges", Verdict::Fault, |facts| {
        facts.neighbours.insert(address("11.1.2.3"));
    });
    assert!(finding.what.contains("11.1.2.3 is a host that has answered"), "{finding:?}");
    let settings = settings_of("[source]\nmasters = [\"http://11.0.0.11:5050\"]\n");
    let found = broken_by(&settings, |_| {});
    assert!(found[0].what.contains("11.0.0.11 is the address of a Mesos master"), "{found:?}");
    // However many there are, some are shown.
    let found = broken_by(&settings, |facts| {
        facts.neighbours = (0..100).map(|last| address(&format!("11.0.1.{last}"))).collect();
    });
    assert!(found.len() < 12 && found.last().unwrap().what.contains("more routes"), "{found:?}");
}

#[test]
fn containers_with_larger_packets_than_the_links_out_are_told() {
    let finding = one("mtu", Verdict::Warning, |facts| {
        facts.network.as_mut().unwrap().1.mtus.insert("eth0".to_owned(), 1400);
    });
    assert_eq!(finding.place, "docker0");
    assert!(finding.mend.unwrap().starts_with("ip link set dev docker0 mtu 1400"));
}

#[test]
fn a_firewall_that_denies_what_comes_in_is_told_until_its_command_has_run() {
    let listed = ["inet filter input input drop"];
    let finding = one("firewall-input", Verdict::Warning, |facts| facts.firewall = Ok(firewall(&listed, "")));
    let command = finding.mend.unwrap();
    assert!(command.contains("nft insert rule inet filter input iifname docker0 ip daddr"), "{command}");
    let after = "table inet filter {\n chain input {\n  jump own\n }\n chain own {\n  iifname \"docker0\" ip daddr { 11.0.0.0/8, \
                 198.51.100.1 } accept\n }\n}\n";
    assert_eq!(broken_by(&settings(), |facts| facts.firewall = Ok(firewall(&listed, after))), []);
    // A rule of another chain opens nothing here.
    let elsewhere = after.replace("jump own", "counter");
    one("firewall-input", Verdict::Warning, |facts| facts.firewall = Ok(firewall(&listed, &elsewhere)));
    let wide = "  iifname \"docker0\" accept\n";
    assert_eq!(broken_by(&settings(), |facts| facts.firewall = Ok(firewall(&listed, wide))), []);
    // A rule for one port opens nothing else.
    let narrow = "  iifname \"docker0\" tcp dport 22 accept\n  ip daddr 11.0.0.0/8 drop\n";
    one("firewall-input", Verdict::Warning, |facts| facts.firewall = Ok(firewall(&listed, narrow)));
    // What the daemon has measured is no guess.
    let found = broken_by(&settings(), |facts| {
        facts.firewall = Ok(firewall(&listed, after));
        let warnings = vec!["the firewall of this node drops what containers send to VIPs".to_owned()];
        facts.daemon.status = Ok(Status { warnings, ..Status::default() });
    });
    assert!(
        found.iter().any(|finding| finding.check == "firewall-input" && finding.verdict == Verdict::Fault)
    );
}

#[test]
fn each_firewall_gets_its_own_command() {
    for (listed, start) in [
        (vec!["ip filter INPUT input drop", "ip filter ufw-before-input"], "ufw allow in on docker0 to"),
        (vec!["inet firewalld filter_INPUT input accept"], "firewall-cmd --permanent --zone=trusted"),
        (vec!["ip filter INPUT input drop"], "iptables -I INPUT -i docker0 -d 11.0.0.0/8"),
    ] {
        let finding =
            one("firewall-input", Verdict::Warning, |facts| facts.firewall = Ok(firewall(&listed, "")));
        let command = finding.mend.unwrap();
        assert!(command.starts_with(start), "{command}");
    }
    let old =
        FirewallFacts { old: "-P INPUT DROP\n-P FORWARD ACCEPT\n".to_owned(), ..FirewallFacts::default() };
    let finding = one("firewall-input", Verdict::Warning, |facts| facts.firewall = Ok(old));
    assert!(finding.mend.unwrap().starts_with("iptables -I INPUT"));
}

#[test]
fn chains_that_drop_answers_and_what_goes_to_tasks_are_told() {
    let listed = ["ip filter FORWARD forward drop"];
    let finding = one("firewall-forward", Verdict::Fault, |facts| facts.firewall = Ok(firewall(&listed, "")));
    assert!(finding.mend.unwrap().starts_with("iptables -I FORWARD -m conntrack"));
    let docker = " oifname \"docker0\" ct state related,established counter accept\n";
    assert_eq!(broken_by(&settings(), |facts| facts.firewall = Ok(firewall(&listed, docker))), []);
    let listed = ["inet filter out output drop"];
    let found = broken_by(&settings(), |facts| facts.firewall = Ok(firewall(&listed, "")));
    let commands: Vec<&str> = found.iter().filter_map(|finding| finding.mend.as_deref()).collect();
    let expected = [
        "nft insert rule inet filter out ct original ip daddr 11.0.0.0/8 accept",
        "nft insert rule inet filter out ct original ip6 daddr fd01:c::/64 accept",
    ];
    assert_eq!(commands, expected);
    let after = " ct original ip daddr 11.0.0.0/8 accept\n ct original ip6 daddr fd01:c::/64 accept\n";
    assert_eq!(broken_by(&settings(), |facts| facts.firewall = Ok(firewall(&listed, after))), []);
}

#[test]
fn networks_that_docker_keeps_apart_are_told() {
    let apart = |facts: &mut NodeFacts| {
        let (node, _) = facts.network.as_mut().unwrap();
        node.connected.insert(("172.18.0.0/16".parse().unwrap(), "br-1234".to_owned()));
        node.inside.insert("172.18.0.0/16".parse().unwrap());
        let listed = ["ip filter DOCKER-USER", "ip filter DOCKER-ISOLATION-STAGE-2"];
        facts.firewall = Ok(firewall(&listed, ""));
    };
    let finding = one("docker", Verdict::Warning, apart);
    assert!(finding.mend.unwrap().starts_with("iptables -I DOCKER-USER"));
}

#[test]
fn a_master_that_does_not_answer_or_refuses_is_told() {
    for (error, mend) in [
        ("http://10.0.0.11:5050: Connection refused", "start the server, or correct source.masters"),
        ("http://10.0.0.11:5050: 401 Unauthorized (credentials", "correct source.basic"),
        ("http://10.0.0.11:5050: 403 Forbidden", "give the principal"),
        ("http://10.0.0.11:5050: No route to host", "ip route get 10.0.0.11"),
    ] {
        let finding =
            one("source", Verdict::Fault, |facts| facts.servers[0].state = Some(Err(error.to_owned())));
        assert!(finding.mend.unwrap().starts_with(mend), "{error}");
    }
}

#[test]
fn clocks_that_are_apart_are_told() {
    let finding = one("clock", Verdict::Warning, |facts| facts.servers[0].clock = Ok(-20));
    assert!(finding.what.contains("20 s ahead of"), "{finding:?}");
    let finding = one("clock", Verdict::Fault, |facts| facts.servers[0].clock = Ok(3600));
    assert!(finding.what.contains("3600 s behind"), "{finding:?}");
    assert!(finding.mend.unwrap().starts_with("timedatectl"));
}

#[test]
fn a_resolver_that_does_not_ask_l4lbd_is_told_with_its_order() {
    let file = "nameserver 10.0.0.2\nnameserver 198.51.100.1\noptions ndots:2\n";
    let replies = [("10.0.0.2:53", VIP, Said::NoName), (LISTENER, VIP, right())];
    let broken = |facts: &mut NodeFacts| {
        let resolver = facts.resolver.as_mut().unwrap();
        resolver.resolved = Err("Name or service not known".to_owned());
        resolver.place = place(Libc::Glibc, file, &replies);
    };
    let finding = one("resolver", Verdict::Fault, broken);
    let expected = "10.0.0.2:53 says that there is no web.marathon.l4lb.thisdcos.directory, and is asked before l4lbd \
                    (nameservers: 10.0.0.2, 198.51.100.1; ndots: 2)";
    assert!(finding.what.ends_with(expected), "{}", finding.what);
    assert!(finding.mend.unwrap().ends_with("sed -i '1i nameserver 198.51.100.1' /etc/resolv.conf"));
    // With systemd-resolved the file names only that.
    let finding = one("resolver", Verdict::Fault, |facts| {
        let resolver = facts.resolver.as_mut().unwrap();
        resolver.resolved = Err("Name or service not known".to_owned());
        resolver.has_resolved = true;
        resolver.place =
            place(Libc::Glibc, "nameserver 127.0.0.53\n", &[("127.0.0.53:53", VIP, Said::NoName)]);
        let dns = crate::dns::DnsState { resolved: Some("access denied".to_owned()), ..Default::default() };
        facts.daemon.status = Ok(Status { dns, ..Status::default() });
    });
    assert!(finding.what.ends_with("access denied"), "{finding:?}");
    assert!(finding.mend.unwrap().starts_with("resolvectl dns minuteman 198.51.100.1"));
}

#[test]
fn musl_with_a_search_domain_is_told_unless_names_are_forwarded() {
    let file = "nameserver 198.51.100.1\nsearch svc.cluster.local\noptions ndots:5\n";
    let searched = format!("{VIP}.svc.cluster.local");
    let container = |libc, said| {
        move |facts: &mut NodeFacts| {
            let replies = [(LISTENER, searched.as_str(), said), (LISTENER, VIP, right())];
            facts.containers = Ok(vec![("process 7 (sh)".to_owned(), Ok(place(libc, file, &replies)))]);
        }
    };
    let refused = || Said::Code("REFUSED".to_owned());
    let finding = one("containers", Verdict::Fault, container.clone()(Libc::Musl, refused()));
    assert!(finding.what.contains("takes that for silence"), "{finding:?}");
    assert!(finding.mend.unwrap().starts_with("set dns.forward = \"system\""));
    assert_eq!(broken_by(&settings(), container.clone()(Libc::Glibc, refused())), []);
    assert_eq!(broken_by(&settings(), container(Libc::Musl, Said::NoName)), []);
}

#[test]
fn a_container_that_gets_no_answer_is_told() {
    let own = "nameserver 198.51.100.1\n";
    let finding = one("containers", Verdict::Fault, |facts| {
        let silent = place(Libc::Glibc, own, &[(LISTENER, VIP, Said::Silence)]);
        facts.containers = Ok(vec![("process 7 (sh)".to_owned(), Ok(silent))]);
    });
    assert!(finding.what.contains("198.51.100.1:53 does not answer there"), "{finding:?}");
    // One that asks another server is the choice of whoever runs it.
    let finding = one("containers", Verdict::Warning, |facts| {
        let other = place(Libc::Glibc, "nameserver 8.8.8.8", &[("8.8.8.8:53", VIP, Said::NoName)]);
        facts.containers = Ok(vec![("process 7 (sh)".to_owned(), Ok(other))]);
    });
    assert!(finding.mend.unwrap().contains("--dns 198.51.100.1"));
}
