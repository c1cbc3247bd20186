//! The client process: connects to the VIP by its name, as any program would, and reports every connection.
//!
//! The name is looked up for every connection, through the system's resolver. While that does not answer, because the
//! daemon and with it the DNS server is down, the client uses the last address it was given, as resolvers do that serve
//! stale answers (RFC 8767). Such connections are marked. Records go to standard output, one line of JSON each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Name of the VIP.
pub const NAME: &str = "web.marathon.l4lb.thisdcos.directory";

pub const PORT: u16 = 80;

/// Threads that connect again and again.
const WORKERS: usize = 4;

/// Pause between two connections of a worker.
const PAUSE: Duration = Duration::from_millis(40);

/// Pause between two requests on the long-lived connection.
const REQUEST_PAUSE: Duration = Duration::from_millis(200);

/// Longest wait for a connection or an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the first answer to the name.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// Result of one connection, or of one request on the long-lived connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRecord {
    /// A connection took `micros` microseconds to be established and was answered by the task `by`.
    Answered {
        by: String,
        micros: u32,
        /// True if the name server did not answer and the last known address was used.
        stale_address: bool,
    },
    /// A connection could not be made, or had no answer.
    Failed { error: String },
    /// A request on the long-lived connection was answered by the task `by`.
    LongLivedAnswered { by: String },
    /// The long-lived connection to the task `by` ended although its server had not announced that.
    LongLivedBroken { by: String, error: String },
}

/// State that the threads share.
struct ClientState {
    /// Set once no more connections are to be made.
    over: AtomicBool,
    output: Mutex<io::Stdout>,
    /// The long-lived connection, so that waiting for its answer can be cut short.
    long_lived: Mutex<Option<TcpStream>>,
}

/// Last answer of the resolver.
#[derive(Default)]
struct LastAddress(Option<SocketAddr>);

/// One HTTP response.
struct Response {
    /// Task that answered.
    by: String,
    /// True if the server closes the connection after it.
    last: bool,
}

/// Makes connections until standard input ends.
///
/// # Errors
/// When the name of the VIP cannot be looked up in time.
pub fn run() -> io::Result<()> {
    // The daemon has just been started: its name server may need a moment.
    let began = Instant::now();
    while let Err(error) = look_up() {
        if began.elapsed() > FIRST_ANSWER {
            return Err(error);
        }
        thread::sleep(PAUSE);
    }
    let client = ClientState {
        over: AtomicBool::new(false),
        output: Mutex::new(io::stdout()),
        long_lived: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| client.connect_repeatedly());
        }
        scope.spawn(|| client.keep_long_lived());
        let ended = io::stdin().read_to_end(&mut Vec::new());
        client.over.store(true, Ordering::Relaxed);
        if let Ok(Some(connection)) = client.long_lived.lock().as_deref() {
            // Fails if the server has closed it, which is as good.
            let _ = connection.shutdown(Shutdown::Both);
        }
        ended.map(drop)
    })
}

impl ClientState {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Writes a record, and ends the client if the demonstration no longer reads.
    fn report(&self, record: &ClientRecord) {
        let written = serde_json::to_string(record).map_err(io::Error::from).and_then(|line| {
            let mut output = self.output.lock().map_err(|_| io::Error::other("a thread panicked"))?;
            writeln!(output, "{line}")?;
            output.flush()
        });
        if written.is_err() {
            self.over.store(true, Ordering::Relaxed);
        }
    }

    fn connect_repeatedly(&self) {
        let mut last_address = LastAddress::default();
        while !self.is_over() {
            self.report(&match request_once(&mut last_address) {
                Ok(answered) => answered,
                Err(error) => ClientRecord::Failed { error: text(&error) },
            });
            thread::sleep(PAUSE);
        }
    }

    /// Uses one connection for as long as its server allows, and then opens another one.
    fn keep_long_lived(&self) {
        let mut last_address = LastAddress::default();
        while !self.is_over() {
            let mut by = String::new();
            if let Err(error) = self.request_repeatedly(&mut last_address, &mut by)
                && !self.is_over()
            {
                self.report(&match by.is_empty() {
                    true => ClientRecord::Failed { error: text(&error) },
                    false => ClientRecord::LongLivedBroken { by, error: text(&error) },
                });
            }
            thread::sleep(REQUEST_PAUSE);
        }
    }

    /// Sends requests on one connection until its server announces the end of it. `by` becomes the task that answers.
    fn request_repeatedly(&self, last_address: &mut LastAddress, by: &mut String) -> io::Result<()> {
        let (address, _) = last_address.resolve()?;
        let mut connection = connect(address)?;
        if let Ok(mut long_lived) = self.long_lived.lock() {
            *long_lived = Some(connection.try_clone()?);
        }
        while !self.is_over() {
            let Response { by: server, last } = send_request(&mut connection, "keep-alive")?;
            by.clone_from(&server);
            self.report(&ClientRecord::LongLivedAnswered { by: server });
            if last {
                return Ok(());
            }
            thread::sleep(REQUEST_PAUSE);
        }
        Ok(())
    }
}

impl LastAddress {
    /// Returns the address of the name, and true if it is the last known one because the look-up failed.
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
    let none = || io::Error::other(format!("{NAME} has no address"));
    addresses
        .map_err(|error| io::Error::other(format!("cannot look up {NAME}: {error}")))?
        .next()
        .ok_or_else(none)
}

/// Makes one connection with one request.
fn request_once(last_address: &mut LastAddress) -> io::Result<ClientRecord> {
    let (address, stale_address) = last_address.resolve()?;
    let began = Instant::now();
    let mut connection = connect(address)?;
    let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    let Response { by, .. } = send_request(&mut connection, "close")?;
    Ok(ClientRecord::Answered { by, micros, stale_address })
}

/// Describes an error for the screen.
fn text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer for {} s", TIMEOUT.as_secs())
        }
        _ => error.to_string(),
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// Sends one request and reads its response. `keep` is the value of the header `Connection`.
fn send_request(connection: &mut TcpStream, keep: &str) -> io::Result<Response> {
    connection.write_all(
        format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: l4lbd-demo\r\nConnection: {keep}\r\n\r\n")
            .as_bytes(),
    )?;
    // A new buffer for each response loses nothing: the server sends no byte after it before the next request.
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
    Ok(Response { by, last })
}
