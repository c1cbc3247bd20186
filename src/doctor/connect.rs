//! The path of one connection: name, address, service, backends, and who answers.
//!
//! Every step is a finding, and the first fault names the step that fails. Steps behind it that say more are taken
//! all the same: dead backends explain a VIP that does not answer.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream as BlockingStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::facts::{DaemonFacts, Known, PlaceFacts};
use super::finding::Finding;
use super::gather::{self, proc};
use super::judge::names::why;
use super::place::{NetworkPlace, apart, probe, visit};
use super::resolver::{AskOutcome, lookup};
use super::settings::DoctorSettings;
use crate::cluster::Protocol;
use crate::dataplane::{PlaneKind, ServiceKey};
use crate::status::{Backend, Status, Vip};

/// Longest wait for a connection.
const DIAL: Duration = Duration::from_secs(3);

/// Longest look for the backend that was chosen.
const LOOK: Duration = Duration::from_secs(3);

/// Longest lookup by the node's own resolver.
const LOOKUP: Duration = Duration::from_secs(6);

/// Backends that are dialled.
const MAX_DIALLED: usize = 64;

/// Octets of the kernel's list of connections that are read: those of a million connections.
const MAX_CONNECTIONS: u64 = 256 << 20;

/// Host and port of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    pub port: u16,
}

impl std::str::FromStr for Target {
    type Err = String;

    /// Reads `NAME:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        // Before the split at a colon: an IPv6 address has colons of its own.
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let wrong = || "must be NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_name =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let port = port.parse().ok().filter(|port| *port > 0);
        port.filter(|_| is_name && host.len() <= 253)
            .map(|port| Self { host: host.to_owned(), port })
            .ok_or_else(wrong)
    }
}

/// Connection that came about.
struct Dialled {
    millis: u128,
    local: SocketAddr,
    /// Peer of the socket as the kernel has it, which is the backend where programs change it.
    peer: Option<SocketAddr>,
    /// Kept open until it was looked for.
    stream: BlockingStream,
}

/// Walks the path of a connection from a place.
pub async fn walk(settings: &DoctorSettings, place: &NetworkPlace, target: &Target) -> Vec<Finding> {
    let daemon = gather::daemon(&settings.socket).await;
    let status = daemon.status.as_ref().ok();
    let mut steps = Vec::new();
    let (step, address) = name(settings, place, target, status).await;
    steps.push(step);
    let Some(address) = address else { return steps };
    let address = SocketAddr::new(address, target.port);
    let ServiceSteps { found, backends, protocol, plane } = service(settings, &daemon, address).await;
    let has_service = backends.is_some();
    steps.extend(found);
    let chosen = backends.unwrap_or_default();
    if protocol == Protocol::Udp {
        steps.push(Finding::skipped(
            "connect",
            "the VIP is for UDP, which has no handshake that could be timed",
        ));
        return steps;
    }
    steps.extend(dial_each(&chosen).await);
    // Programs at a control group see the sockets of its processes alone.
    if let Some(group) = settings.kernel.ebpf.cgroup.as_ref().filter(|_| !settings.has_packets(plane))
        && !proc::is_in_cgroup(group)
    {
        let group = group.display();
        let step = "only processes in the control group reach VIPs (ebpf.cgroup), and this command is in another one";
        let step = Finding::skipped("connect", step).at(group.to_string());
        steps.push(step.mended_by(format!("echo $$ > {group}/cgroup.procs, in the shell that starts it")));
        return steps;
    }
    steps.push(connect(place, address, &chosen, has_service).await);
    steps
}

/// The first step: what the name is here.
async fn name(
    settings: &DoctorSettings,
    place: &NetworkPlace,
    target: &Target,
    status: Option<&Status>,
) -> (Finding, Option<IpAddr>) {
    const STEP: &str = "name";
    if let Ok(address) = target.host.parse() {
        return (
            Finding::ok(STEP, "is an address, so that nothing is asked").at(target.host.as_str()),
            Some(address),
        );
    }
    // DNS does not tell upper from lower case, and a dot at the end stands for the root.
    let is_meant = |vip: &&Vip| {
        vip.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(target.host.trim_end_matches('.')))
    };
    let expected = status.and_then(|status| status.vips.iter().find(is_meant)).map(|vip| vip.address);
    let ipv4 = expected.is_none_or(|address| address.is_ipv4());
    let (host, asked) = (target.host.clone(), target.host.clone());
    let started = Instant::now();
    let (place_facts, resolved) =
        tokio::join!(visit(place, move |files| probe(files, host, ipv4)), resolve(place, asked, ipv4));
    let took = started.elapsed().as_millis();
    let facts = match place_facts {
        Ok(facts) => facts,
        Err(reason) => return (Finding::fault(STEP, reason).at(place.to_string()), None),
    };
    let (answer, by) = answer(&facts, target, resolved);
    let finding = match (&answer, expected) {
        (Some(found), Some(expected)) if *found != expected => Finding::fault(
            STEP,
            format!("is {found} by {by}, and the VIP has {expected}: another server answers for the zone, or an old answer was kept"),
        )
        .mended_by("l4lbd doctor"),
        (Some(found), _) => Finding::ok(STEP, format!("is {found} by {by}, in {took} ms")),
        (None, Some(expected)) => {
            let why = why(&facts, &target.host, Some(expected), settings);
            Finding::fault(STEP, format!("does not resolve here: {why}")).mended_by("l4lbd doctor")
        }
        (None, None) => {
            let why = why(&facts, &target.host, None, settings);
            let finding = Finding::fault(STEP, format!("does not resolve here: {why}{}", unknown(target, status)));
            finding.mended_by("l4lbd status; l4lbd doctor")
        }
    };
    // The rest of the path says more, even if the name does not lead to it.
    (finding.at(target.host.as_str()), answer.or(expected))
}

/// Asks the node's own resolver, which goes by more than its file.
async fn resolve(place: &NetworkPlace, host: String, ipv4: bool) -> Option<Known<Vec<IpAddr>>> {
    // libc goes by the files of this node, which say nothing of what another place gets.
    if *place != NetworkPlace::Node {
        return None;
    }
    let lookup = move || {
        let found = (host.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string())?;
        // getaddrinfo(3) gives addresses of both families, and a VIP is compared with its own one.
        Ok(found.map(|address| address.ip()).filter(|address| address.is_ipv4() == ipv4).collect())
    };
    Some(apart("the node's resolver", LOOKUP, lookup).await.and_then(|found| found))
}

/// Returns the address that a program gets, and who gave it.
fn answer(
    facts: &PlaceFacts,
    target: &Target,
    resolved: Option<Known<Vec<IpAddr>>>,
) -> (Option<IpAddr>, String) {
    if let Some(resolved) = resolved {
        return (resolved.ok().and_then(|found| found.first().copied()), "the node's resolver".to_owned());
    }
    let found = facts.file.as_ref().ok().map(|file| lookup(facts.libc, file, &target.host, &facts.replies));
    match found {
        Some(AskOutcome::Found { addresses, server }) => (addresses.first().copied(), server.to_string()),
        _ => (None, String::new()),
    }
}

/// Returns what the daemon says of a name that no VIP has.
fn unknown(target: &Target, status: Option<&Status>) -> String {
    let Some(status) = status else { return String::new() };
    let label = target.host.split('.').next().unwrap_or_default();
    // A label has the name between a slash and a port, as in `/web:80`.
    let is_like = |value: &str| !label.is_empty() && value.contains(&format!("/{label}:"));
    let mut skipped =
        status.skipped.iter().filter_map(|skipped| Some((skipped.value.as_deref()?, &skipped.reason)));
    match skipped.find(|(value, _)| is_like(value)) {
        Some((value, reason)) => format!("; l4lbd skips the label {value}: {reason}"),
        None => "; no VIP of l4lbd has this name".to_owned(),
    }
}

/// Steps from an address to its backends.
struct ServiceSteps {
    found: Vec<Finding>,
    /// Absent without a service.
    backends: Option<Vec<Backend>>,
    protocol: Protocol,
    plane: PlaneKind,
}

/// The second to fourth step: the address, the service at it and its backends.
async fn service(settings: &DoctorSettings, daemon: &DaemonFacts, address: SocketAddr) -> ServiceSteps {
    let status = daemon.status.as_ref().ok();
    let options = settings.kernel.clone();
    let kernel = apart("the kernel", LOOK, move || proc::kernel(&options)).await.unwrap_or_default();
    let plane = gather::plane(settings, status, &kernel);
    let table = gather::table(settings, plane, &kernel).await;
    let vips = status.map(|status| status.vips.as_slice()).unwrap_or_default();
    let of_address: Vec<&Vip> = vips.iter().filter(|vip| vip.address == address.ip()).collect();
    let key = |protocol| ServiceKey { protocol, address: address.ip(), port: address.port() };
    let has = |protocol: Protocol| match &table {
        Ok(table) => table.services.contains_key(&key(protocol)),
        Err(_) => of_address.iter().any(|vip| vip.port == address.port() && vip.protocol == protocol),
    };
    // One port may have a service of each protocol, and only one of TCP can be dialled.
    let protocol = match (has(Protocol::Tcp), has(Protocol::Udp)) {
        (false, true) => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let known: Option<&Vip> =
        of_address.iter().copied().find(|vip| vip.port == address.port() && vip.protocol == protocol);
    let mut steps = Vec::new();
    // An address is that of a VIP if the kernel or the daemon has any service at it.
    let in_kernel =
        table.as_ref().is_ok_and(|table| table.services.keys().any(|key| key.address == address.ip()));
    let in_range = settings.ranges.iter().any(|range| range.contains(address.ip()));
    let is_vip = in_kernel || !of_address.is_empty();
    steps.push(
        match (is_vip, in_range) {
            (true, _) => Finding::ok("address", "is that of a VIP"),
            (false, true) => {
                Finding::fault("address", "is in the range of VIPs, and no VIP of this node has it")
                    .mended_by("l4lbd status; l4lbd plan")
            }
            (false, false) => {
                Finding::warning("address", "is not that of a VIP: l4lbd has no part in this connection")
            }
        }
        .at(address.ip().to_string()),
    );
    let shown = key(protocol).to_string();
    let source = match &table {
        Ok(_) => plane.to_string(),
        Err(reason) => format!("by the daemon, the kernel was not asked: {reason}"),
    };
    if !has(protocol) {
        let ports: Vec<String> =
            of_address.iter().map(|vip| format!("{} {}", vip.protocol, vip.port)).take(MAX_DIALLED).collect();
        let finding = match (known, is_vip) {
            (Some(_), _) => {
                Finding::fault("service", format!("the daemon has it and the kernel does not ({source})"))
                    .mended_by("l4lbd status; l4lbd plan")
            }
            (None, true) => Finding::fault(
                "service",
                format!("there is none at this port; the VIP has {}", ports.join(", ")),
            )
            .mended_by("correct the port, or the label of the task"),
            (None, false) => Finding::skipped("service", "there is none at this address"),
        };
        steps.push(finding.at(shown));
        return ServiceSteps { found: steps, backends: None, protocol, plane };
    }
    steps.push(Finding::ok("service", format!("is in the kernel ({source})")).at(shown.as_str()));
    // The kernel's own servers, with what the daemon knows of them.
    let backends: Vec<Backend> = match &table {
        Ok(table) => {
            let servers = table.services.get(&key(protocol)).map(|service| service.servers.clone());
            let servers = servers.unwrap_or_default();
            servers.iter().map(|(server, real)| of_kernel(*server, real.weight, known)).collect()
        }
        Err(_) => known.map(|vip| vip.backends.clone()).unwrap_or_default(),
    };
    let ready = backends.iter().filter(|backend| backend.weight > 0).count();
    let text = format!("{} in all, {ready} take new connections", backends.len());
    steps.push(
        match (backends.len(), ready) {
            (0, _) => Finding::fault("backends", "the service has none: connections are refused"),
            (_, 0) => Finding::fault("backends", format!("{text}: connections are refused")),
            _ => Finding::ok("backends", text),
        }
        .at(shown),
    );
    ServiceSteps { found: steps, backends: Some(backends), protocol, plane }
}

fn of_kernel(server: SocketAddr, weight: u32, known: Option<&Vip>) -> Backend {
    let of_daemon = known.and_then(|vip| {
        vip.backends.iter().find(|backend| SocketAddr::new(backend.address, backend.port) == server)
    });
    let unknown = || Backend {
        address: server.ip(),
        port: server.port(),
        weight,
        condition: None,
        until: None,
        task: String::new(),
        agent: String::new(),
        connections: None,
        connects: None,
        ejected: None,
        traffic: None,
        share: None,
    };
    of_daemon.map_or_else(unknown, |backend| Backend { weight, ..backend.clone() })
}

/// The fifth step: each backend by itself, from this node.
async fn dial_each(backends: &[Backend]) -> Vec<Finding> {
    const STEP: &str = "backend";
    let mut dials = JoinSet::new();
    for (place, backend) in backends.iter().take(MAX_DIALLED).cloned().enumerate() {
        dials.spawn(async move {
            let address = SocketAddr::new(backend.address, backend.port);
            let started = Instant::now();
            let dialled = timeout(DIAL, TcpStream::connect(address)).await;
            let task =
                if backend.task.is_empty() { String::new() } else { format!(", task {}", backend.task) };
            let finding = match dialled {
                Ok(Ok(_)) => {
                    Finding::ok(STEP, format!("answers in {} ms{task}", started.elapsed().as_millis()))
                }
                failed => {
                    let why = match failed {
                        Ok(Err(error)) => dial_error(&error),
                        _ => format!("no answer in {} s", DIAL.as_secs()),
                    };
                    match backend.weight {
                        // No new client is sent there, so that its silence does no harm.
                        0 => Finding::ok(
                            STEP,
                            format!("gets no new connections, and does not answer: {why}{task}"),
                        ),
                        _ => Finding::fault(
                            STEP,
                            format!("gets new connections, and does not answer: {why}{task}"),
                        )
                        .mended_by("restart the task; a health check of it would keep connections away"),
                    }
                }
            };
            (place, finding.at(address.to_string()))
        });
    }
    let mut found = dials.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    let mut found: Vec<Finding> = found.into_iter().map(|(_, finding)| finding).collect();
    let more = backends.len().saturating_sub(MAX_DIALLED);
    if more > 0 {
        found.push(Finding::skipped(STEP, format!("{more} more are not dialled")));
    }
    found
}

fn dial_error(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// The last step: the connection itself, from its place.
async fn connect(
    place: &NetworkPlace,
    address: SocketAddr,
    backends: &[Backend],
    has_service: bool,
) -> Finding {
    const STEP: &str = "connect";
    let dialled = visit(place, move |_| dial(address)).await;
    let shown = format!("{address} from {place}");
    let dialled = match dialled {
        Ok(Ok(dialled)) => dialled,
        Ok(Err(why)) | Err(why) => {
            let finding = Finding::fault(STEP, format!("does not come about: {why}"));
            let finding = finding.at(shown);
            return match has_service {
                true => finding.mended_by("l4lbd doctor, which looks at firewalls and settings"),
                false => finding,
            };
        }
    };
    // With eBPF the socket itself has the backend for its peer; with IPVS only the kernel's table tells.
    let server = match dialled.peer.filter(|peer| *peer != address) {
        Some(peer) => Some(peer),
        None => chosen(dialled.local, address).await,
    };
    let is_server = |backend: &&Backend| Some(SocketAddr::new(backend.address, backend.port)) == server;
    let task =
        backends.iter().find(is_server).map(|backend| backend.task.as_str()).filter(|task| !task.is_empty());
    let who = match (server, task) {
        (Some(server), Some(task)) => format!("{server}, task {task}, answered"),
        (Some(server), None) => format!("{server} answered"),
        (None, _) if !has_service => "it was answered".to_owned(),
        (None, _) => "a backend answered; which one, only root can tell".to_owned(),
    };
    let millis = dialled.millis;
    drop(dialled.stream);
    Finding::ok(STEP, format!("{who} in {millis} ms")).at(shown)
}

/// Dials within the place of this thread.
async fn dial(address: SocketAddr) -> Known<Dialled> {
    let started = Instant::now();
    let stream = match timeout(DIAL, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(dial_error(&error)),
        Err(_) => return Err(format!("no answer in {} s", DIAL.as_secs())),
    };
    let millis = started.elapsed().as_millis();
    let local = stream.local_addr().map_err(|error| error.to_string())?;
    // The kernel's list has the socket as it is, while getpeername(2) may show the VIP.
    let table = if local.is_ipv4() { "tcp" } else { "tcp6" };
    let peer = proc::sockets(table).into_iter().find(|line| line.local == local).map(|line| line.remote);
    let stream = stream.into_std().map_err(|error| error.to_string())?;
    Ok(Dialled { millis, local, peer, stream })
}

/// Returns the backend that IPVS has chosen; `None` if it does not say.
async fn chosen(client: SocketAddr, service: SocketAddr) -> Option<SocketAddr> {
    let look = move || {
        let file = std::fs::File::open(proc::IPVS_CONNECTIONS).ok()?;
        let lines = BufReader::new(file.take(MAX_CONNECTIONS)).lines().map_while(Result::ok);
        proc::chosen_server(lines, client, service)
    };
    apart("the connections of IPVS", LOOK, look).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_a_name_or_an_address_with_a_port() {
        let read = |text: &str| text.parse::<Target>().map(|target| (target.host, target.port));
        assert_eq!(read("web.marathon.l4lb:80"), Ok(("web.marathon.l4lb".to_owned(), 80)));
        assert_eq!(read("11.0.0.7:80"), Ok(("11.0.0.7".to_owned(), 80)));
        assert_eq!(read("[fd01:c::7]:80"), Ok(("fd01:c::7".to_owned(), 80)));
        for text in [
            "",
            "web",
            "web:",
            ":80",
            "web:0",
            "web:65536",
            "fd01:c::7:80",
            "a b:80",
            "web;id:80",
            "http://web:80",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&format!("{}:80", "a".repeat(100_000))).is_err());
    }
}
