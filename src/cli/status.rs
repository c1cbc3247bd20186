//! `l4lbd status`

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use super::table::Table;
use super::{ConfigFile, DEGRADED};
use crate::status::{Pass, Source, Status, Vip, age};

/// Longest wait for the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Socket of the daemon [default: daemon.socket of the configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let socket = match self.socket {
            Some(socket) => socket,
            None => self.config.load()?.daemon.socket,
        };
        let body = super::runtime()?.block_on(fetch(&socket))?;
        let status: Status = serde_json::from_slice(&body).context("the daemon's answer is not a status")?;
        let mut out = io::stdout().lock();
        if self.json {
            out.write_all(&body)?;
            writeln!(out)?;
        } else {
            write(&mut out, &status)?;
        }
        Ok(if status.degraded { ExitCode::from(DEGRADED) } else { ExitCode::SUCCESS })
    }
}

async fn fetch(socket: &Path) -> anyhow::Result<Vec<u8>> {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    if let Err(error) = tokio::net::UnixStream::connect(socket).await {
        let shown = socket.display();
        match error.kind() {
            NotFound | ConnectionRefused => bail!(
                "no daemon answers on {shown}; is it running? (systemctl status l4lbd) The kernel keeps forwarding \
                 what it last held: ipvsadm -Ln"
            ),
            PermissionDenied => {
                bail!("no permission to use {shown}: run as root or as a member of its group")
            }
            _ => return Err(error).with_context(|| shown.to_string()),
        }
    }
    // Fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // No certificate is ever looked at on a Unix socket, and reading them all takes long.
    let client =
        reqwest::Client::builder().unix_socket(socket).tls_certs_only([]).timeout(TIMEOUT).build()?;
    let response = client.get("http://l4lbd/status").send().await?.error_for_status()?;
    Ok(response.bytes().await?.into())
}

fn write(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let address = status.node.address.map(|address| format!(" ({address})")).unwrap_or_default();
    let health = if status.degraded { "DEGRADED" } else { "ok" };
    writeln!(out, "{health}: l4lbd {} on {}{address}", status.version, status.node.hostname)?;
    for reason in &status.reasons {
        writeln!(out, "  ! {reason}")?;
    }
    let now = status.at;
    writeln!(out, "source   {}", source(&status.source, now))?;
    if !status.source.pace.is_empty() {
        writeln!(out, "         asked {}", status.source.pace)?;
    }
    writeln!(out, "kernel   {}", kernel(&status.pass, now))?;
    let dns: Vec<String> = status.dns.addresses.iter().map(SocketAddr::to_string).collect();
    writeln!(out, "dns      {}", if dns.is_empty() { "not served".to_owned() } else { dns.join(", ") })?;
    writeln!(out, "vips     {}", status.counts())?;
    writeln!(out)?;
    vips(&status.vips).write(out)?;
    section(out, "WARNINGS", &status.warnings)?;
    section(out, "SKIPPED", &status.skipped)?;
    let foreign: Vec<&String> = status.foreign.iter().map(|foreign| &foreign.service).collect();
    section(out, "VIRTUAL SERVICES OF OTHERS", &foreign)
}

fn source(source: &Source, now: jiff::Timestamp) -> String {
    let Some(good_at) = source.good_at else {
        return format!("{} (no state yet)", source.configured.join(", "));
    };
    let master = source.master.as_ref().map(|id| format!(", master {id}")).unwrap_or_default();
    format!(
        "{}{master}, confirmed {} ago: {} agents, {} tasks with VIPs",
        source.place,
        age(good_at, now),
        source.agents,
        source.tasks
    )
}

fn kernel(pass: &Pass, now: jiff::Timestamp) -> String {
    let Some(at) = pass.at else { return "not programmed yet".to_owned() };
    let mut text = format!("compared {} ago in {:.3} s", age(at, now), pass.seconds);
    if let Some(changed) = pass.changed_at {
        text += &format!(", changed {} ago ({} operations)", age(changed, now), pass.operations);
    }
    if pass.pending > 0 {
        text += &format!(", {} operations pending", pass.pending);
    }
    match pass.repaired_at {
        Some(repaired) => text + &format!(", {} repaired, last {} ago", pass.repaired, age(repaired, now)),
        None => text + ", nothing had to be repaired",
    }
}

/// VIPs with one line per backend.
pub fn vips(vips: &[Vip]) -> Table {
    let counted = vips.iter().flat_map(|vip| &vip.backends).any(|backend| backend.connections.is_some());
    let mut header = vec!["VIP", "SERVICE", "BACKEND", "WEIGHT"];
    if counted {
        header.extend(["ACTIVE", "INACTIVE"]);
    }
    header.extend(["AGENT", "TASK"]);
    let mut table = Table::new(&header);
    for vip in vips {
        let name = vip.name.clone().unwrap_or_else(|| "(literal)".to_owned());
        let service = format!("{} {}", vip.protocol, SocketAddr::new(vip.address, vip.port));
        if vip.backends.is_empty() {
            table.row([name, service, "none: connections are refused".to_owned()]);
            continue;
        }
        for (index, backend) in vip.backends.iter().enumerate() {
            let first = index == 0;
            let mut row = vec![
                if first { name.clone() } else { String::new() },
                if first { service.clone() } else { String::new() },
                SocketAddr::new(backend.address, backend.port).to_string(),
                backend.weight.to_string(),
            ];
            if counted {
                let connections = backend.connections.unwrap_or_default();
                row.extend([connections.active.to_string(), connections.inactive.to_string()]);
            }
            row.extend([backend.agent.clone(), backend.task.clone()]);
            table.row(row);
        }
    }
    table
}

/// A titled list, if there is anything in it.
pub fn section(out: &mut impl Write, title: &str, lines: &[impl std::fmt::Display]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title} ({})", lines.len())?;
    for line in lines {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
