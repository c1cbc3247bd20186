//! Requests to the running daemon, over its socket.

use std::path::PathBuf;

use reqwest::Method;

use super::ConfigFile;
use crate::api::client;
use crate::status::Status;

/// Location of the running daemon.
#[derive(Debug, clap::Args)]
pub struct RunningDaemon {
    #[command(flatten)]
    config: ConfigFile,
    /// Socket of the daemon [default: daemon.socket of the configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl RunningDaemon {
    /// Sends a request and returns the status that answers it, as sent and as read.
    pub fn ask(self, method: Method, path: &str) -> anyhow::Result<(Vec<u8>, Status)> {
        let socket = match self.socket {
            Some(socket) => socket,
            None => self.config.load()?.daemon.socket,
        };
        let answer = super::runtime()?.block_on(client::ask(&socket, method, path))?;
        Ok((answer.body, answer.status))
    }
}
