//! Which clients are answered, on a node whose networks are known, unknown or change.

use super::*;
use crate::dataplane::Node;

/// A node at 192.168.50.1 and fd50::1 with containers on a bridge and at the end of a route of their own.
fn node() -> Arc<NodeView> {
    let inside = ["192.168.50.1/32", "fd50::1/128", "172.17.0.0/16", "9.1.0.5/32", "fd01::/80"];
    let inside = inside.map(|network| network.parse().unwrap()).into();
    Arc::new(NodeView { node: Node { inside, ..Node::default() }, ..NodeView::default() })
}

fn rules(texts: &[&str]) -> Vec<ClientRule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const LISTENER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

fn told(clients: Vec<ClientRule>) -> watch::Receiver<Arc<ServiceRules>> {
    watch::Sender::new(Arc::new(ServiceRules { clients, forwarder: None })).subscribe()
}

fn allows(filter: &mut ClientFilter, client: &str) -> bool {
    filter.allows(client.parse().unwrap())
}

#[test]
fn containers_are_inside_and_neighbours_are_not() {
    let (_views, receiver) = watch::channel(node());
    let mut filter = ClientFilter::new(&told(vec![ClientRule::Node]), &[LISTENER], &receiver);
    for (client, allowed) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("198.51.100.1", true),
        ("172.17.0.2", true),
        ("::ffff:172.17.0.2", true),
        ("9.1.0.5", true),
        ("fd01::5", true),
        ("fd50::1", true),
        ("192.168.50.2", false),
        ("198.51.100.2", false),
        ("10.1.2.3", false),
        ("9.1.1.5", false),
        ("9.1.0.6", false),
        ("fd50::2", false),
        ("8.8.8.8", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(allows(&mut filter, client), allowed, "{client}");
    }
}

#[test]
fn others_are_let_in_by_configuration() {
    let allow = |list: &[&str], client: &str| {
        let (_views, receiver) = watch::channel(Arc::default());
        allows(&mut ClientFilter::new(&told(rules(list)), &[LISTENER], &receiver), client)
    };
    assert!(allow(&["any"], "8.8.8.8"));
    assert!(allow(&["node", "192.168.50.0/24"], "192.168.50.2"));
    assert!(allow(&["192.168.50.2"], "192.168.50.2"));
    assert!(!allow(&["192.168.50.2"], "192.168.50.3"));
    assert!(!allow(&["192.168.50.2"], "127.0.0.1"));
    assert!(!allow(&["192.168.50.2"], "198.51.100.1"));
    assert!("outside".parse::<ClientRule>().is_err());
}

#[test]
fn the_node_itself_is_answered_before_its_networks_are_known() {
    let (views, receiver) = watch::channel(Arc::<NodeView>::default());
    let mut filter = ClientFilter::new(&told(vec![ClientRule::Node]), &[LISTENER], &receiver);
    for (client, allowed) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("198.51.100.1", true),
        ("192.168.50.1", false),
        ("172.17.0.2", false),
    ] {
        assert_eq!(allows(&mut filter, client), allowed, "{client}");
    }
    views.send_replace(node());
    assert!(allows(&mut filter, "192.168.50.1") && allows(&mut filter, "172.17.0.2"));
}

#[test]
fn a_network_counts_from_the_next_query_on() {
    let (views, receiver) = watch::channel(node());
    let mut filter = ClientFilter::new(&told(vec![ClientRule::Node]), &[], &receiver);
    assert!(!allows(&mut filter, "172.18.0.2"));
    views.send_modify(|view| {
        let inside = &mut Arc::make_mut(view).node.inside;
        inside.insert("172.18.0.0/16".parse().unwrap());
        inside.remove(&"172.17.0.0/16".parse().unwrap());
    });
    assert!(allows(&mut filter, "172.18.0.2") && !allows(&mut filter, "172.17.0.2"));
    // What was known last holds on when there is nothing new any more.
    drop(views);
    assert!(allows(&mut filter, "172.18.0.2") && !allows(&mut filter, "172.17.0.2"));
}
