//! An agent's machine: a network namespace, and in it instances that answer HTTP with their name.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::scenario::Instance;
use super::tools::ip;

/// How long an instance takes what its listener still has when it stops listening.
const LAST_ORDERS: Duration = Duration::from_millis(250);

/// Longest request; nobody sends one.
const LONGEST: usize = 64;

/// What an agent is told, one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The link `eth0` is here: take this address.
    Address(Ipv4Addr),
    Start(u8),
    /// Finish what is under way, as after SIGTERM.
    Stop(u8),
    /// Stop listening.
    End(u8),
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The namespace is there.
    Entered,
    Reachable,
    Listening(u8),
    Failed(String),
}

/// An instance that listens.
struct Serving {
    stopping: CancellationToken,
    ended: CancellationToken,
}

/// Does what its input says, to the end of that.
///
/// # Errors
/// Without the right to make namespaces, or when nobody listens to the answers.
pub fn run() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    report(&Report::Entered)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(obey())
}

async fn obey() -> io::Result<()> {
    let (sender, mut orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line).map_err(drop))
    });
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut serving = BTreeMap::new();
    while let Some(line) = orders.recv().await {
        match serde_json::from_str(&line)? {
            Order::Address(given) => {
                address = given;
                let commands = format!("link set lo up\naddress add {given}/24 dev eth0\nlink set eth0 up\n");
                report(&ip(&commands).map_or_else(failed, |()| Report::Reachable))?;
            }
            Order::Start(number) => {
                let instance = Instance(number);
                let started = start(instance, SocketAddr::from((address, instance.port()))).await;
                report(&match started {
                    Ok(started) => {
                        serving.insert(number, started);
                        Report::Listening(number)
                    }
                    Err(error) => failed(error),
                })?;
            }
            Order::Stop(number) => {
                if let Some(Serving { stopping, .. }) = serving.get(&number) {
                    stopping.cancel();
                }
            }
            Order::End(number) => {
                if let Some(Serving { ended, .. }) = serving.remove(&number) {
                    ended.cancel();
                }
            }
        }
    }
    Ok(())
}

fn failed(error: io::Error) -> Report {
    Report::Failed(error.to_string())
}

fn report(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    out.flush()
}

async fn start(instance: Instance, address: SocketAddr) -> io::Result<Serving> {
    let listener = TcpListener::bind(address).await?;
    let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
    let greeting = format!("{instance} on {}\n", instance.agent());
    tokio::spawn(listen(listener, greeting, stopping.clone(), ended.clone()));
    Ok(Serving { stopping, ended })
}

async fn listen(
    listener: TcpListener,
    greeting: String,
    stopping: CancellationToken,
    ended: CancellationToken,
) {
    let end = async {
        ended.cancelled().await;
        tokio::time::sleep(LAST_ORDERS).await;
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            accepted = listener.accept() => if let Ok((connection, _)) = accepted {
                tokio::spawn(converse(connection, greeting.clone(), stopping.clone()));
            },
        }
    }
}

/// Answers every request, until the client has enough or is told that this was the last answer.
async fn converse(mut connection: TcpStream, greeting: String, stopping: CancellationToken) {
    let (reader, mut writer) = connection.split();
    let mut lines = BufReader::new(reader).lines();
    loop {
        let mut last = false;
        let mut read = 0;
        loop {
            match lines.next_line().await {
                Ok(Some(line)) if line.is_empty() => break,
                Ok(Some(line)) if read < LONGEST => {
                    read += 1;
                    last |= line.eq_ignore_ascii_case("connection: close");
                }
                _ => return,
            }
        }
        last |= stopping.is_cancelled();
        let connection = if last { "close" } else { "keep-alive" };
        let length = greeting.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n\r\n{greeting}"
        );
        if writer.write_all(answer.as_bytes()).await.is_err() || last {
            return;
        }
    }
}
