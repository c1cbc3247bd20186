//! The process of an agent: a network namespace, and in it instances that answer HTTP requests with their name.
//!
//! Commands come on standard input and reports go to standard output, one line of JSON each.

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

use super::scenario::InstanceId;
use super::tools::ip;

/// Time for which an ended instance still accepts connections that the kernel had queued for it.
const ACCEPT_GRACE: Duration = Duration::from_millis(250);

/// Most header lines of a request; the demonstration's client sends fewer.
const MAX_HEADER_LINES: usize = 64;

/// A command to an agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum AgentCommand {
    /// Take this address on the link `eth0`, which is there now.
    Address(Ipv4Addr),
    Start(InstanceId),
    /// Close each connection after its next answer, as servers do after SIGTERM.
    Stop(InstanceId),
    /// Stop listening.
    End(InstanceId),
}

/// A report of an agent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentReport {
    /// The network namespace exists.
    Entered,
    /// The address is set.
    Reachable,
    Listening(InstanceId),
    /// A command could not be carried out.
    Failed(String),
}

/// Handles of an instance that listens.
struct RunningInstance {
    stopping: CancellationToken,
    ended: CancellationToken,
}

/// Carries out the commands of standard input until it ends.
///
/// # Errors
/// When namespaces cannot be created, a command cannot be read, or standard output is closed.
pub fn run() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    report(&AgentReport::Entered)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve_commands())
}

async fn serve_commands() -> io::Result<()> {
    let (sender, mut commands) = mpsc::unbounded_channel();
    // Standard input has no asynchronous reading that ends with the process.
    std::thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line).map_err(drop))
    });
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut instances: BTreeMap<InstanceId, RunningInstance> = BTreeMap::new();
    while let Some(line) = commands.recv().await {
        match serde_json::from_str(&line)? {
            AgentCommand::Address(given) => {
                address = given;
                let commands = format!("link set lo up\naddress add {given}/24 dev eth0\nlink set eth0 up\n");
                report(&ip(&commands).map_or_else(failed, |()| AgentReport::Reachable))?;
            }
            AgentCommand::Start(instance) => {
                let started = start(instance, SocketAddr::from((address, instance.port()))).await;
                report(&match started {
                    Ok(started) => {
                        instances.insert(instance, started);
                        AgentReport::Listening(instance)
                    }
                    Err(error) => failed(error),
                })?;
            }
            AgentCommand::Stop(instance) => {
                if let Some(RunningInstance { stopping, .. }) = instances.get(&instance) {
                    stopping.cancel();
                }
            }
            AgentCommand::End(instance) => {
                if let Some(RunningInstance { ended, .. }) = instances.remove(&instance) {
                    ended.cancel();
                }
            }
        }
    }
    Ok(())
}

fn failed(error: io::Error) -> AgentReport {
    AgentReport::Failed(error.to_string())
}

fn report(report: &AgentReport) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    out.flush()
}

async fn start(instance: InstanceId, address: SocketAddr) -> io::Result<RunningInstance> {
    let listener = TcpListener::bind(address).await?;
    let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
    let greeting = format!("{instance} on {}\n", instance.agent());
    tokio::spawn(accept_connections(listener, greeting, stopping.clone(), ended.clone()));
    Ok(RunningInstance { stopping, ended })
}

/// Accepts connections until the instance has ended.
async fn accept_connections(
    listener: TcpListener,
    greeting: String,
    stopping: CancellationToken,
    ended: CancellationToken,
) {
    let end = async {
        ended.cancelled().await;
        tokio::time::sleep(ACCEPT_GRACE).await;
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            accepted = listener.accept() => if let Ok((connection, _)) = accepted {
                tokio::spawn(serve_connection(connection, greeting.clone(), stopping.clone()));
            },
        }
    }
}

/// Answers requests until the client closes the connection or asks for that, or the instance is stopping.
async fn serve_connection(mut connection: TcpStream, greeting: String, stopping: CancellationToken) {
    let (reader, mut writer) = connection.split();
    let mut lines = BufReader::new(reader).lines();
    loop {
        // One request: its header lines up to the empty one. It has no body.
        let mut last = false;
        let mut read = 0;
        loop {
            match lines.next_line().await {
                Ok(Some(line)) if line.is_empty() => break,
                Ok(Some(line)) if read < MAX_HEADER_LINES => {
                    read += 1;
                    last |= line.eq_ignore_ascii_case("connection: close");
                }
                _ => return,
            }
        }
        // A stopping server finishes this request and tells the client to go elsewhere for the next one.
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
