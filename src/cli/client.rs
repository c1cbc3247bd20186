//! Requests to the running daemon, over its socket.

use std::io;
use std::path::PathBuf;

use reqwest::Method;
use serde::de::DeserializeOwned;

use super::ConfigFile;
use crate::api::client;
use crate::config::socket::{self, FoundSocket};
use crate::status::text::line;

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
    /// Sends a request and returns the answer, as sent and as read.
    pub fn ask<T: DeserializeOwned>(self, method: Method, path: &str) -> anyhow::Result<(Vec<u8>, T)> {
        let socket = self.into_socket()?;
        Ok(super::runtime()?.block_on(client::fetch_json(&socket, method, path))?)
    }

    /// Asks for something that is no JSON, and returns the answer as sent.
    pub fn fetch(self, path: &str) -> anyhow::Result<Vec<u8>> {
        let socket = self.into_socket()?;
        Ok(super::runtime()?.block_on(client::fetch(&socket, Method::GET, path))?)
    }

    /// Returns the socket on which the daemon is asked.
    pub fn into_socket(self) -> anyhow::Result<PathBuf> {
        match self.socket {
            Some(socket) => Ok(socket),
            None => self.find_socket(),
        }
    }

    /// Returns the socket of the configuration; a broken file is no reason to ask nothing.
    fn find_socket(&self) -> anyhow::Result<PathBuf> {
        let FoundSocket { path, error } = socket::find(self.config.config.as_deref())?;
        if let Some(error) = error {
            let mut out = io::stderr().lock();
            for problem in error.to_string().lines() {
                line(&mut out, format_args!("l4lbd: warning: {problem}"))?;
            }
            line(
                &mut out,
                format_args!(
                    "l4lbd: warning: the daemon would not start with this configuration file; asking on {} \
                     (--socket gives another one)",
                    path.display()
                ),
            )?;
        }
        Ok(path)
    }
}
