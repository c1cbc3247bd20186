//! Other processes of a test: this program, started with [`ARGUMENT`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use l4lbd::dataplane::Op;
use l4lbd::dataplane::ebpf::{Ebpf, Ejection, Options};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{place, toolkit};

pub const ARGUMENT: &str = "--helper";

/// Child process that reports in lines.
pub struct Helper {
    pub child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a helper");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    /// Waits for the next line of the process.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("read from a helper");
        line.trim_end().to_owned()
    }

    pub fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("write to a helper");
    }

    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of many VIPs.
pub fn vip_of_flood(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 98, high, low], 80))
}

fn say(text: impl std::fmt::Display) {
    println!("{text}");
}

fn wait() {
    let _ = std::io::stdin().read(&mut [0]);
}

pub fn run(arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["hold", vip, count] => hold(vip.parse().unwrap(), count.parse().unwrap()),
        ["try", vip] => attempt(vip.parse().unwrap()),
        ["reach", vip] => {
            say(toolkit::connect(vip.parse().unwrap()).unwrap().1);
        }
        ["fail-elsewhere", vip, count, lo] => {
            fail_elsewhere(vip.parse().unwrap(), count.parse().unwrap(), *lo == "up");
        }
        ["flood-elsewhere", vip, sockets] => {
            flood_elsewhere(vip.parse().unwrap(), sockets.parse().unwrap());
        }
        ["fail-at-many-elsewhere", vips] => {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            place::loopback_up().unwrap();
            let failed = |number: &u16| TcpStream::connect(vip_of_flood(*number)).is_err();
            say(format!("{} failed", (0..vips.parse().unwrap()).filter(failed).count()));
        }
        ["exempt", pins, vip] => exempt(pins, vip.parse().unwrap()),
        ["elsewhere", vip, backend] => elsewhere(vip.parse().unwrap(), backend.parse().unwrap()),
        ["elsewhere-in-a-thread", vip, backend] => {
            let (vip, backend) = (vip.parse().unwrap(), backend.parse().unwrap());
            std::thread::spawn(move || elsewhere(vip, backend)).join().unwrap();
        }
        ["elsewhere-and-back", vip, backend] => {
            elsewhere_and_back(vip.parse().unwrap(), backend.parse().unwrap());
        }
        ["load", cgroup, pins, vip, backends @ ..] => load(cgroup, pins, vip, backends),
        other => panic!("{other:?}"),
    }
    ExitCode::SUCCESS
}

/// Opens connections and holds them until it is killed.
fn hold(vip: SocketAddr, count: usize) {
    let held: Vec<_> = (0..count).map(|_| toolkit::connect(vip).unwrap()).collect();
    say("ready");
    wait();
    drop(held);
}

/// Waits for a line, then connects and prints the result.
fn attempt(vip: SocketAddr) {
    wait();
    say(match TcpStream::connect(vip) {
        Ok(_) => "connected".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    });
}

/// Connects a number of times in a network namespace of its own, where no server is, and prints how often it failed.
fn fail_elsewhere(vip: SocketAddr, count: usize, has_loopback: bool) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    if has_loopback {
        place::loopback_up().unwrap();
    }
    let failed = (0..count).filter(|_| TcpStream::connect(vip).is_err()).count();
    say(format!("{failed} failed"));
}

/// Connects UDP sockets in a network namespace of its own. For each line that it gets it prints how many were ended.
fn flood_elsewhere(vip: SocketAddr, sockets: u64) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    place::loopback_up().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let files = sockets + 100;
    setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files)).unwrap();
    let sockets: Vec<UdpSocket> = (0..sockets)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(vip).unwrap();
            socket
        })
        .collect();
    say("ready");
    loop {
        wait();
        say(sockets.iter().filter(|socket| socket.take_error().unwrap().is_some()).count());
    }
}

/// Exempts itself, then connects, prints the result and waits.
fn exempt(pins: &str, vip: SocketAddr) {
    let options = Options {
        cgroup: None,
        pins: PathBuf::from(pins),
        udp_timeout: Duration::from_secs(3600),
        ejection: Ejection::default(),
    };
    let _exemption = Ebpf::exempt_this_process(&options).unwrap().expect("announced");
    say(match TcpStream::connect(vip) {
        Ok(_) => "connected".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    });
    wait();
}

/// Connects through a VIP to a server in a network namespace of its own, and prints how the connection ends.
fn elsewhere(vip: SocketAddr, backend: SocketAddr) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    place::loopback_up().unwrap();
    let listener = TcpListener::bind(backend).unwrap();
    let mut client = TcpStream::connect(vip).unwrap();
    let _server = listener.accept().unwrap();
    say(client.peer_addr().unwrap());
    say(client.read(&mut [0]).unwrap_err().kind());
}

/// Does the same, and returns from the namespace when it is connected, so that only the sockets hold that.
fn elsewhere_and_back(vip: SocketAddr, backend: SocketAddr) {
    let home = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    place::loopback_up().unwrap();
    let listener = TcpListener::bind(backend).unwrap();
    let mut client = TcpStream::connect(vip).unwrap();
    let _server = listener.accept().unwrap();
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
    say(client.peer_addr().unwrap());
    say(client.read(&mut [0]).unwrap_err().kind());
}

/// Stands in for the daemon: creates a service and waits.
fn load(cgroup: &str, pins: &str, vip: &str, backends: &[&str]) {
    let options = Options {
        cgroup: Some(PathBuf::from(cgroup)),
        pins: PathBuf::from(pins),
        udp_timeout: Duration::from_secs(3600),
        ejection: Ejection::default(),
    };
    let mut ebpf = Ebpf::open(&options).unwrap();
    let backends: Vec<SocketAddr> = backends.iter().map(|backend| backend.parse().unwrap()).collect();
    let mut ops = toolkit::service(toolkit::tcp(vip), &backends);
    ops.push(Op::AddRoute(toolkit::route("10.99.0.0/24")));
    let failures = ebpf.apply(&ops.iter().collect::<Vec<_>>());
    assert!(failures.is_empty(), "{failures:?}");
    say("ready");
    wait();
}
