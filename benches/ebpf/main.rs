//! What a VIP costs with the eBPF data plane on the running kernel, and for UDP with IPVS where the kernel has it.
//!
//! ```text
//! ebpf [ROUNDS [KIND...]]
//! ```
//!
//! With kinds of operations (`udp`, `udp-new`, `tcp-new`, `request`, `bulk`) only those are measured.
//! Needs root. Works in a network namespace, a mount namespace and a cgroup of its own. Sockets keep the
//! cgroup that they were made in, so that "no programs" is a process beside it that is told what to do.
//! Variants alternate within every round, each round starting with another one; the figures are medians
//! over the rounds. Every VIP has two servers, which those who dial them directly use in turn.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use l4lbd::dataplane::ebpf::{Ebpf, Options, SCHEDULER, cgroup_tree};
use l4lbd::dataplane::ipvs::Ipvs;
use l4lbd::dataplane::{Op, RealServer, Route, Scheduling, ServiceKey};
use l4lbd::task::Protocol;

const BPF: &str = "/run/l4lbd-ebpf-bench";
const SERVICES: usize = 10_000;
const SERVERS: u16 = 5;

/// Operations of one kind in a row, for one figure.
const CONNECTS: u32 = 2_000;
const REQUESTS: u32 = 500;
const CHUNKS: u32 = 64;

/// Bytes that are echoed in one piece.
const CHUNK: usize = 64 * 1024;

/// Where the servers are; a VIP of IPVS can't lead to the loopback network.
const SERVER: &str = "10.96.0.1";

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
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("namespaces need root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    fs::create_dir_all(BPF)?;
    mount(Some("bpf"), BPF, Some("bpf"), MsFlags::empty(), none)?;
    for command in [
        "link set lo up",
        &format!("address add {SERVER}/32 dev lo"),
        "route add local 10.97.0.0/16 dev lo src 10.96.0.1",
    ] {
        ensure!(Command::new("ip").args(command.split(' ')).status()?.success(), "ip {command} failed");
    }
    let cgroup = tree.join(format!("l4lbd-ebpf-bench-{}", std::process::id()));
    fs::create_dir(&cgroup)?;
    let result = measure(&cgroup, rounds, kinds);
    fs::remove_dir(&cgroup)?;
    result
}

fn measure(cgroup: &Path, rounds: usize, kinds: &[String]) -> anyhow::Result<()> {
    let options = Options { cgroup: Some(cgroup.to_owned()), pins: Path::new(BPF).join("l4lbd") };
    let echoes = [echo_server()?, echo_server()?];
    let datagrams = [UdpSocket::bind((SERVER, 0))?, UdpSocket::bind((SERVER, 0))?];
    let datagrams = [datagrams[0].local_addr()?, datagrams[1].local_addr()?];
    let mut outside = Client::start(None)?;
    let mut inside = Client::start(Some(cgroup))?;

    let mut ebpf = timed("open, the first time", || Ebpf::open(&options))?;
    if kinds.is_empty() {
        ebpf = measure_table(ebpf, &options, rounds)?;
    }

    let vip = "10.99.0.1:80";
    let mut ops = vip_services(vip, &echoes, &datagrams, SCHEDULER)?;
    ops.push(Op::AddRoute(Route { destination: "10.99.0.0/16".parse()?, source: None }));
    apply(&mut ebpf, &ops)?;
    let ipvs_vip = "10.97.0.1:80";
    let mut ipvs = Ipvs::open().ok();
    if let Some(ipvs) = &mut ipvs {
        let ops = vip_services(ipvs_vip, &echoes, &datagrams, "wlc")?;
        let refusals = ipvs.apply(&ops.iter().collect::<Vec<_>>());
        ensure!(refusals.is_empty(), "IPVS: {refusals:?}");
    }

    println!("each as a ratio to the first, median of {rounds} rounds:");
    for (kind, servers, what) in [
        ("udp", datagrams, "UDP connect() on one socket"),
        ("udp-new", datagrams, "UDP socket, connect and close"),
        ("tcp-new", echoes, "TCP socket, connect and close"),
        ("request", echoes, "request on a kept TCP connection"),
        ("bulk", echoes, "64 KiB there and back on it"),
    ] {
        if !kinds.is_empty() && !kinds.iter().any(|wanted| wanted == kind) {
            continue;
        }
        let direct = format!("{kind} {},{}", servers[0], servers[1]);
        let mut variants = vec![
            ("no programs", false, direct.clone()),
            ("not a VIP", true, direct),
            ("VIP", true, format!("{kind} {vip}")),
        ];
        // One address for client and servers is too few for the answers of TCP through IPVS.
        if ipvs.is_some() && kind.starts_with("udp") {
            variants.push(("VIP of IPVS", false, format!("{kind} {ipvs_vip}")));
        }
        let mut figures = vec![Vec::new(); variants.len()];
        for round in 0..rounds {
            for turn in 0..variants.len() {
                let variant = (round + turn) % variants.len();
                let (_, is_inside, order) = &variants[variant];
                let client = if *is_inside { &mut inside } else { &mut outside };
                figures[variant].push(client.ask(order)?);
            }
        }
        let medians: Vec<Duration> = figures.iter_mut().map(|figures| median(figures)).collect();
        let ratio = |part: &Duration| part.as_secs_f64() / medians[0].as_secs_f64();
        let cells =
            variants.iter().zip(&medians).map(|((name, ..), it)| format!("{name} {it:?} ({:.2})", ratio(it)));
        println!("{what}: {}", cells.collect::<Vec<_>>().join(", "));
    }
    drop((outside, inside));
    timed("purge", || Ebpf::purge(&options))?;
    Ok(())
}

/// Many services: programming, changing and reading them.
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

/// A VIP for TCP and UDP.
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
            // One connection at a time is held; the others come only to go.
            while let Ok(count @ 1..) = connection.read(&mut bytes) {
                if connection.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        }
    });
    Ok(address)
}

/// A process that does what it is told, and says how long one operation took.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(cgroup: Option<&Path>) -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(cgroup) = cgroup {
            fs::write(cgroup.join("cgroup.procs"), child.id().to_string())?;
        }
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
