//! The processes that play parts, as the director holds them.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::agent::Report;
use super::client::Record;
use super::part::{self, Part};
use super::story::Agent;
use crate::status::Status;

/// How long a part may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(7);

/// What the director hears.
#[derive(Debug)]
pub enum Note {
    Agent(Agent, Report),
    Client(Record),
    Status(Box<Status>),
    /// Somebody says nothing any more.
    Silent(String),
}

pub type Notes = mpsc::UnboundedSender<Note>;

/// A process that is told things, and tells.
pub struct Hand {
    child: Child,
    orders: Option<ChildStdin>,
    listening: JoinHandle<()>,
}

impl Hand {
    /// Starts the part; what it says becomes notes.
    pub fn start<T: DeserializeOwned>(
        part: &Part,
        cgroup: Option<&Path>,
        name: String,
        notes: Notes,
        note: impl Fn(T) -> Note + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = Command::from(part::command_of_ours(part, cgroup));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let orders = child.stdin.take();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let listening = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let heard = serde_json::from_str(&line).map(&note);
                if heard.is_ok_and(|heard| notes.send(heard).is_err()) {
                    return;
                }
            }
            let _ = notes.send(Note::Silent(name));
        });
        Ok(Self { child, orders, listening })
    }

    /// Its process, while it lives.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub async fn order(&mut self, order: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        match &mut self.orders {
            Some(orders) => orders.write_all(line.as_bytes()).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets it finish, and returns when everything that it said has become notes.
    pub async fn dismiss(mut self) {
        drop(self.orders.take());
        if tokio::time::timeout(PATIENCE, &mut self.listening).await.is_err() {
            self.listening.abort();
        }
        self.end().await;
    }

    /// Kills it.
    pub async fn end(mut self) {
        // It may have ended before.
        let _ = self.child.kill().await;
    }
}
