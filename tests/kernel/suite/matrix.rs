//! Every kind of client with every kind of VIP, as in the integration test of the peer that l4lbd
//! replaces: what runs the task × its network × the client's network × named or literal × the same
//! agent or another one.
//!
//! The client is always on the agent with the daemon and the task is here or on the other agent: all
//! that l4lbd does for a connection it does on the client's node, so a daemon over there would take no
//! part in it.
//!
//! ```text
//!                      ┌ docker0 172.17.1.1 ──────── server .11, client .12
//!        agent         ├ mesos-bridge 172.31.254.1 ─ server .11, client .12
//!  lan 192.168.50.1 ───┼ user 9.0.1.1 ────────────── server .11, client .12
//!  vtep 44.128.0.1     └ other 9.1.1.1 ───────────── client .12
//!        other agent   ┌ bridge 172.17.2.1 ───────── server .11
//!  lan 192.168.50.2 ───┴ user 9.0.2.1 ────────────── server .11
//!  vtep 44.128.0.2
//! ```
//!
//! The user networks are joined by an overlay (VXLAN) on which containers keep their addresses; what
//! leaves the bridges or the overlay is masqueraded by the networks' own rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};

use super::tests;
use crate::toolkit::container::Container;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Outcome;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::host::Host;
use crate::toolkit::lab::{AGENT, Lab, REMOTE, socket_address};
use crate::toolkit::plane::{self, Plane};
use crate::toolkit::state::{Runner, State, Task};

tests!["matrix":
    every_client_reaches_every_kind_of_vip,
];

/// The network that the VIP's task is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Host,
    Bridge,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Named,
    Literal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    SameAgent,
    OtherAgent,
}

/// The network that the client is on; of bridges there are two kinds, and of user networks two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Host,
    DockerBridge,
    MesosBridge,
    User,
    OtherUser,
}

const CLIENTS: [Client; 5] =
    [Client::Host, Client::DockerBridge, Client::MesosBridge, Client::User, Client::OtherUser];

/// One VIP with the one task behind it.
#[derive(Debug, Clone, Copy)]
struct Served {
    runner: Runner,
    network: Network,
    form: Form,
    place: Place,
    /// Makes its ports and addresses its own: IPVS confuses VIPs that share a backend.
    number: u8,
}

/// The port of every VIP, which an unrelated container has published on the clients' agent.
const PORT: u16 = 80;

const GATEWAY_DOCKER: &str = "172.17.1.1";
const GATEWAY_MESOS: &str = "172.31.254.1";
const GATEWAY_USER: &str = "9.0.1.1";
const VTEP: &str = "44.128.0.1";

impl Client {
    fn address(self) -> &'static str {
        match self {
            Self::Host => AGENT,
            Self::DockerBridge => "172.17.1.12",
            Self::MesosBridge => "172.31.254.12",
            Self::User => "9.0.1.12",
            Self::OtherUser => "9.1.1.12",
        }
    }

    /// Whom each server sees: with eBPF whom it sees without any VIP.
    fn seen(self, host: &Host, dialled: &[(&Served, SocketAddr)]) -> Result<Vec<IpAddr>> {
        if plane::current() == Plane::Ipvs {
            return dialled.iter().map(|(served, _)| Ok(self.seen_through_ipvs(served).parse()?)).collect();
        }
        let outcomes = host.dial_all(dialled.iter().map(|(served, _)| served.published()).collect())?;
        let seen = outcomes.into_iter().zip(dialled).map(|(outcome, (served, _))| match outcome {
            Outcome::Answered { server, client } if server == served.name() => Ok(client),
            other => bail!("{self:?} dials {} itself: {other:?}", served.name()),
        });
        seen.collect()
    }

    fn seen_through_ipvs(self, served: &Served) -> &'static str {
        match (served.place, served.network) {
            (Place::SameAgent, Network::Host) => self.address(),
            // Docker's proxy opens a connection of its own.
            (Place::SameAgent, Network::Bridge) if served.runner == Runner::Docker => GATEWAY_DOCKER,
            // From its own bridge by our rule, from elsewhere by those of the clients' networks, which let
            // nobody out unmasked.
            (Place::SameAgent, Network::Bridge) => GATEWAY_MESOS,
            // Both user networks are on the overlay.
            (Place::SameAgent, Network::User) if self == Self::OtherUser => self.address(),
            (Place::SameAgent, Network::User) => GATEWAY_USER,
            (Place::OtherAgent, Network::Host | Network::Bridge) => AGENT,
            (Place::OtherAgent, Network::User) => match self {
                Self::User | Self::OtherUser => self.address(),
                Self::Host | Self::DockerBridge | Self::MesosBridge => VTEP,
            },
        }
    }
}

impl Served {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for runner in [Runner::Command, Runner::Docker, Runner::Mesos, Runner::Pod] {
            for network in [Network::Host, Network::Bridge, Network::User] {
                // Without a container there is nothing that could be on another network.
                if runner == Runner::Command && network != Network::Host {
                    continue;
                }
                for form in [Form::Named, Form::Literal] {
                    for place in [Place::SameAgent, Place::OtherAgent] {
                        let number = u8::try_from(all.len()).expect("few of them");
                        all.push(Self { runner, network, form, place, number });
                    }
                }
            }
        }
        all
    }

    /// Of its task, and of its VIP.
    fn name(&self) -> String {
        format!("{:?}-{:?}-{:?}-{:?}", self.runner, self.network, self.form, self.place).to_lowercase()
    }

    fn full_name(&self) -> String {
        format!("{}.marathon.l4lb.thisdcos.directory", self.name())
    }

    /// Of a literal VIP, from the block that the peer's test takes them from.
    fn literal(&self) -> IpAddr {
        IpAddr::from([198, 51, 100, 100 + self.number])
    }

    fn label(&self) -> String {
        match self.form {
            Form::Named => format!("/{}:{PORT}", self.name()),
            Form::Literal => format!("{}:{PORT}", self.literal()),
        }
    }

    fn port(&self) -> u16 {
        8000 + u16::from(self.number)
    }

    fn host_port(&self) -> u16 {
        31000 + u16::from(self.number)
    }

    fn agent(&self) -> &'static str {
        match self.place {
            Place::SameAgent => AGENT,
            Place::OtherAgent => REMOTE,
        }
    }

    /// Of the server itself, wherever it is published.
    fn address(&self) -> &'static str {
        match (self.network, self.place) {
            (Network::Host, _) => self.agent(),
            (Network::Bridge, Place::SameAgent) if self.runner == Runner::Docker => "172.17.1.11",
            (Network::Bridge, Place::SameAgent) => "172.31.254.11",
            (Network::Bridge, Place::OtherAgent) => "172.17.2.11",
            (Network::User, Place::SameAgent) => "9.0.1.11",
            (Network::User, Place::OtherAgent) => "9.0.2.11",
        }
    }

    /// Where its task is for other nodes.
    fn published(&self) -> SocketAddr {
        let (address, port) = match self.network {
            Network::Host => (self.agent(), self.port()),
            Network::Bridge => (self.agent(), self.host_port()),
            Network::User => (self.address(), self.port()),
        };
        socket_address(&format!("{address}:{port}"))
    }

    fn task(&self) -> Task {
        let (name, agent, address) = (self.name(), self.agent(), self.address());
        let task = match self.network {
            Network::Host => Task::host(&name, agent, self.port()),
            Network::Bridge => Task::mapped(&name, agent, address, self.host_port(), self.port()),
            Network::User => Task::container(&name, agent, address, self.port()),
        };
        task.run_by(self.runner).vip(&self.label())
    }
}

/// The lab with all networks of both agents.
struct Field {
    lab: Lab,
    docker_client: Container,
    mesos_client: Container,
    user_client: Container,
    other_user_client: Container,
    docker_server: Container,
    mesos_server: Container,
    user_server: Container,
    remote_bridge_server: Container,
    remote_user_server: Container,
}

impl Field {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        lab.agent.configure(&bridges(&[
            ("docker0", GATEWAY_DOCKER),
            ("mesos-bridge", GATEWAY_MESOS),
            ("user", GATEWAY_USER),
            ("other", "9.1.1.1"),
        ]))?;
        lab.agent.configure(&overlay("lan", AGENT, REMOTE, VTEP, "9.0.2.0/24 via 44.128.0.2"))?;
        lab.agent.nft(
            "table ip networks {
               chain postrouting {
                 type nat hook postrouting priority srcnat
                 ip saddr 172.17.1.0/24 oifname != \"docker0\" masquerade
                 ip saddr 172.31.254.0/24 ip daddr != 172.31.254.0/24 masquerade
                 ip saddr 9.0.0.0/8 ip daddr != 9.0.0.0/8 masquerade
               }
             }",
        )?;
        // Docker's default, and the harder one for those on the task's own bridge.
        lab.bridge_netfilter(true)?;
        lab.remote.sysctl("net.ipv4.ip_forward", "1")?;
        lab.remote.configure(&bridges(&[("bridge", "172.17.2.1"), ("user", "9.0.2.1")]))?;
        lab.remote.configure(&overlay("eth0", REMOTE, AGENT, "44.128.0.2", "9.0.1.0/24 via 44.128.0.1"))?;
        lab.remote.configure("route add 9.1.1.0/24 via 44.128.0.1 dev vtep\n")?;

        let on = |node: &Host, bridge: &str, address: &str| {
            let (network, _) = address.rsplit_once('.').context("an IPv4 address")?;
            Container::on_bridge(node, bridge, &format!("{address}/24"), Some(&format!("{network}.1")))
        };
        Ok(Self {
            docker_client: on(&lab.agent, "docker0", Client::DockerBridge.address())?,
            mesos_client: on(&lab.agent, "mesos-bridge", Client::MesosBridge.address())?,
            user_client: on(&lab.agent, "user", Client::User.address())?,
            other_user_client: on(&lab.agent, "other", Client::OtherUser.address())?,
            docker_server: on(&lab.agent, "docker0", "172.17.1.11")?,
            mesos_server: on(&lab.agent, "mesos-bridge", "172.31.254.11")?,
            user_server: on(&lab.agent, "user", "9.0.1.11")?,
            remote_bridge_server: on(&lab.remote, "bridge", "172.17.2.11")?,
            remote_user_server: on(&lab.remote, "user", "9.0.2.11")?,
            lab,
        })
    }

    fn client(&self, client: Client) -> &Host {
        match client {
            Client::Host => &self.lab.agent,
            Client::DockerBridge => &self.docker_client,
            Client::MesosBridge => &self.mesos_client,
            Client::User => &self.user_client,
            Client::OtherUser => &self.other_user_client,
        }
    }

    fn server(&self, served: &Served) -> &Host {
        match (served.network, served.place) {
            (Network::Host, Place::SameAgent) => &self.lab.agent,
            (Network::Host, Place::OtherAgent) => &self.lab.remote,
            (Network::Bridge, Place::SameAgent) if served.runner == Runner::Docker => &self.docker_server,
            (Network::Bridge, Place::SameAgent) => &self.mesos_server,
            (Network::Bridge, Place::OtherAgent) => &self.remote_bridge_server,
            (Network::User, Place::SameAgent) => &self.user_server,
            (Network::User, Place::OtherAgent) => &self.remote_user_server,
        }
    }

    /// Starts the servers, and publishes the ports of those on bridges as their runtimes do.
    fn serve(&self, all: &[Served]) -> Result<()> {
        let mut published: BTreeMap<&str, Vec<(u16, SocketAddr)>> = BTreeMap::new();
        for served in all {
            self.server(served).serve(&format!("0.0.0.0:{}", served.port()), &served.name())?;
            if served.network == Network::Bridge {
                let to = socket_address(&format!("{}:{}", served.address(), served.port()));
                published.entry(served.agent()).or_default().push((served.host_port(), to));
                if served.runner == Runner::Docker && served.place == Place::SameAgent {
                    self.lab.agent.relay(&format!("0.0.0.0:{}", served.host_port()), to)?;
                }
            }
        }
        // An unrelated container on the clients' agent has the VIPs' port.
        self.docker_server.serve("0.0.0.0:7777", "THIEF")?;
        let thief = socket_address("172.17.1.11:7777");
        published.entry(AGENT).or_default().push((PORT, thief));
        self.lab.agent.relay(&format!("0.0.0.0:{PORT}"), thief)?;
        for (agent, mappings) in published {
            let agent = if agent == AGENT { &self.lab.agent } else { &self.lab.remote };
            agent.publish_ports(&mappings)?;
        }
        Ok(())
    }
}

fn bridges(wanted: &[(&str, &str)]) -> String {
    wanted
        .iter()
        .map(|(name, address)| {
            format!("link add {name} type bridge\naddr add {address}/24 dev {name}\nlink set {name} up\n")
        })
        .collect()
}

fn overlay(link: &str, own: &str, peer: &str, address: &str, route: &str) -> String {
    format!(
        "link add vtep type vxlan id 1024 dev {link} local {own} remote {peer} dstport 64000\n\
         addr add {address}/20 dev vtep\nlink set vtep up\nroute add {route} dev vtep\n"
    )
}

/// The addresses of named VIPs, as the daemon answers them to a client.
fn resolve(client: &Host, all: &[Served]) -> Result<BTreeMap<String, IpAddr>> {
    let mut program: Vec<String> =
        ["dig", "@198.51.100.1", "+noall", "+answer", "+time=15", "+tries=1"].map(str::to_owned).into();
    program.extend(all.iter().filter(|served| served.form == Form::Named).map(Served::full_name));
    let answer = client.run(&program.iter().map(String::as_str).collect::<Vec<_>>())?;
    let record = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, _, "IN", "A", address] = words[..] else { return None };
        Some((name.trim_end_matches('.').to_owned(), address.parse().ok()?))
    };
    Ok(answer.lines().filter_map(record).collect())
}

/// What is wrong with a client's connections to all VIPs, one line for each.
fn failures(field: &Field, client: Client, all: &[Served]) -> Result<Vec<String>> {
    let host = field.client(client);
    let names = resolve(host, all)?;
    let mut failures = Vec::new();
    let mut dialled = Vec::new();
    for served in all {
        let address = match served.form {
            Form::Named => names.get(&served.full_name()).copied(),
            Form::Literal => Some(served.literal()),
        };
        match address {
            Some(address) => dialled.push((served, SocketAddr::new(address, PORT))),
            None => failures.push(format!("{client:?} → {}: the name is not answered", served.name())),
        }
    }
    let outcomes = host.dial_all(dialled.iter().map(|(_, to)| *to).collect())?;
    ensure!(outcomes.len() == dialled.len(), "{client:?}: {} outcomes", outcomes.len());
    let seen = client.seen(host, &dialled)?;
    for (((served, to), outcome), seen) in dialled.into_iter().zip(outcomes).zip(seen) {
        if outcome != (Outcome::Answered { server: served.name(), client: seen }) {
            failures.push(format!(
                "{client:?} → {} at {to}: {outcome:?}, wanted it to see {seen}",
                served.name()
            ));
        }
    }
    Ok(failures)
}

/// Nothing about any client's namespace is known to the daemon, and nothing is set up in one.
fn every_client_reaches_every_kind_of_vip() -> Result<()> {
    let all = Served::all();
    let field = Field::new()?;
    field.serve(&all)?;
    let daemon = field.lab.start(&State::of(all.iter().map(Served::task)))?;
    all_are_served(&daemon, &all)?;

    let mut failed = Vec::new();
    for client in CLIENTS {
        failed.extend(failures(&field, client, &all)?);
    }
    let cells = CLIENTS.len() * all.len();
    ensure!(failed.is_empty(), "{} of {cells} fail:\n{}", failed.len(), failed.join("\n"));

    // The published port that all of them passed by does work for those whom it is meant for.
    field.lab.remote.must_reach(Tcp, socket_address(&format!("{AGENT}:{PORT}")), "THIEF")?;
    Ok(())
}

fn all_are_served(daemon: &Daemon<'_>, all: &[Served]) -> Result<()> {
    daemon.await_dns()?;
    let status = daemon.status()?;
    ensure!(
        status.vips.len() == all.len() && status.skipped.is_empty(),
        "{} VIPs are served instead of {}: {}",
        status.vips.len(),
        all.len(),
        status.text
    );
    Ok(())
}
