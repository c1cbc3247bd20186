//! What is inside a node, from what its kernel says.

use super::*;

const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0132A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0032A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth1\t0000000A\t00000000\t0001\t0\t0\t100\t000000FF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
cali1\t05000109\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
tunl0\t00010109\t0232A8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

const ROUTES6: &str = "\
fd500000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fd010000000000000000000000000000 50 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001  docker0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd500000000000000000000000000002 00000400 00000001 00000000 00000003     eth0
fd500000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001  docker0
";

fn clients() -> ClientFilter {
    let inside = inside(ROUTES, ROUTES6, |link| link == "eth1");
    ClientFilter { inside, looked: Some(Instant::now()), ..ClientFilter::new(&[ClientRule::Node]) }
}

#[test]
fn containers_are_inside_and_neighbours_are_not() {
    let mut clients = clients();
    for (client, allowed) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("172.17.0.2", true),
        ("::ffff:172.17.0.2", true),
        ("9.1.0.5", true),
        ("fd01::5", true),
        ("fd50::1", true),
        ("192.168.50.2", false),
        ("10.1.2.3", false),
        ("9.1.1.5", false),
        ("9.1.0.6", false),
        ("fd50::2", false),
        ("8.8.8.8", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(clients.allow(client.parse().unwrap()), allowed, "{client}");
    }
}

#[test]
fn others_are_let_in_by_configuration() {
    let allow = |list: &[&str], client: &str| {
        let list: Vec<ClientRule> = list.iter().map(|text| text.parse().unwrap()).collect();
        ClientFilter { looked: Some(Instant::now()), ..ClientFilter::new(&list) }
            .allow(client.parse().unwrap())
    };
    assert!(allow(&["any"], "8.8.8.8"));
    assert!(allow(&["node", "192.168.50.0/24"], "192.168.50.2"));
    assert!(allow(&["192.168.50.2"], "192.168.50.2"));
    assert!(!allow(&["192.168.50.2"], "192.168.50.3"));
    assert!(!allow(&["192.168.50.2"], "127.0.0.1"));
    assert!("outside".parse::<ClientRule>().is_err());
}

#[test]
fn own_addresses_are_read_of_the_trie() {
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n  \
                +-- 127.0.0.0/8 2 0 2\n     |-- 192.168.50.1\n        /32 host LOCAL\n     \
                |-- 192.168.50.255\n        /32 link BROADCAST\n";
    assert_eq!(own(trie).collect::<Vec<_>>(), [Ipv4Addr::new(192, 168, 50, 1)]);
}

#[test]
fn this_machine_is_its_own_client() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // No packet is sent; without any route there is nothing to look at.
    if socket.connect("192.0.2.1:9").is_ok() {
        let own = socket.local_addr().unwrap().ip();
        assert!(ClientFilter::new(&[ClientRule::Node]).allow(own), "{own}");
    }
    assert!(!ClientFilter::new(&[ClientRule::Node]).allow([192, 0, 2, 1].into()));
}

#[test]
fn links_on_hardware_lead_out() {
    let links = tempfile::tempdir().unwrap();
    for path in ["eth0/device", "bond0/lower_eth0", "br0/lower_bond0", "docker0/lower_veth1", "veth1"] {
        std::fs::create_dir_all(links.path().join(path)).unwrap();
    }
    for (link, expected) in
        [("eth0", true), ("bond0", true), ("br0", true), ("docker0", false), ("veth1", false)]
    {
        assert_eq!(leads_out(links.path(), link, 0), expected, "{link}");
    }
}
