use super::*;

/// A listing of base chains, each as `FAMILY TABLE CHAIN HOOK PRIORITY POLICY`, and of other chains, each as
/// `FAMILY TABLE CHAIN`.
fn chains(lines: &[&str]) -> Chains {
    let chain = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let base = match words[3..] {
            [hook, priority, policy] => {
                format!(r#", "type": "filter", "hook": "{hook}", "prio": {priority}, "policy": "{policy}""#)
            }
            _ => String::new(),
        };
        let [family, table, name] = [words[0], words[1], words[2]];
        format!(
            r#"{{"chain": {{"family": "{family}", "table": "{table}", "name": "{name}", "handle": 1{base}}}}}"#
        )
    };
    let listed: Vec<String> = lines.iter().map(chain).collect();
    Chains::parse(&format!(
        r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {}]}}"#,
        listed.join(", ")
    ))
}

const OURS: &str = "inet l4lbd guard input 110 accept";

fn nft(family: &str, table: &str, chain: &str) -> Firewall {
    Firewall::Nft { family: family.to_owned(), table: table.to_owned(), chain: chain.to_owned() }
}

#[test]
fn firewalls_are_told_by_their_chains() {
    let iptables = |is_ipv4| Firewall::Iptables { is_ipv4 };
    for (listed, expected) in [
        (vec![], vec![]),
        (vec!["inet l4lbd reached input 97 accept"], vec![]),
        (vec!["inet filter input input 0 drop"], vec![nft("inet", "filter", "input")]),
        // Behind IPVS, or not for packets to the node itself.
        (vec!["inet filter input input 100 drop", "inet filter forward forward 0 drop"], vec![]),
        (
            vec!["ip filter INPUT input 0 drop", "ip6 filter INPUT input 0 drop"],
            vec![iptables(true), iptables(false)],
        ),
        (
            vec![
                "ip filter INPUT input 0 drop",
                "ip filter ufw-before-input",
                "ip6 filter INPUT input 0 drop",
            ],
            vec![Firewall::Ufw],
        ),
        (vec!["inet firewalld filter_INPUT input 10 accept"], vec![Firewall::Firewalld]),
    ] {
        let chains = chains(&[&[OURS], listed.as_slice()].concat());
        assert_eq!(chains.denying(), expected, "{listed:?}");
        assert_eq!(chains.firewalls(false), expected, "{listed:?}");
    }
}

#[test]
fn firewalls_without_a_policy_that_drops_are_those_with_rules() {
    let accepting = chains(&[OURS, "inet filter input input 0 accept"]);
    assert_eq!(accepting.denying(), []);
    assert_eq!(accepting.firewalls(false), [nft("inet", "filter", "input")]);
    // Old tables are not listed, so they are taken for the cause where there are some.
    assert_eq!(accepting.firewalls(true), [true, false].map(|is_ipv4| Firewall::Iptables { is_ipv4 }));
    assert_eq!(Chains::parse("not JSON").firewalls(false), []);
}

#[test]
fn commands_name_links_networks_and_the_dns_server() {
    let links = BTreeSet::from([("cni0", true), ("docker0", true), ("docker0", false), ("a;b", true)]);
    let sources = BTreeSet::from(["172.17.0.0/16".parse().unwrap()]);
    let destinations = ["11.0.0.0/8", "fd01:c::/64", "198.51.100.1/32"].map(|net| net.parse().unwrap());
    let passage = Passage { links: &links, sources: &sources, destinations: &destinations };
    assert_eq!(
        Firewall::Ufw.commands(passage),
        [
            "ufw allow in on cni0 to 11.0.0.0/8",
            "ufw allow in on cni0 to 198.51.100.1",
            "ufw allow in on docker0 to fd01:c::/64",
            "ufw allow in on docker0 to 11.0.0.0/8",
            "ufw allow in on docker0 to 198.51.100.1",
        ]
    );
    assert_eq!(
        Firewall::Firewalld.commands(passage),
        ["firewall-cmd --permanent --zone=trusted --add-source=172.17.0.0/16", "firewall-cmd --reload"]
    );
    assert_eq!(
        Firewall::Iptables { is_ipv4: true }.commands(passage),
        [
            "iptables -I INPUT -i cni0 -d 11.0.0.0/8,198.51.100.1 -j ACCEPT",
            "iptables -I INPUT -i docker0 -d 11.0.0.0/8,198.51.100.1 -j ACCEPT",
        ]
    );
    assert_eq!(
        Firewall::Iptables { is_ipv4: false }.commands(passage),
        ["ip6tables -I INPUT -i docker0 -d fd01:c::/64 -j ACCEPT"]
    );
    assert_eq!(
        nft("inet", "filter", "input").commands(passage),
        [
            "nft insert rule inet filter input iifname cni0 ip daddr '{ 11.0.0.0/8, 198.51.100.1 }' accept",
            "nft insert rule inet filter input iifname docker0 ip6 daddr '{ fd01:c::/64 }' accept",
            "nft insert rule inet filter input iifname docker0 ip daddr '{ 11.0.0.0/8, 198.51.100.1 }' accept",
        ]
    );
    assert_eq!(nft("ip6", "filter", "input").commands(passage).len(), 1);
}

/// Counters of VIPs and of the DNS server.
fn counters(vips: u64, dns: u64) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let of = |names: [&str; 2]| names.map(str::to_owned).into_iter().zip([vips, dns]).collect();
    (of([rules::VIPS_ARRIVED, rules::DNS_ARRIVED]), of([rules::VIPS_REACHED, rules::DNS_REACHED]))
}

#[test]
fn watch_tells_losses_until_the_rules_change_or_time_has_passed() {
    let (mut watch, start) = (Watch::default(), Instant::now());
    let mut take = |arrived: (u64, u64), reached: (u64, u64), generation, seconds| {
        let (arrived, reached) = (counters(arrived.0, arrived.1).0, counters(reached.0, reached.1).1);
        watch.take(&arrived, &reached, Some(generation), start + Duration::from_secs(seconds))
    };
    assert_eq!(take((5, 5), (5, 5), 1, 0), (false, false));
    assert_eq!(take((6, 6), (5, 6), 1, 1), (true, false), "one connection is lost");
    assert_eq!(take((7, 6), (6, 6), 1, 2), (true, false), "another one gets through");
    assert_eq!(take((7, 6), (6, 6), 2, 3), (false, false), "somebody changed the rules");
    assert_eq!(take((8, 7), (7, 7), 2, 4), (false, false), "and it helped");
    assert_eq!(take((8, 9), (7, 7), 2, 5), (false, true), "questions are lost");
    assert_eq!(take((8, 9), (7, 7), 2, 5 + FORGOTTEN.as_secs()), (false, false), "long ago");
}

#[test]
fn watch_begins_anew_with_the_table() {
    let (mut watch, now) = (Watch::default(), Instant::now());
    let mut take = |arrived, reached, generation| {
        watch.take(&counters(arrived, 0).0, &counters(reached, 0).1, Some(generation), now).0
    };
    assert!(!take(9, 5, 1), "those of an earlier run");
    assert!(take(9, 4, 1));
    assert!(!take(1, 1, 2), "written anew");
    assert!(take(3, 1, 2), "less than were missing before");
    // Packets that came in between the two readings are no gain.
    assert!(!take(4, 9, 3));
}
