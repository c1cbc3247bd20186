//! What a VIP costs on the running kernel: with the eBPF data plane, and with IPVS where the kernel has it.
//!
//! ```text
//! ebpf [ROUNDS [KIND...]]
//! ```
//!
//! With kinds of operations (`udp`, `udp-new`, `tcp-new`, `request`, `bulk`) it measures only those.
//! Needs root. Runs in network namespaces, a mount namespace and cgroups of its own:
//!
//! ```text
//!  plain 10.96.1.2 ── far 10.96.0.1 ── balanced 10.96.2.2
//! ```
//!
//! `far` has the servers: two for the VIPs, and two that are connected to directly, in turn. (With IPVS, a
//! client that connects to one server both ways sometimes uses the same port for both, and waits a
//! second.) `plain` has two clients, of which one is in the cgroup with the programs. `balanced` is a node
//! as the daemon configures it for IPVS, with rules and connection tracking.
//!
//! All processes share one processor. The variants alternate within each round, and each round starts
//! with another one. A ratio compares two figures of the same round; the output has medians and quartiles.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

use l4lbd::cluster::Protocol;
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dataplane::diff::diff;
use l4lbd::dataplane::ebpf::{Ebpf, Ejection, Options, SCHEDULER, cgroup_tree};
use l4lbd::dataplane::kernel::{Access, Kernel, KernelOptions};
use l4lbd::dataplane::{DataPlane, Depth, Op, PlaneKind, RealServer, Route, Scheduling, ServiceKey};
use l4lbd::plan::desired::{Sources, beside_services};

const BPF: &str = "/run/l4lbd-ebpf-bench";

/// How long an unconnected UDP socket keeps its server.
const UDP_TIMEOUT: Duration = Duration::from_secs(60);
const SERVICES: usize = 10_000;
const SERVERS: u16 = 5;

/// Operations of one kind that are averaged for one figure.
const CONNECTS: u32 = 2_000;
const REQUESTS: u32 = 500;
const CHUNKS: u32 = 64;

/// Bytes of one write that is echoed.
const CHUNK: usize = 64 * 1024;

/// Address of the servers.
const SERVER: &str = "10.96.0.1";

const EBPF_VIP: &str = "10.99.0.1:80";
/// VIP in the daemon's default range.
const IPVS_VIP: &str = "11.0.0.1:80";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [client] if client == "client" => client_loop(),
        [] => run(15, &[]),
        [rounds, kinds @ ..] => run(rounds.parse().context("usage: ebpf [ROUNDS [KIND...]]")?, kinds),
    }
}

fn run(rounds: usize, kinds: &[String]) -> anyhow::Result<()> {
    let tree = cgroup_tree().context("no cgroup v2 tree")?;
    // On several processors the placement of clients and servers would matter more than what is measured.
    let mut processor = CpuSet::new();
    processor.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &processor)?;
    unshare(CloneFlags::CLONE_NEWNS).context("namespaces need root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    fs::create_dir_all(BPF)?;
    mount(Some("bpf"), BPF, Some("bpf"), MsFlags::empty(), none)?;
    let cgroups = ["without", "with"]
        .map(|programs| tree.join(format!("l4lbd-ebpf-bench-{}-{programs}", std::process::id())));
    for cgroup in &cgroups {
        fs::create_dir(cgroup)?;
    }
    let result = measure(&cgroups, rounds, kinds);
    for cgroup in &cgroups {
        fs::remove_dir(cgroup)?;
    }
    result
}

fn measure([without, with]: &[PathBuf; 2], rounds: usize, kinds: &[String]) -> anyhow::Result<()> {
    let options = Options {
        cgroup: Some(with.clone()),
        pins: Path::new(BPF).join("l4lbd"),
        udp_timeout: UDP_TIMEOUT,
        ejection: Ejection::default(),
    };
    let far = Namespace::new()?;
    ip(&format!("address add {SERVER}/32 dev lo"))?;
    let (mut echoes, mut datagrams, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..4 {
        echoes.push(echo_server()?);
        let socket = UdpSocket::bind((SERVER, 0))?;
        datagrams.push(socket.local_addr()?);
        sockets.push(socket);
    }
    let (direct_tcp, tcp) = echoes.split_at(2);
    let (direct_udp, udp) = datagrams.split_at(2);

    let balanced = Namespace::new()?;
    balanced.join(&far, 2)?;
    let mut through_ipvs = None;
    match balance(tcp, udp) {
        Ok(()) => through_ipvs = Some(Client::start(without)?),
        Err(error) => println!("without IPVS: {error:#}"),
    }
    let plain = Namespace::new()?;
    plain.join(&far, 1)?;
    let mut outside = Client::start(without)?;
    let mut inside = Client::start(with)?;

    let mut ebpf = timed("open, the first time", || Ebpf::open(&options))?;
    if kinds.is_empty() {
        ebpf = measure_table(ebpf, &options, rounds)?;
    }
    let mut ops = vip_services(EBPF_VIP, tcp, udp, SCHEDULER)?;
    ops.push(Op::AddRoute(Route { destination: "10.99.0.0/16".parse()?, source: None }));
    apply(&mut ebpf, &ops)?;

    println!("each as a ratio to the first, median of {rounds} rounds and its quartiles:");
    for (kind, servers, what) in [
        ("udp", direct_udp, "UDP connect() on one socket"),
        ("udp-new", direct_udp, "UDP socket, connect and close"),
        ("tcp-new", direct_tcp, "TCP socket, connect and close"),
        ("request", direct_tcp, "request on a kept TCP connection"),
        ("bulk", direct_tcp, "64 KiB there and back on it"),
    ] {
        if !kinds.is_empty() && !kinds.iter().any(|wanted| wanted == kind) {
            continue;
        }
        let direct = format!("{kind} {},{}", servers[0], servers[1]);
        let mut variants = vec![
            ("no programs", Who::Outside, direct.clone()),
            ("eBPF, not a VIP", Who::Inside, direct.clone()),
            ("eBPF, VIP", Who::Inside, format!("{kind} {EBPF_VIP}")),
        ];
        if through_ipvs.is_some() {
            variants.push(("IPVS, not a VIP", Who::Balanced, direct));
            variants.push(("IPVS, VIP", Who::Balanced, format!("{kind} {IPVS_VIP}")));
        }
        let mut figures = vec![Vec::new(); variants.len()];
        for round in 0..rounds {
            for turn in 0..variants.len() {
                let variant = (round + turn) % variants.len();
                let (_, who, order) = &variants[variant];
                let client = match who {
                    Who::Outside => &mut outside,
                    Who::Inside => &mut inside,
                    Who::Balanced => through_ipvs.as_mut().context("no IPVS")?,
                };
                figures[variant].push(client.ask(order)?);
            }
        }
        println!("{what}: {:?}", median(&mut figures[0].clone()));
        for ((name, ..), own) in variants.iter().zip(&figures) {
            let mut ratios: Vec<f64> =
                own.iter().zip(&figures[0]).map(|(own, base)| own.div_duration_f64(*base)).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            let part = |quarters: usize| ratios[(ratios.len() - 1) * quarters / 4];
            println!("  {name:<16} {:.3} ({:.3} to {:.3})", part(2), part(1), part(3));
        }
    }
    if kinds.is_empty() || kinds.iter().any(|wanted| wanted == "tcp-new") {
        let direct = format!("{},{}", direct_tcp[0], direct_tcp[1]);
        measure_programs(&mut inside, rounds, "to what is no VIP", &direct)?;
        measure_programs(&mut inside, rounds, "to a VIP", EBPF_VIP)?;
    }
    drop((outside, inside, through_ipvs));
    timed("purge", || Ebpf::purge(&options))?;
    Ok(())
}

/// Measures how long the programs run for one TCP connection, from its connect to its end. Most of what they take for
/// one that is to no VIP is what measuring takes.
fn measure_programs(inside: &mut Client, rounds: usize, what: &str, to: &str) -> anyhow::Result<()> {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    let before = fs::read_to_string(SWITCH)?;
    fs::write(SWITCH, "1")?;
    let start = runs()?;
    for _ in 0..rounds {
        inside.ask(&format!("tcp-new {to}"))?;
    }
    let end = runs()?;
    fs::write(SWITCH, before)?;
    println!("programs for one TCP connection {what}, with what measuring takes:");
    let connections = u64::from(rounds as u32 * REQUESTS);
    for (kind, (time, count)) in end {
        let (time_before, count_before) = start.get(&kind).copied().unwrap_or_default();
        let (time, count): (u64, u64) = (time - time_before, count - count_before);
        if count > 0 {
            println!(
                "  {kind:<16} {} ns in {:.1} runs",
                time / connections,
                count as f64 / connections as f64
            );
        }
    }
    Ok(())
}

/// Returns how long programs of each type have run, in nanoseconds, and how often.
fn runs() -> anyhow::Result<BTreeMap<&'static str, (u64, u64)>> {
    let mut runs: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The descriptor of the directory itself is gone by now.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        // `enum bpf_prog_type` of `linux/bpf.h`.
        let kind = match field("prog_type") {
            Some(9) => "socket's end",
            Some(13) => "TCP events",
            Some(18) => "connect",
            _ => continue,
        };
        let sum = runs.entry(kind).or_default();
        sum.0 += field("run_time_ns").unwrap_or(0);
        sum.1 += field("run_cnt").unwrap_or(0);
    }
    Ok(runs)
}

/// Client that a variant runs in.
enum Who {
    Outside,
    Inside,
    Balanced,
}

/// Network namespace.
struct Namespace(File);

impl Namespace {
    /// Creates a namespace, which the calling thread enters.
    fn new() -> anyhow::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("namespaces need root")?;
        ip("link set lo up")?;
        Ok(Self(File::open("/proc/thread-self/ns/net")?))
    }

    /// Connects this namespace, which the calling thread is in, with that of the servers.
    fn join(&self, far: &Self, number: u8) -> anyhow::Result<()> {
        let name = |namespace: &Self| format!("/proc/{}/fd/{}", std::process::id(), namespace.0.as_raw_fd());
        setns(&far.0, CloneFlags::CLONE_NEWNET)?;
        ip(&format!("link add near{number} type veth peer name far netns {}", name(self)))?;
        ip(&format!("address add 10.96.{number}.1/24 dev near{number}"))?;
        ip(&format!("link set near{number} up"))?;
        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        ip(&format!("address add 10.96.{number}.2/24 dev far"))?;
        ip("link set far up")?;
        ip(&format!("route add default via 10.96.{number}.1"))
    }
}

fn ip(command: &str) -> anyhow::Result<()> {
    ensure!(Command::new("ip").args(command.split(' ')).status()?.success(), "ip {command} failed");
    Ok(())
}

/// Configures this network namespace for IPVS as the daemon does, with a VIP.
fn balance(tcp: &[SocketAddr], udp: &[SocketAddr]) -> anyhow::Result<()> {
    let services = vip_services(IPVS_VIP, tcp, udp, "wlc")?;
    let options = KernelOptions {
        plane: Some(PlaneKind::Ipvs),
        link: "minuteman".to_owned(),
        ebpf: Options {
            cgroup: None,
            pins: Path::new(BPF).join("none"),
            udp_timeout: UDP_TIMEOUT,
            ejection: Ejection::default(),
        },
        access: Access::Program,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(runtime.spawn(async move {
        let mut kernel = Kernel::open(&options)?;
        let found = kernel.read(Depth::Full).await?;
        let settings = wiring::planner(&Config::defaults()?).desired;
        let sources = Sources { v4: Some("10.96.2.2".parse()?), v6: None };
        let mut ops = diff(&found.state, &beside_services(&settings, sources, &found.node), 1);
        ops.extend(services);
        let errors = kernel.apply(&ops).await;
        ensure!(errors.is_empty(), "{errors:?}");
        Ok(())
    }))?
}

/// Measures programming, changing and reading many services.
fn measure_table(mut ebpf: Ebpf, options: &Options, rounds: usize) -> anyhow::Result<Ebpf> {
    let keys: Vec<ServiceKey> =
        (0..SERVICES).map(|n| key(&format!("10.98.{}.{}:80", n / 250, n % 250))).collect::<Result<_, _>>()?;
    let ops: Vec<Op> = keys
        .iter()
        .flat_map(|key| {
            service(
                *key,
                &(1..=SERVERS).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect::<Vec<_>>(),
                SCHEDULER,
            )
        })
        .collect();
    println!("{SERVICES} services with {SERVERS} servers each:");
    timed("  first program", || apply(&mut ebpf, &ops))?;
    let toggle = |round: usize| {
        Op::SetServer(
            keys[round % SERVICES],
            ([127, 0, 0, 1], 1).into(),
            RealServer::masquerade(u32::from(round % 2 == 1)),
        )
    };
    let mut change = Vec::new();
    let mut read = Vec::new();
    let mut reopen = Vec::new();
    for round in 0..rounds {
        let op = [toggle(round)];
        let start = Instant::now();
        apply(&mut ebpf, &op)?;
        change.push(start.elapsed());
        let start = Instant::now();
        ebpf.read()?;
        read.push(start.elapsed());
        let start = Instant::now();
        ebpf = Ebpf::open(options)?;
        reopen.push(start.elapsed());
    }
    println!(
        "  one change {:?}, read {:?}, open again {:?}",
        median(&mut change),
        median(&mut read),
        median(&mut reopen)
    );
    Ok(ebpf)
}

fn timed<T, E: std::error::Error + Send + Sync + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let result = work()?;
    println!("{what} {:?}", start.elapsed());
    Ok(result)
}

fn median(figures: &mut [Duration]) -> Duration {
    figures.sort_unstable();
    figures[figures.len() / 2]
}

fn apply(ebpf: &mut Ebpf, ops: &[Op]) -> Result<(), l4lbd::dataplane::ebpf::Error> {
    match ebpf.apply(&ops.iter().collect::<Vec<_>>()).into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

fn key(vip: &str) -> anyhow::Result<ServiceKey> {
    let vip: SocketAddr = vip.parse()?;
    Ok(ServiceKey { protocol: Protocol::Tcp, address: vip.ip(), port: vip.port() })
}

fn service(key: ServiceKey, servers: &[SocketAddr], scheduler: &str) -> Vec<Op> {
    let scheduling = Scheduling { scheduler: scheduler.to_owned(), flags: 0 };
    let add = servers.iter().map(|server| Op::AddServer(key, *server, RealServer::masquerade(1)));
    std::iter::once(Op::AddService(key, scheduling)).chain(add).collect()
}

/// Lists the operations that create a VIP for TCP and UDP.
fn vip_services(
    vip: &str,
    tcp: &[SocketAddr],
    udp: &[SocketAddr],
    scheduler: &str,
) -> anyhow::Result<Vec<Op>> {
    let key = key(vip)?;
    let mut ops = service(key, tcp, scheduler);
    ops.extend(service(ServiceKey { protocol: Protocol::Udp, ..key }, udp, scheduler));
    Ok(ops)
}

fn echo_server() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((SERVER, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut bytes = vec![0; CHUNK];
            // One connection at a time is used; all others are closed at once.
            while let Ok(count @ 1..) = connection.read(&mut bytes) {
                if connection.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        }
    });
    Ok(address)
}

/// Child process that runs operations on order, and prints how long one of them took.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(cgroup: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string())?;
        let input = child.stdin.take().context("input")?;
        let output = BufReader::new(child.stdout.take().context("output")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, order: &str) -> anyhow::Result<Duration> {
        writeln!(self.input, "{order}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse().with_context(|| format!("{order}: {line:?}"))?))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client_loop() -> anyhow::Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let (kind, to) = line.split_once(' ').context("a kind and a target")?;
        let to: Vec<SocketAddr> = to.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let to = |turn: u32| to[turn as usize % to.len()];
        let (count, start) = match kind {
            "udp" => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(to(0))?;
                let start = Instant::now();
                for turn in 0..CONNECTS {
                    socket.connect(to(turn))?;
                }
                (CONNECTS, start)
            }
            "udp-new" => {
                let start = Instant::now();
                for turn in 0..CONNECTS {
                    UdpSocket::bind("0.0.0.0:0")?.connect(to(turn))?;
                }
                (CONNECTS, start)
            }
            "tcp-new" => {
                let start = Instant::now();
                for turn in 0..REQUESTS {
                    TcpStream::connect(to(turn))?;
                }
                (REQUESTS, start)
            }
            "request" => {
                let mut stream = TcpStream::connect(to(0))?;
                stream.set_nodelay(true)?;
                let mut bytes = [0; 8];
                let start = Instant::now();
                for _ in 0..REQUESTS {
                    stream.write_all(&bytes)?;
                    stream.read_exact(&mut bytes)?;
                }
                (REQUESTS, start)
            }
            "bulk" => {
                let mut stream = TcpStream::connect(to(0))?;
                let mut bytes = vec![0; CHUNK];
                let start = Instant::now();
                for _ in 0..CHUNKS {
                    stream.write_all(&bytes)?;
                    stream.read_exact(&mut bytes)?;
                }
                (CHUNKS, start)
            }
            other => bail!("{other:?}"),
        };
        println!("{}", start.elapsed().as_nanos() / u128::from(count));
    }
    Ok(())
}
