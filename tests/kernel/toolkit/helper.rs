//! The process that is a host's servers and clients: it sits in a network namespace, takes one
//! [`Request`] per line on its input and answers each with one [`Reply`] per line. It ends with its
//! input, so it never outlives a test.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::master::{self, Behaviour};

/// First argument of this program when it is to be a helper.
pub const ARGUMENT: &str = "__helper";

/// Silence for so long is a timeout. Refusals and answers come at once, even in an emulated machine.
pub const SILENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Listen, and tell every client who answers and whom it sees.
    Serve {
        transport: Transport,
        at: SocketAddr,
        name: String,
    },
    /// Listen, and connect every client with `to`, as Docker's proxy does.
    Relay {
        at: SocketAddr,
        to: SocketAddr,
    },
    /// Connect and read the first answer. `keep` makes it a connection that [`Request::Ask`] can use.
    Dial {
        transport: Transport,
        to: SocketAddr,
        keep: bool,
        patience: Duration,
    },
    /// Connect to all of them at once by TCP and read what each answers.
    DialAll {
        to: Vec<SocketAddr>,
    },
    /// Ask again on a kept connection.
    Ask {
        connection: usize,
    },
    /// Close a kept connection.
    Close {
        connection: usize,
    },
    /// Connect again and again until [`Request::EndLoad`], on several connections at a time.
    Load {
        to: SocketAddr,
    },
    EndLoad,
    /// Be a Mesos master.
    Master {
        at: SocketAddr,
    },
    /// What the master does from now on.
    Behave(Behaviour),
    /// Run a program here.
    Run {
        program: Vec<String>,
        input: String,
    },
    /// Set a value below `/proc/sys`, of which every network namespace has its own.
    Set {
        path: String,
        value: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Serving,
    Set,
    Dialled {
        outcome: Outcome,
        connection: Option<usize>,
    },
    DialledAll(Vec<Outcome>),
    Closed,
    /// How many connections a load had, and what became of those that failed.
    Loaded {
        connections: usize,
        failures: Vec<Outcome>,
    },
    Ran {
        success: bool,
        output: String,
        errors: String,
    },
    Failed(String),
}

/// What a client notices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The server's name, and the client's address as the server sees it.
    Answered {
        server: String,
        client: IpAddr,
    },
    Refused,
    /// The connection was ended by the other side.
    Reset,
    Silence,
    Failed(String),
}

/// Clients that come and go.
struct Load {
    ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<Outcome>)>>,
}

/// How many clients of a load are connected at a time, and how long each waits before the next: the
/// emulated processor has others to serve.
const CLIENTS: usize = 4;
const BREAK: Duration = Duration::from_millis(20);

impl Load {
    fn start(to: SocketAddr) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                let (mut connections, mut failures) = (0, Vec::new());
                while !ended.load(Ordering::Relaxed) {
                    connections += 1;
                    thread::sleep(BREAK);
                    match Connection::open(Transport::Tcp, to, SILENCE)
                        .and_then(|mut connection| connection.ask(false))
                    {
                        Ok(Outcome::Answered { .. }) => {}
                        Ok(other) => failures.push(other),
                        Err(error) => failures.push(error.into()),
                    }
                }
                (connections, failures)
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { ended, clients }
    }

    fn end(self) -> (usize, Vec<Outcome>) {
        self.ended.store(true, Ordering::Relaxed);
        let mut sum = (0, Vec::new());
        for client in self.clients {
            let (connections, failures) = client.join().unwrap_or_default();
            sum.0 += connections;
            sum.1.extend(failures);
        }
        sum
    }
}

enum Connection {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
}

/// What a helper has.
#[derive(Default)]
struct Belongings {
    connections: BTreeMap<usize, Connection>,
    load: Option<Load>,
    master: Arc<Mutex<Behaviour>>,
}

pub fn serve() -> ExitCode {
    let mut belongings = Belongings::default();
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let reply = match serde_json::from_str(&line) {
            Ok(request) => {
                obey(request, &mut belongings).unwrap_or_else(|error| Reply::Failed(error.to_string()))
            }
            Err(error) => Reply::Failed(format!("not a request: {error}: {line}")),
        };
        let line = serde_json::to_string(&reply).expect("a reply is plain data");
        if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn obey(request: Request, belongings: &mut Belongings) -> io::Result<Reply> {
    let connections = &mut belongings.connections;
    match request {
        Request::Serve { transport: Transport::Tcp, at, name } => {
            let listener = TcpListener::bind(at)?;
            thread::spawn(move || serve_tcp(&listener, &name));
            Ok(Reply::Serving)
        }
        Request::Serve { transport: Transport::Udp, at, name } => {
            let socket = UdpSocket::bind(at)?;
            thread::spawn(move || serve_udp(&socket, &name));
            Ok(Reply::Serving)
        }
        Request::Relay { at, to } => {
            let listener = TcpListener::bind(at)?;
            thread::spawn(move || relay(&listener, to));
            Ok(Reply::Serving)
        }
        Request::DialAll { to } => {
            let dial = |to| {
                Connection::open(Transport::Tcp, to, SILENCE).and_then(|mut connection| connection.ask(false))
            };
            let clients: Vec<_> = to.into_iter().map(|to| thread::spawn(move || dial(to))).collect();
            let outcome = |client: JoinHandle<io::Result<Outcome>>| {
                let ended = client.join().map_err(|_| ErrorKind::Other)?;
                Ok(ended.unwrap_or_else(Outcome::from))
            };
            clients.into_iter().map(outcome).collect::<io::Result<_>>().map(Reply::DialledAll)
        }
        Request::Dial { transport, to, keep, patience } => {
            let dialled = Connection::open(transport, to, patience).and_then(|mut connection| {
                let outcome = connection.ask(transport == Transport::Udp)?;
                Ok((outcome, connection))
            });
            Ok(match dialled {
                Ok((outcome, connection)) if keep => {
                    let number = connections.len();
                    connections.insert(number, connection);
                    Reply::Dialled { outcome, connection: Some(number) }
                }
                Ok((outcome, _)) => Reply::Dialled { outcome, connection: None },
                Err(error) => Reply::Dialled { outcome: Outcome::from(error), connection: None },
            })
        }
        Request::Ask { connection } => {
            let connection = connections.get_mut(&connection).ok_or(ErrorKind::NotFound)?;
            let outcome = connection.ask(true).unwrap_or_else(Outcome::from);
            Ok(Reply::Dialled { outcome, connection: None })
        }
        Request::Close { connection } => {
            connections.remove(&connection).ok_or(ErrorKind::NotFound)?;
            Ok(Reply::Closed)
        }
        Request::Load { to } => {
            belongings.load = Some(Load::start(to));
            Ok(Reply::Serving)
        }
        Request::EndLoad => {
            let (connections, failures) = belongings.load.take().ok_or(ErrorKind::NotFound)?.end();
            Ok(Reply::Loaded { connections, failures })
        }
        Request::Master { at } => {
            let listener = TcpListener::bind(at)?;
            let behaviour = Arc::clone(&belongings.master);
            thread::spawn(move || master::serve(&listener, &behaviour));
            Ok(Reply::Serving)
        }
        Request::Behave(behaviour) => {
            *belongings.master.lock().map_err(|_| ErrorKind::Other)? = behaviour;
            Ok(Reply::Set)
        }
        Request::Run { program, input } => run(&program, &input),
        Request::Set { path, value } => std::fs::write(path, value).map(|()| Reply::Set),
    }
}

impl Connection {
    fn open(transport: Transport, to: SocketAddr, patience: Duration) -> io::Result<Self> {
        match transport {
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&to, patience)?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Self::Tcp(BufReader::new(stream)))
            }
            Transport::Udp => {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(patience))?;
                Ok(Self::Udp(socket))
            }
        }
    }

    /// Reads one answer, after asking for it unless it comes by itself (a TCP server greets).
    fn ask(&mut self, aloud: bool) -> io::Result<Outcome> {
        let mut answer = String::new();
        match self {
            Self::Tcp(reader) => {
                if aloud {
                    reader.get_mut().write_all(b"?\n")?;
                }
                if reader.read_line(&mut answer)? == 0 {
                    return Ok(Outcome::Reset);
                }
            }
            Self::Udp(socket) => {
                let mut buffer = [0; 256];
                socket.send(b"?\n")?;
                let length = socket.recv(&mut buffer)?;
                answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
        }
        let parsed = answer.trim_end().split_once(" saw ").and_then(|(server, client)| {
            Some(Outcome::Answered { server: server.to_owned(), client: client.parse().ok()? })
        });
        Ok(parsed.unwrap_or_else(|| Outcome::Failed(format!("strange answer {answer:?}"))))
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A datagram to a virtual service without real servers is not permitted, says the kernel.
            ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Reset,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Silence,
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &str) {
    for stream in listener.incoming().flatten() {
        let name = name.to_owned();
        thread::spawn(move || {
            let Ok(client) = stream.peer_addr() else {
                return;
            };
            let greeting = greeting(&name, client);
            let Ok(mut writer) = stream.try_clone() else {
                return;
            };
            let mut questions = BufReader::new(stream).lines();
            while writer.write_all(greeting.as_bytes()).is_ok() && matches!(questions.next(), Some(Ok(_))) {}
        });
    }
}

fn relay(listener: &TcpListener, to: SocketAddr) {
    let copy = |mut from: TcpStream, mut into: TcpStream| {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut into);
            let _ = into.shutdown(Shutdown::Write);
        })
    };
    for client in listener.incoming().flatten() {
        let both = TcpStream::connect(to).and_then(|server| {
            copy(client.try_clone()?, server.try_clone()?);
            copy(server, client);
            Ok(())
        });
        // The client finds its connection closed, as Docker's would.
        drop(both);
    }
}

fn serve_udp(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    while let Ok((_, client)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(greeting(name, client).as_bytes(), client);
    }
}

fn greeting(name: &str, client: SocketAddr) -> String {
    format!("{name} saw {}\n", client.ip().to_canonical())
}

fn run(program: &[String], input: &str) -> io::Result<Reply> {
    let (name, arguments) = program.split_first().ok_or(ErrorKind::InvalidInput)?;
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())?;
    }
    let ended = child.wait_with_output()?;
    Ok(Reply::Ran {
        success: ended.status.success(),
        output: String::from_utf8_lossy(&ended.stdout).into_owned(),
        errors: String::from_utf8_lossy(&ended.stderr).into_owned(),
    })
}
