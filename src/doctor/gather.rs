//! Reads everything that the checks go by. Nothing on the node is changed.
//!
//! Each part has a deadline, and all are read at once: one that hangs leaves a reason in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use reqwest::Method;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::facts::{
    ConfigFacts, DaemonFacts, FirewallFacts, KernelFacts, Known, NodeFacts, PlaceFacts, ResolverFacts,
};
use super::place::{NetworkPlace, apart, probe, visit};
use super::settings::DoctorSettings;
use crate::api::client::{self, ClientError};
use crate::dataplane::ebpf::Ebpf;
use crate::dataplane::firewall::{Chains, Hook};
use crate::dataplane::host::inventory::Surroundings;
use crate::dataplane::host::link::Routing;
use crate::dataplane::plane::ipvs::IpvsPlane;
use crate::dataplane::plane::{Plane, PlaneReading};
use crate::dataplane::{Depth, Node, PlaneKind};
use crate::status::Status;
use crate::units::program::{self, Failure};

pub mod proc;
mod servers;

/// Longest wait for the daemon, whose answer comes from a pass.
const DAEMON: Duration = Duration::from_secs(4);

/// Longest reading of anything else on the node.
const READING: Duration = Duration::from_secs(8);

/// Longest search for processes before they are visited.
const SEARCH: Duration = Duration::from_secs(3);

/// Containers that are visited.
const MAX_CONTAINERS: usize = 16;

/// Name that every daemon answers with an address of its node.
const NODE_NAME: &str = "thisnode.thisdcos.directory";

/// Directory that exists while systemd-resolved runs.
const RESOLVED: &str = "/run/systemd/resolve";

/// Directory of the module list in `iptables`' older tables.
const OLD_TABLES: &str = "/proc/net/ip_tables_names";

/// Reads everything.
pub async fn facts(settings: &DoctorSettings, config: ConfigFacts) -> NodeFacts {
    // Before the rest: its status tells the plane and the name that the other parts are about.
    let daemon = daemon(&settings.socket).await;
    let status = daemon.status.as_ref().ok();
    let name = name(status);
    let options = settings.kernel.clone();
    let mut kernel =
        apart("the kernel's settings", READING, move || proc::kernel(&options)).await.unwrap_or_default();
    let plane = plane(settings, status, &kernel);
    // With credentials in them, so no VIP may be in their way.
    let exemption = Ebpf::exempt_this_process(&settings.kernel.ebpf).ok().flatten();
    let wanted = wanted_sockets(settings);
    let (servers, table, network, neighbours, firewall, nft, sockets, programs, resolver, containers) = tokio::join!(
        servers::ask(settings),
        table(settings, plane, &kernel),
        network(settings),
        apart("the table of neighbours", READING, proc::neighbours),
        firewall(&kernel),
        command("nft", &["--version"]),
        apart("sockets", READING, move || proc::bound_sockets(wanted)),
        apart("processes", READING, proc::programs),
        resolver(name.as_ref().ok()),
        containers(name.as_ref().ok()),
    );
    drop(exemption);
    kernel.nft = nft.err();
    NodeFacts {
        is_root: geteuid().is_root(),
        config,
        kernel,
        plane,
        table,
        network,
        neighbours: neighbours.unwrap_or_default(),
        firewall,
        sockets,
        programs,
        name,
        resolver,
        containers,
        servers,
        daemon,
    }
}

/// Asks the daemon for its status.
pub async fn daemon(socket: &Path) -> DaemonFacts {
    let asked = timeout(DAEMON, client::ask(socket, Method::GET, "/status")).await;
    let (status, may_ask) = match asked {
        Ok(Ok(answer)) => (Ok(answer.status), true),
        Ok(Err(error @ ClientError::Denied(_))) => (Err(error.to_string()), false),
        Ok(Err(error)) => (Err(error.to_string()), true),
        Err(_) => {
            let seconds = DAEMON.as_secs();
            (Err(format!("the daemon on {} does not answer within {seconds} s", socket.display())), true)
        }
    };
    // The kernel names the process that listens, whether that answers or not.
    let process = match UnixStream::connect(socket).await {
        Ok(stream) => {
            getsockopt(&stream, PeerCredentials).ok().and_then(|peer| u32::try_from(peer.pid()).ok())
        }
        Err(_) => None,
    };
    // A process that is not in this PID namespace has the number 0.
    let process = process.filter(|process| *process > 0);
    let capabilities = match process {
        Some(process) => i32::try_from(process).map_err(|error| error.to_string()).and_then(|process| {
            caps::read(Some(process), caps::CapSet::Effective).map_err(|error| error.to_string())
        }),
        None => Err("no daemon runs whose process could be looked at".to_owned()),
    };
    DaemonFacts { status, may_ask, process, capabilities }
}

/// Chooses a name to try: that of a VIP, else the node's own.
fn name(status: Option<&Status>) -> Known<(String, IpAddr)> {
    let Some(status) = status else {
        return Err("no daemon answers, so that no name can be tried".to_owned());
    };
    let named = status.vips.iter().find_map(|vip| Some((vip.name.clone()?, vip.address)));
    let own = status.node.address.map(|address| (NODE_NAME.to_owned(), address));
    named.or(own).ok_or_else(|| "the daemon has no name yet that could be tried".to_owned())
}

/// Returns the data plane of the daemon, else the one that it would choose.
pub fn plane(settings: &DoctorSettings, status: Option<&Status>, kernel: &KernelFacts) -> PlaneKind {
    let running = status.map(|status| status.node.dataplane.plane);
    running.or(settings.kernel.plane).unwrap_or_else(|| {
        let is_there =
            kernel.has_ipvs || kernel.available.as_ref().is_none_or(|available| available.contains("ip_vs"));
        if is_there { PlaneKind::Ipvs } else { PlaneKind::Ebpf }
    })
}

/// Reads the table of the plane, without loading its module.
pub async fn table(settings: &DoctorSettings, plane: PlaneKind, kernel: &KernelFacts) -> Known<PlaneReading> {
    let options = settings.kernel.ebpf.clone();
    match plane {
        PlaneKind::Ipvs if !kernel.has_ipvs => Err("the module ip_vs is not loaded".to_owned()),
        PlaneKind::Ipvs => {
            let read = || IpvsPlane::open()?.read(Depth::Full);
            apart("IPVS", READING, read).await?.map_err(|error| error.to_string())
        }
        PlaneKind::Ebpf => {
            let read = move || Ebpf::look(&options).map(PlaneReading::from);
            apart("eBPF", READING, read).await?.map_err(|error| error.to_string())
        }
    }
}

async fn network(settings: &DoctorSettings) -> Known<(Node, Surroundings)> {
    let read = async {
        let routing = Routing::open(&settings.kernel.link).map_err(|error| error.to_string())?;
        let (inventory, surroundings) = routing.survey().await.map_err(|error| error.to_string())?;
        Ok((inventory.node, surroundings))
    };
    timeout(READING, read).await.unwrap_or_else(|_| Err("the kernel does not answer".to_owned()))
}

/// Lists the chains of netfilter, and the rules of tables with one that drops.
async fn firewall(kernel: &KernelFacts) -> Known<FirewallFacts> {
    // Asking would load the module, and without it there is no chain.
    let is_unloaded = |module: &str| {
        !kernel.loaded.contains(module)
            && kernel.available.as_ref().is_some_and(|available| available.contains(module))
    };
    let mut facts = FirewallFacts::default();
    if !is_unloaded("nf_tables") {
        facts.chains = Chains::parse(&command("nft", &["-j", "list", "chains"]).await?);
        let hooks = [Hook::Input, Hook::Forward, Hook::Output];
        let dropping = hooks.into_iter().flat_map(|hook| facts.chains.dropping(hook));
        let mut tables: BTreeSet<(String, String)> =
            dropping.map(|(family, table, _)| (family.to_owned(), table.to_owned())).collect();
        // firewalld refuses by a rule, and Docker keeps its networks apart by rules.
        tables.extend(facts.chains.has("filter_INPUT").then(|| ("inet".to_owned(), "firewalld".to_owned())));
        tables.extend(facts.chains.has("DOCKER-USER").then(|| ("ip".to_owned(), "filter".to_owned())));
        for (family, table) in tables {
            let listed = command("nft", &["-s", "list", "table", &family, &table]).await;
            facts.rules.insert((family, table), listed.unwrap_or_default());
        }
    }
    // Where the table is not there, the command would load the module that makes it.
    if proc::read(OLD_TABLES).lines().any(|table| table == "filter") {
        facts.old = command("iptables-legacy", &["-S"]).await.unwrap_or_default();
    }
    Ok(facts)
}

/// Runs a program of the node that lists something, and returns what it prints.
async fn command(program: &str, arguments: &[&str]) -> Known<String> {
    program::run(program, arguments, "", READING).await.map_err(|failure| match failure {
        Failure::Says(_) => format!("{program} says: {failure}"),
        failure => format!("{program}: {failure}"),
    })
}

/// Returns a function that tells the sockets that matter: on ports of the DNS server, and on addresses of VIPs.
fn wanted_sockets(settings: &DoctorSettings) -> impl Fn(SocketAddr) -> bool + Send + 'static {
    let (listen, ranges) = (settings.listen.clone(), settings.ranges);
    move |address| {
        listen.iter().any(|wanted| wanted.port() == address.port())
            || ranges.iter().any(|range| range.contains(address.ip()))
    }
}

/// Has the resolver of this node resolve the name, and asks its servers.
async fn resolver(name: Option<&(String, IpAddr)>) -> Known<ResolverFacts> {
    let (name, address) = name.ok_or("there is no name to try")?.clone();
    let (wanted, ipv4) = (name.clone(), address.is_ipv4());
    let resolve = move || {
        let found = (wanted.as_str(), 0).to_socket_addrs();
        found.map(|found| found.map(|address| address.ip()).collect()).map_err(|error| error.to_string())
    };
    let (resolved, place) = tokio::join!(
        apart("the node's resolver", READING, resolve),
        visit(&NetworkPlace::Node, move |files| probe(files, name, ipv4))
    );
    Ok(ResolverFacts {
        resolved: resolved.and_then(|resolved| resolved),
        place: place?,
        has_resolved: Path::new(RESOLVED).exists(),
    })
}

/// Asks the servers of each container's resolver.
async fn containers(name: Option<&(String, IpAddr)>) -> Known<Vec<(String, Known<PlaceFacts>)>> {
    let (name, address) = name.ok_or("there is no name to try")?.clone();
    if !geteuid().is_root() {
        return Err("only root may enter containers".to_owned());
    }
    let (processes, count) = apart("processes", SEARCH, || proc::namespaces(MAX_CONTAINERS)).await?;
    let ipv4 = address.is_ipv4();
    let mut visits = tokio::task::JoinSet::new();
    for process in processes {
        let name = name.clone();
        visits.spawn(async move {
            let visited =
                visit(&NetworkPlace::Container(process), move |files| probe(files, name, ipv4)).await;
            (process, visited)
        });
    }
    let visited: BTreeMap<u32, Known<PlaceFacts>> = visits.join_all().await.into_iter().collect();
    let mut found: Vec<(String, Known<PlaceFacts>)> = visited
        .into_iter()
        .map(|(process, facts)| (format!("process {process} ({})", proc::name(process)), facts))
        .collect();
    if count > found.len() {
        let left_out = count - found.len();
        found.push((format!("{left_out} more containers"), Err("not looked at: too many".to_owned())));
    }
    Ok(found)
}
