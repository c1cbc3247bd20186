//! Programming a kernel: l4lbd against `ipvsadm -R` with the same table in the same kernel.
//!
//! Needs root, a kernel with IPVS, `ipvsadm`, `nft` and `unshare`; `benches/kernel/run` starts such a
//! kernel. Each case has a network namespace of its own and so an IPVS without a past: what was
//! removed from a table makes later additions slow.
//!
//! ```text
//! kernel [SERVICES [REAL_SERVERS [ROUNDS]]]      compares
//! kernel flushed [SERVICES [REAL_SERVERS]]       fills the table again after somebody's flush
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use l4lbd::cluster::{Protocol, SharedMap};
use l4lbd::config::Config;
use l4lbd::daemon::wiring;
use l4lbd::dataplane::diff::diff;
use l4lbd::dataplane::ipvs::Ipvs;
use l4lbd::dataplane::kernel::Kernel;
use l4lbd::dataplane::{DataPlane, Depth, Op, RealServer, Scheduling, Service, ServiceKey, State};
use l4lbd::plan::desired::{Sources, beside_services};

/// How often what changes little or nothing is repeated within a case.
const REPEATS: usize = 5;

/// Operations that the daemon sends before it looks up.
const CHUNK: usize = 2000;

/// Removing a namespace goes on in the background.
const SETTLE: Duration = Duration::from_secs(3);

/// A case, and what a round of it does.
type Case = (&'static str, fn(Size) -> anyhow::Result<()>);

const CASES: &[Case] =
    &[("services", services), ("each", each), ("everything", everything), ("ipvsadm", ipvsadm)];

/// Rows of the report: what it is, its case and name, and the row that it is a multiple of.
const ROWS: &[(&str, &str, Option<&str>)] = &[
    ("program all services, through l4lbd's batches", "services cold", None),
    ("  one call for each operation", "each cold", Some("services cold")),
    ("  ipvsadm -R", "ipvsadm cold", Some("services cold")),
    ("compare, nothing to do (all slices of an audit)", "services audit", None),
    ("  the longest slice, which a change may wait for", "services slice", Some("services audit")),
    ("  reading at once", "services full", Some("services audit")),
    ("  ipvsadm -Ln", "ipvsadm list", Some("services audit")),
    ("one weight: known table, diff, write", "services change", None),
    ("  ipvsadm -e, without any audit", "ipvsadm change", Some("services change")),
    ("everything, cold (with link, routes, sysctls, rules)", "everything cold", None),
    ("everything, nothing to do", "everything audit", None),
    ("everything, one weight", "everything change", None),
];

#[derive(Clone, Copy)]
struct Size {
    services: u32,
    servers: u32,
}

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let (word, numbers) = match arguments.split_first() {
        Some((word, numbers)) if word.parse::<u32>().is_err() => (Some(word.as_str()), numbers),
        _ => (None, arguments.as_slice()),
    };
    let number = |index: usize, default| match numbers.get(index) {
        Some(text) => text.parse::<u32>().with_context(|| format!("{text:?} is not a number")),
        None => Ok(default),
    };
    let size = Size { services: number(0, 10_000)?, servers: number(1, 5)? };
    match word {
        None => compare(size, number(2, 3)?),
        Some("flushed") => case("flushed", size).map(|_| ()),
        Some("inside-flushed") => flushed(size),
        Some(word) => {
            let case = word.strip_prefix("inside-");
            let found = CASES.iter().find(|(name, _)| Some(*name) == case);
            found.with_context(|| format!("unknown case {word:?}"))?.1(size)
        }
    }
}

/// Runs all cases several times, each in a new namespace, and reports medians.
fn compare(size: Size, rounds: u32) -> anyhow::Result<()> {
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        for (name, _) in CASES {
            for line in case(name, size)?.lines() {
                let (row, figure) = line.rsplit_once(' ').context("a case printed no figure")?;
                figures.entry(format!("{name} {row}")).or_default().push(figure.parse()?);
            }
            std::thread::sleep(SETTLE);
        }
        eprintln!("round {round} of {rounds} done");
    }
    let medians: BTreeMap<String, f64> =
        figures.into_iter().map(|(row, mut figures)| (row, median(&mut figures))).collect();
    let Size { services, servers } = size;
    println!("{services} services with {servers} real servers each, medians of {rounds} rounds");
    for (title, row, base) in ROWS {
        let seconds = *medians.get(*row).with_context(|| format!("no figure for {row}"))?;
        let ratio = base.and_then(|base| medians.get(base)).map(|base| format!("{:8.1} x", seconds / base));
        println!("{title:<54} {:>11.2} ms{}", seconds * 1e3, ratio.unwrap_or_default());
    }
    for case in ["services", "everything"] {
        let peak = *medians.get(&format!("{case} peak")).context("no peak")?;
        println!("{:<54} {peak:>11.1} MiB", format!("peak memory of the process, {case}"));
    }
    Ok(())
}

/// Runs a case in a new network namespace and returns what it prints.
fn case(name: &str, size: Size) -> anyhow::Result<String> {
    // Without any address of its own the kernel takes no real servers.
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe()?)
        .args([format!("inside-{name}"), size.services.to_string(), size.servers.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run unshare")?;
    ensure!(output.status.success(), "case {name} failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// Only the table of services.
fn services(size: Size) -> anyhow::Result<()> {
    let mut ipvs = Ipvs::open()?;
    let mut wanted = State { services: table(size), ..State::default() };
    let cold = Instant::now();
    let found = State { services: ipvs.read()?.services, ..State::default() };
    apply(&mut ipvs, &diff(&found, &wanted, 1))?;
    print("cold", cold.elapsed());
    print("full", repeat(|| ensure(ipvs.read()?.services == wanted.services))?);
    let mut slice = Duration::ZERO;
    print(
        "audit",
        repeat(|| {
            let found = State { services: looked_through(&mut ipvs, &mut slice)?, ..State::default() };
            ensure(diff(&found, &wanted, 1).is_empty())
        })?,
    );
    print("slice", slice);
    print(
        "change",
        repeat(|| {
            toggle(&mut wanted);
            let found = State { services: ipvs.audit()?.services, ..State::default() };
            let ops = diff(&found, &wanted, 1);
            ensure(ops.len() == 1)?;
            apply(&mut ipvs, &ops)
        })?,
    );
    ensure(ipvs.read()?.services == wanted.services)?;
    print_peak()
}

/// Services of a table.
type Services = SharedMap<ServiceKey, Arc<Service>>;

/// Looks through the table in slices, and returns what that found. `longest` becomes the longest slice.
fn looked_through(ipvs: &mut Ipvs, longest: &mut Duration) -> anyhow::Result<Services> {
    loop {
        let started = Instant::now();
        let is_done = ipvs.look_on()?;
        *longest = started.elapsed().max(*longest);
        if is_done {
            return Ok(ipvs.audit()?.services);
        }
    }
}

/// The same operations, each in a call of its own.
fn each(size: Size) -> anyhow::Result<()> {
    let mut ipvs = Ipvs::open()?;
    let wanted = State { services: table(size), ..State::default() };
    let ops = diff(&State::default(), &wanted, 1);
    let cold = Instant::now();
    for op in &ops {
        apply(&mut ipvs, std::slice::from_ref(op))?;
    }
    print("cold", cold.elapsed());
    ensure(ipvs.read()?.services == wanted.services)
}

/// As the daemon does it, with all that a node needs besides services.
fn everything(size: Size) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(runtime.spawn(async move {
        let config = Config::defaults()?;
        let mut kernel = Kernel::open(&wiring::kernel(&config))?;
        let cold = Instant::now();
        let found = kernel.read(Depth::Full).await?;
        let settings = wiring::planner(&config).desired;
        let around = beside_services(&settings, Sources::default(), &found.node);
        let mut wanted = State { services: table(size), ..around };
        succeed(kernel.apply(&diff(&found.state, &wanted, 1)).await)?;
        print("cold", cold.elapsed());
        ensure(diff(&kernel.read(Depth::Full).await?.state, &wanted, 1).is_empty())?;
        let mut audits = Vec::new();
        let mut changes = Vec::new();
        for _ in 0..REPEATS {
            let started = Instant::now();
            while !kernel.look_on().await? {}
            let found = kernel.read(Depth::Audit).await?;
            ensure(diff(&found.state, &wanted, 1).is_empty())?;
            audits.push(started.elapsed().as_secs_f64());
            toggle(&mut wanted);
            let started = Instant::now();
            let found = kernel.read(Depth::Audit).await?;
            succeed(kernel.apply(&diff(&found.state, &wanted, 1)).await)?;
            changes.push(started.elapsed().as_secs_f64());
        }
        print("audit", Duration::from_secs_f64(median(&mut audits)));
        print("change", Duration::from_secs_f64(median(&mut changes)));
        print_peak()
    }))?
}

/// The command that operators use, with the same table.
fn ipvsadm(size: Size) -> anyhow::Result<()> {
    let mut rules = tempfile::tempfile()?;
    for (key, service) in table(size).iter() {
        let vip = SocketAddr::new(key.address, key.port);
        writeln!(rules, "-A -t {vip} -s {}", service.scheduling.scheduler)?;
        for (server, RealServer { weight, .. }) in &service.servers {
            writeln!(rules, "-a -t {vip} -r {server} -m -w {weight}")?;
        }
    }
    std::io::Seek::rewind(&mut rules)?;
    let cold = Instant::now();
    run(Command::new("ipvsadm").arg("-R").stdin(rules))?;
    print("cold", cold.elapsed());
    let mut ipvs = Ipvs::open()?;
    ensure(ipvs.read()?.foreign.len() == usize::try_from(size.services)?)?;
    print("list", repeat(|| run(Command::new("ipvsadm").arg("-Ln").stdout(File::create("/dev/null")?)))?);
    let table = table(size);
    let (key, service) = table.iter().next().context("an empty table")?;
    let server = service.servers.keys().next().context("no server")?;
    let vip = SocketAddr::new(key.address, key.port);
    let arguments = format!("-e -t {vip} -r {server} -m -w 0");
    print("change", repeat(|| run(Command::new("ipvsadm").args(arguments.split(' '))))?);
    Ok(())
}

/// What follows when somebody runs `ipvsadm -C`: the kernel keeps the removed real servers for a
/// minute or more and searches them all for each one that is added.
fn flushed(size: Size) -> anyhow::Result<()> {
    let mut ipvs = Ipvs::open()?;
    let wanted = State { services: table(size), ..State::default() };
    let ops = diff(&State::default(), &wanted, 1);
    for title in ["cold", "after a flush"] {
        let (started, mut longest) = (Instant::now(), Duration::ZERO);
        for chunk in ops.chunks(CHUNK) {
            let chunk_started = Instant::now();
            apply(&mut ipvs, chunk)?;
            longest = longest.max(chunk_started.elapsed());
        }
        let total = started.elapsed().as_secs_f64();
        eprintln!("{title}: {total:.2} s, longest {CHUNK} operations {:.2} s", longest.as_secs_f64());
        run(Command::new("ipvsadm").arg("-C"))?;
    }
    Ok(())
}

/// Addresses that are spread like those of a real cluster, without any two services sharing one.
fn table(size: Size) -> Services {
    let service = |number: u32| {
        let key = ServiceKey {
            protocol: Protocol::Tcp,
            address: IpAddr::V4(Ipv4Addr::from_bits(0x0B00_0001 + number)),
            port: 80,
        };
        let server = |index: u32| {
            let address = 0x0A00_0000 + ((number * 7 + index * 131_071) & 0x00FF_FFFF);
            let port = 8080 + u16::try_from(index).unwrap_or_default();
            (SocketAddr::from((Ipv4Addr::from_bits(address), port)), RealServer::masquerade(1))
        };
        let scheduling = Scheduling { scheduler: "wlc".to_owned(), flags: 0 };
        (key, Arc::new(Service { scheduling, servers: (0..size.servers).map(server).collect() }))
    };
    (0..size.services).map(service).collect()
}

/// Changes the weight of one real server.
fn toggle(state: &mut State) {
    let middle = state.services.len() / 2;
    let service = state.services.values_mut().nth(middle).map(Arc::make_mut);
    if let Some(server) = service.and_then(|service| service.servers.values_mut().next()) {
        server.weight = 1 - server.weight;
    }
}

fn apply(ipvs: &mut Ipvs, ops: &[Op]) -> anyhow::Result<()> {
    let refusals = ipvs.apply(&ops.iter().collect::<Vec<_>>());
    match refusals.first() {
        None => Ok(()),
        Some((_, refusal)) => bail!("{} operations failed: {refusal}", refusals.len()),
    }
}

fn succeed(errors: Vec<l4lbd::dataplane::OpError>) -> anyhow::Result<()> {
    match errors.first() {
        None => Ok(()),
        Some(error) => bail!("{} operations failed: {error}", errors.len()),
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn ensure(holds: bool) -> anyhow::Result<()> {
    ensure!(holds, "the kernel holds something else than it was told");
    Ok(())
}

/// Median time of several calls.
fn repeat(mut action: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let started = Instant::now();
        action()?;
        times.push(started.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(&mut times)))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(row: &str, time: Duration) {
    println!("{row} {}", time.as_secs_f64());
}

/// Most memory that the process had at any time, in MiB.
fn print_peak() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    println!("peak {}", kib / 1024.0);
    Ok(())
}
