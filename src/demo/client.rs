//! The client: dials the VIP by its name, as any program would, and tells of every connection.
//!
//! The name is looked up for every connection, through the system's resolver. Where that has no answer,
//! because the daemon and with it the DNS server is down, the last answer has to do, as with resolvers that
//! serve stale answers (RFC 8767); such connections are counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is dialled.
pub const NAME: &str = "web.marathon.l4lb.thisdcos.directory";

pub const PORT: u16 = 80;

/// How many dial at once.
const WORKERS: usize = 4;

/// Time between two connections of a worker.
const PAUSE: Duration = Duration::from_millis(40);

/// Time between two requests on the connection that is kept.
const TALK: Duration = Duration::from_millis(200);

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the name to be there at all.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// What a client has to tell, one line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A connection was answered by the task `by`; it took so many microseconds to be established.
    Answered { by: String, micros: u32, remembered: bool },
    /// It was not.
    Failed { error: String },
    /// The kept connection was answered.
    Kept { by: String },
    /// It broke without a word.
    Broken { by: String, error: String },
}

struct Client {
    over: AtomicBool,
    output: Mutex<io::Stdout>,
    /// The connection that is kept, so that waiting for an answer can be ended.
    kept: Mutex<Option<TcpStream>>,
}

/// The last answer of the resolver.
#[derive(Default)]
struct Memory(Option<SocketAddr>);

/// An answer, and whether it is the server's last one on this connection.
struct Answer {
    by: String,
    last: bool,
}

/// Dials until the input ends.
///
/// # Errors
/// When the name is not there.
pub fn run() -> io::Result<()> {
    let began = Instant::now();
    while let Err(error) = look_up() {
        if began.elapsed() > FIRST_ANSWER {
            return Err(error);
        }
        thread::sleep(PAUSE);
    }
    let client =
        Client { over: AtomicBool::new(false), output: Mutex::new(io::stdout()), kept: Mutex::default() };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| client.dial_again_and_again());
        }
        scope.spawn(|| client.keep_one());
        let ended = io::stdin().read_to_end(&mut Vec::new());
        client.over.store(true, Ordering::Relaxed);
        if let Ok(Some(kept)) = client.kept.lock().as_deref() {
            // It may have been closed by the server.
            let _ = kept.shutdown(Shutdown::Both);
        }
        ended.map(drop)
    })
}

impl Client {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn tell(&self, record: &Record) {
        let told = serde_json::to_string(record).map_err(io::Error::from).and_then(|line| {
            let mut output = self.output.lock().map_err(|_| io::Error::other("a thread panicked"))?;
            writeln!(output, "{line}")?;
            output.flush()
        });
        if told.is_err() {
            self.over.store(true, Ordering::Relaxed);
        }
    }

    fn dial_again_and_again(&self) {
        let mut memory = Memory::default();
        while !self.is_over() {
            self.tell(&match dial(&mut memory) {
                Ok((answer, micros, remembered)) => Record::Answered { by: answer.by, micros, remembered },
                Err(error) => Record::Failed { error: text(&error) },
            });
            thread::sleep(PAUSE);
        }
    }

    /// Talks on one connection for as long as its server likes, and then on another one.
    fn keep_one(&self) {
        let mut memory = Memory::default();
        while !self.is_over() {
            let mut by = String::new();
            if let Err(error) = self.talk(&mut memory, &mut by)
                && !self.is_over()
            {
                self.tell(&match by.is_empty() {
                    true => Record::Failed { error: text(&error) },
                    false => Record::Broken { by, error: text(&error) },
                });
            }
            thread::sleep(TALK);
        }
    }

    fn talk(&self, memory: &mut Memory, by: &mut String) -> io::Result<()> {
        let (address, _) = memory.resolve()?;
        let mut connection = connect(address)?;
        if let Ok(mut kept) = self.kept.lock() {
            *kept = Some(connection.try_clone()?);
        }
        while !self.is_over() {
            let Answer { by: server, last } = ask(&mut connection, "keep-alive")?;
            by.clone_from(&server);
            self.tell(&Record::Kept { by: server });
            if last {
                return Ok(());
            }
            thread::sleep(TALK);
        }
        Ok(())
    }
}

impl Memory {
    /// The address of the name, and whether it is remembered.
    fn resolve(&mut self) -> io::Result<(SocketAddr, bool)> {
        match (look_up(), self.0) {
            (Ok(address), _) => {
                self.0 = Some(address);
                Ok((address, false))
            }
            (Err(_), Some(address)) => Ok((address, true)),
            (Err(error), None) => Err(error),
        }
    }
}

fn look_up() -> io::Result<SocketAddr> {
    let addresses = (NAME, PORT).to_socket_addrs();
    let none = || io::Error::other("the name has no address");
    addresses
        .map_err(|error| io::Error::other(format!("looking {NAME} up: {error}")))?
        .next()
        .ok_or_else(none)
}

fn dial(memory: &mut Memory) -> io::Result<(Answer, u32, bool)> {
    let (address, remembered) = memory.resolve()?;
    let began = Instant::now();
    let mut connection = connect(address)?;
    let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    Ok((ask(&mut connection, "close")?, micros, remembered))
}

fn text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing came for {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// One request and its answer.
fn ask(connection: &mut TcpStream, keep: &str) -> io::Result<Answer> {
    connection.write_all(
        format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: l4lbd-demo\r\nConnection: {keep}\r\n\r\n")
            .as_bytes(),
    )?;
    // Nothing comes after the answer, so that no buffer takes what belongs to the next one.
    let mut reader = BufReader::new(connection);
    let mut last = false;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("connection", value)) => last = value == "close",
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    let by = body.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Answer { by, last })
}
