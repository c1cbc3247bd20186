//! Container networks beside the usual bridge: which of them work as they are, which need a route or a
//! setting, and which cannot work.
//!
//! What is asserted to fail here is what l4lbd-networks(7) tells users about, with the remedy next to it. With eBPF
//! the network decides as it does without any VIP.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Result, ensure};

use super::tests;
use crate::toolkit::container::Container;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::lab::{AGENT, Lab, REMOTE, socket_address};
use crate::toolkit::state::{State, Task};

tests!["topologies":
    ; ipvs:
    macvlan_passes_the_node_by_unless_it_has_a_shim,
    ipvlan_passes_the_node_by_unless_it_has_a_shim,
    names_beside_hardware_have_to_be_allowed,
    ipvlan_l3s_reaches_other_nodes_only,
    neighbour_sends_the_range_to_a_node,
    point_to_point_link,
    bridge_without_masquerade_needs_a_way_back,
    network_without_a_way_out_needs_one_route,
    docker_port_needs_dockers_proxy,
    docker_keeps_its_networks_apart,
    container_hears_nothing_from_itself_without_hairpin,
    ; ebpf:
    any_network_does_with_a_vip_as_with_its_task,
    docker_does_with_a_vip_as_with_its_task,
    ; machine:
    ipvlan_does_with_a_vip_as_with_its_task,
];

const WEB: &str = "/web:80";
const NEAR: &str = "/near:80";
const RANGE: &str = "11.0.0.0/8";
const NAMES: &str = "198.51.100.1";

/// One task on the other agent, one on this agent's own network.
fn start(lab: &Lab) -> Result<Daemon<'_>> {
    lab.remote.serve("192.168.50.2:8080", "B")?;
    lab.agent.serve("192.168.50.1:8080", "A")?;
    let daemon = lab.start(&State::of([
        Task::host("web", REMOTE, 8080).vip(WEB),
        Task::host("near", AGENT, 8080).vip(NEAR),
    ]))?;
    daemon.await_dns()?;
    Ok(daemon)
}

/// Dials both of [`start`]'s VIPs and requires the servers to see these clients.
fn must_reach_both(daemon: &Daemon<'_>, client: &Host, seen_afar: &str, seen_near: &str) -> Result<()> {
    for (name, server, wanted) in [("web", "B", seen_afar), ("near", "A", seen_near)] {
        let seen = client.must_reach(Tcp, daemon.socket_of(name, 80)?, server)?;
        ensure!(seen.to_string() == wanted, "{server} saw {seen} instead of {wanted}");
    }
    Ok(())
}

fn must_resolve(client: &Host) -> Result<()> {
    let name = "web.marathon.l4lb.thisdcos.directory";
    let answer = client.run_line(&format!("dig @{NAMES} +time=3 +tries=1 +short {name}"))?;
    ensure!(answer.starts_with("11."), "{} looks up {name}: {answer}", client.name);
    Ok(())
}

/// Where there are no packets to a VIP, a network can do nothing to them. The name server is an address like
/// any other, though.
fn any_network_does_with_a_vip_as_with_its_task() -> Result<()> {
    let lab = Lab::new()?;
    let neighbour = lan_neighbour(&lab, "macvlan mode bridge")?;
    let bridged = cni_bridge(&lab, Some("10.23.0.1"))?;
    let daemon = start(&lab)?;
    let (far, near) = (daemon.socket_of("web", 80)?, daemon.socket_of("near", 80)?);

    must_reach_as_its_task(&neighbour, far, "192.168.50.2:8080", "B")?;
    neighbour.must_find_no_way(near)?;
    neighbour.must_find_no_way(socket_address("192.168.50.1:8080"))?;
    ensure!(must_resolve(&neighbour).is_err(), "there is a way to the name server");

    must_reach_as_its_task(&bridged, near, "192.168.50.1:8080", "A")?;
    bridged.must_hear_nothing(far)?;
    lab.remote.configure(&format!("route add 10.23.0.0/24 via {AGENT}\n"))?;
    must_reach_as_its_task(&bridged, far, "192.168.50.2:8080", "B")?;
    must_resolve(&bridged)?;
    bridged.configure("route del default\n")?;
    bridged.must_find_no_way(far)
}

/// As above, for links that fewer kernels have.
fn ipvlan_does_with_a_vip_as_with_its_task() -> Result<()> {
    let lab = Lab::new()?;
    let neighbour = lan_neighbour(&lab, "ipvlan mode l2")?;
    let daemon = start(&lab)?;
    let far = daemon.socket_of("web", 80)?;
    for mode in ["l2", "l3s"] {
        neighbour.configure(&format!("link set eth0 type ipvlan mode {mode}\n"))?;
        must_reach_as_its_task(&neighbour, far, "192.168.50.2:8080", "B")?;
    }
    Ok(())
}

/// A published port without a proxy, networks that are kept apart, a container that dials itself.
fn docker_does_with_a_vip_as_with_its_task() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.bridge_netfilter(true)?;
    let other = docker_isolated(&lab)?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    other.serve("0.0.0.0:8080", "OTHER")?;
    lab.publish_port(31080, 11, 8080)?;
    let daemon = lab.start(&State::of([
        Task::docker("mapped", AGENT, "172.17.1.11", 31080, 8080).vip("/mapped:80"),
        Task::container("inside", AGENT, "172.17.1.11", 8080).vip("/inside:80"),
        Task::container("apart", AGENT, "172.18.0.2", 8080).vip("/apart:80"),
    ]))?;
    let mapped = daemon.socket_of("mapped", 80)?;
    must_reach_as_its_task(&lab.agent, mapped, "192.168.50.1:31080", "C11")?;
    must_reach_as_its_task(lab.container(12), mapped, "192.168.50.1:31080", "C11")?;
    let inside = daemon.socket_of("inside", 80)?;
    for client in [&lab.agent, lab.container(11), lab.container(12)] {
        must_reach_as_its_task(client, inside, "172.17.1.11:8080", "C11")?;
    }
    let apart = daemon.socket_of("apart", 80)?;
    must_reach_as_its_task(&lab.agent, apart, "172.18.0.2:8080", "OTHER")?;
    lab.container(11).must_hear_nothing(apart)?;
    lab.container(11).must_hear_nothing(socket_address("172.18.0.2:8080"))
}

/// Dials a VIP and its task, and requires the server to see the same client.
fn must_reach_as_its_task(client: &Host, vip: SocketAddr, task: &str, server: &str) -> Result<()> {
    let direct = client.must_reach(Tcp, socket_address(task), server)?;
    let through = client.must_reach(Tcp, vip, server)?;
    ensure!(direct == through, "{} is {direct} for {task}, and {through} for {vip}", client.name);
    Ok(())
}

/// A neighbour of the node on its LAN, which gets to know soon that nobody answers for an address there.
fn lan_neighbour(lab: &Lab, kind: &str) -> Result<Container> {
    let container = Container::on_top_of(&lab.agent, "lan", kind, "192.168.50.61/24", REMOTE)?;
    container.sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "200")?;
    Ok(container)
}

fn macvlan_passes_the_node_by_unless_it_has_a_shim() -> Result<()> {
    passes_the_node_by_unless_it_has_a_shim("macvlan mode bridge")
}

fn ipvlan_passes_the_node_by_unless_it_has_a_shim() -> Result<()> {
    passes_the_node_by_unless_it_has_a_shim("ipvlan mode l2")
}

/// Such a container is a neighbour of the node on the LAN, and the one that the node cannot talk to.
fn passes_the_node_by_unless_it_has_a_shim(kind: &str) -> Result<()> {
    let lab = Lab::new()?;
    // The LAN's router, which has never heard of VIPs.
    lab.remote.sysctl("net.ipv4.ip_forward", "1")?;
    let container = lan_neighbour(&lab, kind)?;
    let daemon = start(&lab)?;
    let vip = daemon.socket_of("web", 80)?;
    container.must_find_no_way(vip)?;
    // A route to the node does not help: nothing goes between a link and those on top of it.
    container.configure(&format!("route add {RANGE} via {AGENT}\n"))?;
    container.must_find_no_way(vip)?;

    lab.agent.configure(&format!(
        "link add link lan name shim type {kind}\naddr add 192.168.50.62/32 dev shim\nlink set shim up\n\
         route add 192.168.50.61/32 dev shim\n"
    ))?;
    container.configure(&format!(
        "route replace {RANGE} via 192.168.50.62\nroute add {NAMES} via 192.168.50.62\n"
    ))?;
    must_reach_both(&daemon, &container, AGENT, "192.168.50.61")?;
    // The other way round: the node's own clients reach a task in such a container.
    container.serve("0.0.0.0:8080", "M")?;
    lab.publish(&State::of([
        Task::host("web", REMOTE, 8080).vip(WEB),
        Task::host("near", AGENT, 8080).vip(NEAR),
        Task::container("inside", AGENT, "192.168.50.61", 8080).vip("/inside:80"),
    ]))?;
    daemon.await_status("the container's VIP", |status| status.vip("inside", 80).is_some())?;
    lab.agent.must_reach(Tcp, daemon.socket_of("inside", 80)?, "M")?;
    must_resolve(&container)
}

/// A shim on a real network card is on the side of the LAN for the resolver, which serves nobody there
/// unasked. Other labs' cards are pairs of `veth`; this is the machine's own.
fn names_beside_hardware_have_to_be_allowed() -> Result<()> {
    let lab = Lab::new()?;
    let moved = Command::new("ip").args(["link", "set", "eth0", "netns", &lab.agent.name]).status()?;
    ensure!(moved.success(), "this machine has no network card");
    lab.agent.configure("link set eth0 up\n")?;
    let shim = "10.25.0.1";
    let container = Container::on_top_of(&lab.agent, "eth0", "macvlan mode bridge", "10.25.0.2/24", shim)?;
    lab.agent.configure(&format!(
        "link add link eth0 name shim type macvlan mode bridge\naddr add {shim}/32 dev shim\nlink set shim up\n\
         route add 10.25.0.2/32 dev shim\n"
    ))?;
    let daemon = start(&lab)?;
    container.must_reach(Tcp, daemon.socket_of("near", 80)?, "A")?;
    ensure!(must_resolve(&container).is_err(), "a client on the side of the LAN was answered");

    daemon.terminate()?;
    lab.configure_daemon("[dns]\nclients = [\"node\", \"10.25.0.0/24\"]")?;
    let daemon = lab.start_again()?;
    daemon.await_dns()?;
    must_resolve(&container)
}

/// What such a container sends passes the node's rules on its way out, IPVS among them, but it is never
/// routed by the node: neither to the node's own services nor to its resolver.
fn ipvlan_l3s_reaches_other_nodes_only() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::of(&lab.agent)?;
    lab.agent.configure(&format!(
        "link add link lan name child type ipvlan mode l3s\nlink set child netns {}\n",
        container.name
    ))?;
    container.configure(
        "link set lo up\nlink set child up\naddr add 10.24.0.2/24 dev child\nroute add default dev child\n",
    )?;
    lab.remote.configure(&format!("route add 10.24.0.0/24 via {AGENT}\n"))?;
    let daemon = start(&lab)?;
    let (far, near) = (daemon.socket_of("web", 80)?, daemon.socket_of("near", 80)?);
    let seen = container.must_reach(Tcp, far, "B")?;
    ensure!(seen.to_string() == "10.24.0.2", "the server saw {seen}");
    container.must_hear_nothing(near)?;

    // Without the "s" the answers do not pass the rules.
    container.configure("link set child type ipvlan mode l3\n")?;
    container.must_reach(Tcp, socket_address("192.168.50.2:8080"), "B")?;
    container.must_hear_nothing(far)
}

/// Machines and containers without a daemon on their node, where one node's failure is acceptable.
fn neighbour_sends_the_range_to_a_node() -> Result<()> {
    let lab = Lab::new()?;
    let container =
        Container::on_top_of(&lab.remote, "eth0", "macvlan mode bridge", "192.168.50.61/24", REMOTE)?;
    let daemon = start(&lab)?;
    container.configure(&format!("route add {RANGE} via {AGENT}\n"))?;
    let seen = container.must_reach(Tcp, daemon.socket_of("near", 80)?, "A")?;
    ensure!(seen.to_string() == "192.168.50.61", "the server saw {seen}");
    lab.remote.configure(&format!("route add {RANGE} via {AGENT}\n"))?;
    must_reach_both(&daemon, &lab.remote, AGENT, REMOTE)
}

fn point_to_point_link() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::of(&lab.agent)?;
    lab.agent.configure(&format!(
        "addr add 10.22.0.1/32 dev {0}\nlink set {0} up\nroute add 10.22.0.2/32 dev {0}\n",
        container.port
    ))?;
    container.configure(
        "link set lo up\nlink set eth0 up\naddr add 10.22.0.2/24 dev eth0 noprefixroute\n\
         route add 10.22.0.1/32 dev eth0\nroute add default via 10.22.0.1\n",
    )?;
    lab.remote.configure(&format!("route add 10.22.0.0/24 via {AGENT}\n"))?;
    let daemon = start(&lab)?;
    must_reach_both(&daemon, &container, "10.22.0.2", "10.22.0.2")?;
    must_resolve(&container)
}

/// The CNI plugin `bridge` with `isGateway`, and `ipMasq` off or on.
fn bridge_without_masquerade_needs_a_way_back() -> Result<()> {
    let lab = Lab::new()?;
    let container = cni_bridge(&lab, Some("10.23.0.1"))?;
    let daemon = start(&lab)?;
    let far = daemon.socket_of("web", 80)?;
    let near = daemon.socket_of("near", 80)?;
    // As it would be without any VIP: the other machine does not know the way back.
    container.must_hear_nothing(far)?;
    container.must_reach(Tcp, near, "A")?;

    lab.remote.configure(&format!("route add 10.23.0.0/24 via {AGENT}\n"))?;
    must_reach_both(&daemon, &container, "10.23.0.2", "10.23.0.2")?;

    lab.agent.nft(
        "table ip cni {
           chain postrouting {
             type nat hook postrouting priority srcnat
             ip saddr 10.23.0.0/24 ip daddr != 10.23.0.0/24 masquerade
           }
         }",
    )?;
    must_reach_both(&daemon, &container, AGENT, "10.23.0.2")?;
    must_resolve(&container)
}

/// The CNI plugin `bridge` without `isGateway`, or a network whose routes lead elsewhere: the peer had a
/// plugin of its own for it, which balanced in the container.
fn network_without_a_way_out_needs_one_route() -> Result<()> {
    let lab = Lab::new()?;
    let container = cni_bridge(&lab, None)?;
    let daemon = start(&lab)?;
    container.must_find_no_way(daemon.socket_of("web", 80)?)?;

    lab.agent.configure("addr add 10.23.0.1/24 dev cni0\n")?;
    container.configure(&format!("route add {RANGE} via 10.23.0.1\nroute add {NAMES} via 10.23.0.1\n"))?;
    lab.remote.configure(&format!("route add 10.23.0.0/24 via {AGENT}\n"))?;
    must_reach_both(&daemon, &container, "10.23.0.2", "10.23.0.2")?;
    must_resolve(&container)?;
    // It still gets nowhere else.
    container.must_find_no_way(socket_address("192.168.50.2:8080"))
}

/// A container at 10.23.0.2 on a bridge of the agent's.
fn cni_bridge(lab: &Lab, gateway: Option<&str>) -> Result<Container> {
    let address = gateway.map(|gateway| format!("addr add {gateway}/24 dev cni0\n")).unwrap_or_default();
    lab.agent.configure(&format!("link add cni0 type bridge\n{address}link set cni0 up\n"))?;
    Container::on_bridge(&lab.agent, "cni0", "10.23.0.2/24", gateway)
}

/// With `"userland-proxy": false` a published port is nothing but a rule, and rules do not see what IPVS
/// sends to the node itself.
fn docker_port_needs_dockers_proxy() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    lab.publish_port(31080, 11, 8080)?;
    let task = Task::docker("web", AGENT, "172.17.1.11", 31080, 8080);
    let daemon = lab.start(&State::of([task.vip(WEB)]))?;
    let vip = daemon.socket_of("web", 80)?;
    for client in [&lab.agent, lab.container(12)] {
        client.must_be_refused(Tcp, vip)?;
    }
    lab.remote.must_reach(Tcp, socket_address("192.168.50.1:31080"), "C11")?;
    lab.agent.relay("0.0.0.0:31080", socket_address("172.17.1.11:8080"))?;
    for client in [&lab.agent, lab.container(12)] {
        client.must_reach(Tcp, vip, "C11")?;
    }
    Ok(())
}

/// A container on another Docker network of the agent's, which Docker keeps apart from `docker0`.
fn docker_isolated(lab: &Lab) -> Result<Container> {
    lab.agent.configure(
        "link add br-other type bridge\naddr add 172.18.0.1/16 dev br-other\nlink set br-other up\n",
    )?;
    let other = Container::on_bridge(&lab.agent, "br-other", "172.18.0.2/16", Some("172.18.0.1"))?;
    lab.agent.nft(
        "table ip isolation {
           chain user { }
           chain forward {
             type filter hook forward priority filter
             jump user
             iifname docker0 oifname br-other drop
             iifname br-other oifname docker0 drop
           }
         }",
    )?;
    Ok(other)
}

/// What goes from one Docker network to another is dropped by Docker itself, VIP or not.
fn docker_keeps_its_networks_apart() -> Result<()> {
    let lab = Lab::with_containers(&[11])?;
    let other = docker_isolated(&lab)?;
    other.serve("0.0.0.0:8080", "OTHER")?;
    let daemon = lab.start(&State::of([Task::container("web", AGENT, "172.18.0.2", 8080).vip(WEB)]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.container(11).must_hear_nothing(vip)?;
    lab.agent.must_reach(Tcp, vip, "OTHER")?;

    lab.agent.nft("add rule ip isolation user ct original ip daddr 11.0.0.0/8 accept\n")?;
    lab.container(11).must_reach(Tcp, vip, "OTHER")?;
    Ok(())
}

fn container_hears_nothing_from_itself_without_hairpin() -> Result<()> {
    let lab = Lab::with_containers(&[11, 12])?;
    lab.bridge_netfilter(true)?;
    lab.container(11).serve("0.0.0.0:8080", "C11")?;
    let daemon = lab.start(&State::of([Task::container("web", AGENT, "172.17.1.11", 8080).vip(WEB)]))?;
    let vip = daemon.socket_of("web", 80)?;
    lab.container(11).must_hear_nothing(vip)?;
    lab.container(12).must_reach(Tcp, vip, "C11")?;
    let (told, _) = daemon.status_command(&[])?;
    ensure!(told.contains("can't reach itself") && told.contains("hairpin"), "nobody is told: {told}");

    lab.hairpin(11, true)?;
    let seen = lab.container(11).must_reach(Tcp, vip, "C11")?;
    ensure!(seen.to_string() == "172.17.1.1", "the container saw {seen}");
    Ok(())
}
