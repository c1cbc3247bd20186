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
        let (socket, warnings) = self.find_socket()?;
        warnings.print()?;
        Ok(socket)
    }

    /// Returns the socket, and what is wrong with the file that names it: no reason to ask nothing.
    pub fn find_socket(self) -> anyhow::Result<(PathBuf, FileWarnings)> {
        if let Some(socket) = self.socket {
            return Ok((socket, FileWarnings::default()));
        }
        let FoundSocket { path, error } = socket::find(self.config.config.as_deref())?;
        let Some(error) = error else { return Ok((path, FileWarnings::default())) };
        let asking = format!(
            "the daemon would not start with this configuration file; asking on {} (--socket gives another one)",
            path.display()
        );
        Ok((path, FileWarnings(error.to_string().lines().map(str::to_owned).chain([asking]).collect())))
    }
}

/// Warnings about the configuration file, in lines.
#[derive(Debug, Default)]
pub struct FileWarnings(Vec<String>);

impl FileWarnings {
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stderr().lock();
        self.0.iter().try_for_each(|warning| line(&mut out, format_args!("l4lbd: warning: {warning}")))
    }
}
