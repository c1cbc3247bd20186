//! Questions to the running daemon, over its socket.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
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
        let body = super::runtime()?.block_on(request(&socket, method, path))?;
        let status = serde_json::from_slice(&body).context("the daemon's answer is not a status")?;
        Ok((body, status))
    }
}

/// Says what can be done about a daemon that cannot be reached.
async fn request(socket: &Path, method: Method, path: &str) -> anyhow::Result<Vec<u8>> {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    if let Err(error) = tokio::net::UnixStream::connect(socket).await {
        let shown = socket.display();
        match error.kind() {
            NotFound | ConnectionRefused => bail!(
                "no daemon answers on {shown}; is it running? (systemctl status l4lbd) The kernel keeps forwarding \
                 what it last held, which l4lbd plan compares with the cluster"
            ),
            PermissionDenied => {
                bail!("no permission to use {shown}: run as root or as a member of its group")
            }
            _ => return Err(error).with_context(|| shown.to_string()),
        }
    }
    Ok(client::ask(socket, method, path).await?)
}
