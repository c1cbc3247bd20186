use proptest::prelude::*;

use super::*;

/// A listing as `nft -s -y -p list table inet l4lbd` prints it: indented by tabs, long elements wrapped.
const LISTED: &str = "\
table inet l4lbd {
\tcounter vips_arrived {
\t}

\tcounter vips_reached {
\t}

\tcounter dns_arrived {
\t}

\tcounter dns_reached {
\t}

\tset vips4 {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 11.0.0.0/8, 192.0.2.7,
\t\t\t     198.51.100.0/24 }
\t}

\tset clients4 {
\t\ttype ipv4_addr
\t\tflags interval
\t}

\tset dns4 {
\t\ttype ipv4_addr
\t\tflags interval
\t}

\tset connected4 {
\t\ttype ipv4_addr . ifname
\t\tflags interval
\t\telements = { 10.0.0.0/24 . \"eth0\",
\t\t\t     172.17.0.0/16 . \"docker0\" }
\t}

\tset vips6 {
\t\ttype ipv6_addr
\t\tflags interval
\t\telements = { fd01:c::/64 }
\t}

\tset clients6 {
\t\ttype ipv6_addr
\t\tflags interval
\t}

\tset dns6 {
\t\ttype ipv6_addr
\t\tflags interval
\t}

\tset connected6 {
\t\ttype ipv6_addr . ifname
\t\tflags interval
\t}
";

fn networks(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn links(pairs: &[(&str, &str)]) -> BTreeSet<(IpNet, String)> {
    pairs.iter().map(|(network, link)| (network.parse().unwrap(), (*link).to_owned())).collect()
}

/// The rules of a node without containers, DNS server and denials.
fn plain(vips: &BTreeSet<IpNet>, connected: &BTreeSet<(IpNet, String)>, own_group: Option<u32>) -> RuleSet {
    let (clients, listeners) = (BTreeSet::new(), BTreeSet::new());
    RuleSet::new(RuleInputs {
        vips,
        connected,
        clients: &clients,
        listeners: &listeners,
        denied: &[],
        own_group,
    })
}

fn rules() -> RuleSet {
    // Host bits are not part of a network.
    let vips = networks(&["11.0.0.0/8", "192.0.2.7/32", "198.51.100.9/24", "fd01:c::/64"]);
    plain(&vips, &links(&[("10.0.0.5/24", "eth0"), ("172.17.0.0/16", "docker0")]), None)
}

#[test]
fn new_equals_the_listing_of_nft() {
    assert_eq!(rules(), RuleSet::listed(&format!("{LISTED}{CHAINS}}}")));
}

#[test]
fn new_differs_by_network_link_and_family() {
    let vips = networks(&["11.0.0.0/8"]);
    let connected = links(&[("10.0.0.0/24", "eth0")]);
    let base = plain(&vips, &connected, None);
    for (vips, connected) in [
        (networks(&["11.0.0.0/9"]), connected.clone()),
        (networks(&["11.0.0.0/8", "fd01:c::/64"]), connected.clone()),
        (vips.clone(), links(&[("10.0.0.0/24", "eth1")])),
        (vips, links(&[])),
    ] {
        assert_ne!(plain(&vips, &connected, None), base, "{vips:?} {connected:?}");
    }
}

#[test]
fn new_leaves_out_what_a_wider_network_of_the_same_link_covers() {
    let nested = [
        ("10.0.2.2/32", "eth0"),
        ("10.0.2.0/24", "eth0"),
        ("10.8.0.0/16", "wg0"),
        ("10.8.1.7/24", "wg0"),
        ("10.8.2.0/24", "eth1"),
        ("fd00::/48", "eth0"),
        ("fd00:0:0:1::/64", "eth0"),
        ("fd00:0:0:1::/64", "eth1"),
    ];
    let outer = ["10.0.2.0/24 eth0", "10.8.0.0/16 wg0", "10.8.2.0/24 eth1"];
    let outer6 = ["fd00::/48 eth0", "fd00:0:0:1::/64 eth1"];
    let outer: Vec<(&str, &str)> =
        outer.into_iter().chain(outer6).filter_map(|pair| pair.split_once(' ')).collect();
    let vips = networks(&["11.0.0.0/8", "11.0.0.7/32"]);
    let rules = plain(&vips, &links(&nested), None);
    assert_eq!(rules, plain(&networks(&["11.0.0.0/8"]), &links(&outer), None));
    assert!(outer.iter().all(|(net, link)| rules.script().contains(&format!("{net} . \"{link}\""))));
}

#[test]
fn new_leaves_out_links_that_nft_cannot_name() {
    let odd = links(&[("10.0.0.0/24", "a\"b"), ("10.0.1.0/24", "eth*"), ("10.0.2.0/24", "a\\b")]);
    assert_eq!(plain(&networks(&[]), &odd, None), plain(&networks(&[]), &links(&[]), None));
}

/// Networks that are often in each other.
fn nested_networks() -> impl Strategy<Value = IpNet> {
    let v4 = (0..4u8, any::<u8>(), 7..=32u8).prop_map(|(third, last, length)| {
        IpNet::new(std::net::IpAddr::from([10, 8, third, last]), length).unwrap()
    });
    let v6 = (0..4u16, any::<u16>(), 15..=128u8).prop_map(|(fourth, last, length)| {
        IpNet::new(std::net::IpAddr::from([0xfd00, 0, 0, fourth, 0, 0, 0, last]), length).unwrap()
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn no_element_covers_another_and_none_is_lost(
        nets in prop::collection::btree_set((nested_networks(), 0..3u8), 0..20)
    ) {
        let kept = outermost(nets.iter().copied());
        for (net, key) in &kept {
            let covering = kept.iter().filter(|(other, of)| of == key && other.contains(net));
            prop_assert_eq!(covering.count(), 1);
        }
        for (net, key) in &nets {
            prop_assert!(kept.iter().any(|(other, of)| of == key && other.contains(net)));
        }
    }
}

#[test]
fn with_less_takes_the_networks_of_links_away_and_nothing_else() {
    let vips = networks(&["11.0.0.0/8", "fd01:c::/64"]);
    let both = [("10.0.0.0/24", "eth0"), ("fd00::/64", "eth0")];
    let of = |connected: &[(&str, &str)]| plain(&vips, &links(connected), Some(7));
    let parts: Vec<(&str, RuleSet)> = of(&both).with_less().collect();
    let expected = [("IPv6", of(&both[..1])), ("IPv4", of(&both[1..])), ("IPv4 and IPv6", of(&[]))];
    assert_eq!(parts, expected);
}

/// The chain of the daemon's own group as `nft -s -y -p list table inet l4lbd` prints it.
const OWN_CHAIN: &str = "
\tchain own_output {
\t\ttype filter hook output priority -120; policy accept;
\t\tmeta skgid 987 ip daddr @vips4 meta l4proto 6 reject with tcp reset
\t\tmeta skgid 987 ip daddr @vips4 meta l4proto != 6 reject with icmp port-unreachable
\t\tmeta skgid 987 ip6 daddr @vips6 meta l4proto 6 reject with tcp reset
\t\tmeta skgid 987 ip6 daddr @vips6 meta l4proto != 6 reject with icmpv6 port-unreachable
\t}
}
";

#[test]
fn new_with_an_own_group_refuses_vips_to_it() {
    let vips = networks(&["11.0.0.0/8", "192.0.2.7/32", "198.51.100.9/24", "fd01:c::/64"]);
    let connected = links(&[("10.0.0.5/24", "eth0"), ("172.17.0.0/16", "docker0")]);
    let rules_of = |group| plain(&vips, &connected, group);
    assert_eq!(rules_of(Some(987)), RuleSet::listed(&format!("{LISTED}{CHAINS}{OWN_CHAIN}")));
    assert_eq!(rules_of(Some(987)).own_group(), Some(987));
    assert_eq!(rules_of(None).own_group(), None);
}

#[test]
fn listed_ignores_indentation_and_wrapping_only() {
    let one = RuleSet::listed("set a {\n\telements = { 1,\n\t\t2 }\n}\n");
    assert_eq!(one, RuleSet::listed("set a {\nelements = { 1, 2 }\n\n}"));
    assert_ne!(one, RuleSet::listed("set a {\nelements = { 2, 1 }\n}"));
    assert_ne!(one, RuleSet::listed("set a {\nelements = { 1 }\n}"));
}

#[test]
fn script_replaces_whatever_the_table_holds() {
    let script = rules().script();
    let lines: Vec<&str> = script.lines().take(3).collect();
    assert_eq!(lines, ["add table inet l4lbd", "delete table inet l4lbd", "table inet l4lbd {"]);
    assert_eq!(script.matches('{').count(), script.matches('}').count());
    assert!(script.contains("elements = { 11.0.0.0/8, 192.0.2.7, 198.51.100.0/24 }"), "{script}");
}

#[test]
fn sysctls_are_for_planes_that_packets_pass() {
    let packets = Capabilities { packets: true, ..Capabilities::default() };
    let sockets = Capabilities { packets: false, ..Capabilities::default() };
    let wanted = sysctls(packets, false);
    assert!(wanted.contains_key("net/ipv4/vs/conntrack") && wanted.contains_key("net/ipv4/ip_forward"));
    assert!(wanted.values().all(|value| value == "1"));
    let sticky = sysctls(packets, true);
    let more: Vec<&String> = sticky.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert_eq!(more, ["net/ipv4/vs/sloppy_tcp"]);
    assert!(wanted.keys().all(|path| sticky.contains_key(path)));
    assert!(sysctls(sockets, false).is_empty() && sysctls(sockets, true).is_empty());
}

#[test]
fn new_has_the_containers_the_dns_server_and_who_is_denied() {
    let vips = networks(&["11.0.0.0/8"]);
    let connected = links(&[("10.0.0.0/24", "eth0")]);
    // A network of a network, as the plugin ptp makes them.
    let clients = networks(&["172.17.0.0/16", "172.17.1.7/32", "fd77::/64"]);
    let listeners = BTreeSet::from(["198.51.100.1".parse().unwrap(), "fd53::1".parse().unwrap()]);
    let denied: Vec<Denied> = ["172.17.1.9 -> 10.0.5.0/24", "0.0.0.0/0 -> 10.0.6.7", "fd77::/64 -> ::/0"]
        .map(|text| text.parse().unwrap())
        .into();
    let inputs = RuleInputs {
        vips: &vips,
        connected: &connected,
        clients: &clients,
        listeners: &listeners,
        denied: &denied,
        own_group: None,
    };
    let script = RuleSet::new(inputs).script();
    let has = |lines: &str| assert!(script.contains(lines), "{lines}\nis not in\n{script}");
    has("set clients4 {\ntype ipv4_addr\nflags interval\nelements = { 172.17.0.0/16 }\n}\n");
    has("set clients6 {\ntype ipv6_addr\nflags interval\nelements = { fd77::/64 }\n}\n");
    has("set dns4 {\ntype ipv4_addr\nflags interval\nelements = { 198.51.100.1 }\n}\n");
    has("set dns6 {\ntype ipv6_addr\nflags interval\nelements = { fd53::1 }\n}\n");
    has("chain denied_output {\ntype filter hook output priority -10; policy accept;\n\
         ct direction original ct original ip daddr @vips4 ip saddr 172.17.1.9 ip daddr 10.0.5.0/24 \
         reject with icmp port-unreachable\n\
         ct direction original ct original ip daddr @vips4 ip daddr 10.0.6.7 reject with icmp port-unreachable\n\
         ct direction original ct original ip6 daddr @vips6 ip6 saddr fd77::/64 reject with icmpv6 port-unreachable\n\
         }\n");
}
