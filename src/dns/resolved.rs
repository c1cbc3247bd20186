//! systemd-resolved: has it ask us for our zones, and nobody else for them.
//!
//! Done with `resolvectl` on our own link, as an operator would do by hand: `~ZONE` routes names below
//! a zone to the link's server (split DNS) and everything else stays where it was. A D-Bus client
//! library would be larger than everything else here for two calls at the start. resolved forgets it
//! with the link, so that it is repeated: after the link came up, and now and then because resolved
//! may have been restarted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::DnsState;

/// How often the settings are repeated. It is one call, and changes nothing if nothing has changed.
const REPEAT: Duration = Duration::from_secs(60);

/// The same while they are not accepted, or while there is no link yet.
const RETRY: Duration = Duration::from_secs(2);

/// resolved answers within 25 s or not at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// There while resolved runs.
const RUNNING: &str = "/run/systemd/resolve";

/// `dns.resolved`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolved {
    Off,
    /// Where it runs.
    #[default]
    Auto,
    /// Where it runs, and say so where it doesn't.
    On,
}

/// What resolved is told.
#[derive(Clone, Debug)]
pub struct ResolvedSettings {
    pub mode: Resolved,
    pub link: String,
    /// Zones without their dot.
    pub domains: BTreeSet<String>,
}

impl ResolvedSettings {
    /// The arguments of `resolvectl` that say it.
    fn commands(&self, servers: &[SocketAddr]) -> [Vec<String>; 3] {
        let servers = servers.iter().map(|server| match (server.port(), server.ip()) {
            (53, address) => address.to_string(),
            _ => server.to_string(),
        });
        let command =
            |name: &str, values: Vec<String>| [vec![name.to_owned(), self.link.clone()], values].concat();
        [
            command("dns", servers.collect()),
            command("domain", self.domains.iter().map(|domain| format!("~{domain}")).collect()),
            command("default-route", vec!["no".to_owned()]),
        ]
    }
}

/// Keeps resolved informed while we listen, and lets it forget us at the end.
pub async fn run(
    settings: ResolvedSettings,
    publisher: watch::Sender<DnsState>,
    shutdown: CancellationToken,
) {
    let mut states = publisher.subscribe();
    if settings.mode == Resolved::Off {
        return shutdown.cancelled().await;
    }
    let mut last: Option<Result<(), String>> = None;
    loop {
        let servers = states.borrow_and_update().addresses.clone();
        let runs = Path::new(RUNNING).exists();
        // The first pass makes it.
        let has_link = Path::new("/sys/class/net").join(&settings.link).exists();
        if !servers.is_empty() && has_link && (runs || settings.mode == Resolved::On) {
            let told = tell(&settings, &servers).await;
            match &told {
                _ if last.as_ref() == Some(&told) => {}
                Ok(()) => tracing::info!(link = settings.link, "systemd-resolved asks us for our zones"),
                Err(error) => {
                    tracing::warn!(error, "systemd-resolved does not know of us: see dns.resolved");
                }
            }
            publisher.send_if_modified(|state| {
                let before = std::mem::replace(&mut state.resolved, told.clone().err());
                before != state.resolved
            });
            last = Some(told);
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = states.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(if last == Some(Ok(())) { REPEAT } else { RETRY }) => {}
        }
    }
    if last == Some(Ok(())) {
        // Best effort: resolved asks others again as soon as we do not answer.
        let _ = call(&["revert".to_owned(), settings.link.clone()]).await;
    }
}

async fn tell(settings: &ResolvedSettings, servers: &[SocketAddr]) -> Result<(), String> {
    for command in settings.commands(servers) {
        call(&command).await?;
    }
    Ok(())
}

async fn call(arguments: &[String]) -> Result<(), String> {
    let shown = format!("resolvectl {}", arguments.join(" "));
    let child = Command::new("resolvectl").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(PATIENCE, child).await {
        Ok(output) => output.map_err(|error| format!("{shown}: {error}"))?,
        Err(_) => return Err(format!("{shown}: no answer in {} s", PATIENCE.as_secs())),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let denied = said.contains("authentication") || said.contains("denied");
    let hint = if denied { " (is systemd/polkit-1/l4lbd.rules installed?)" } else { "" };
    Err(format!("{shown}: {}{hint}", said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolved_is_told_of_our_server_and_our_zones_only() {
        let settings = ResolvedSettings {
            mode: Resolved::Auto,
            link: "minuteman".to_owned(),
            domains: ["mesos", "thisdcos.directory"].map(str::to_owned).into(),
        };
        let servers = ["198.51.100.1:53", "[fd01::1]:5353"].map(|server| server.parse().unwrap());
        let commands = settings.commands(&servers).map(|command| command.join(" "));
        assert_eq!(
            commands,
            [
                "dns minuteman 198.51.100.1 [fd01::1]:5353",
                "domain minuteman ~mesos ~thisdcos.directory",
                "default-route minuteman no",
            ]
        );
    }

    /// With or without resolved: it takes no server for the loopback link.
    #[tokio::test]
    async fn a_refusal_is_told() {
        let listening =
            DnsState { addresses: vec!["198.51.100.1:53".parse().unwrap()], ..DnsState::default() };
        let (publisher, mut states) = watch::channel(listening);
        let settings = ResolvedSettings {
            mode: Resolved::On,
            link: "lo".to_owned(),
            domains: ["mesos".to_owned()].into(),
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(settings, publisher, shutdown.clone()));
        let told = states.wait_for(|state| state.resolved.is_some()).await.unwrap().resolved.clone();
        assert!(told.unwrap().starts_with("resolvectl dns lo"));
        shutdown.cancel();
        running.await.unwrap();
    }
}
