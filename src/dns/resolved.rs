//! The registration with systemd-resolved, which has it ask this server for our zones.
//!
//! Done with `resolvectl` on our own link, as an operator would do by hand: `~ZONE` routes names below
//! a zone to the link's server (split DNS) and everything else stays as it was. resolved forgets the
//! settings with the link and when it restarts, and takes none where polkit has not started yet, so that
//! they are repeated after each of these (`events`), and now and then for what no event tells.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::DnsState;
use crate::units::program::{self, Failure};

mod events;

/// Pause before the settings are repeated, which changes nothing if nothing has changed.
const REPEAT: Duration = Duration::from_secs(60);

/// Longest pause before a retry, while the settings are not accepted or there is no link yet.
const RETRY: Duration = Duration::from_secs(2);

/// First pause before a retry: resolved hears of a new link no sooner than this program. It doubles up to
/// [`RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Longest wait for `resolvectl`; D-Bus itself gives up after 25 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest wait for `resolvectl` at the end, which does not wait for a resolved that hangs.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Directory that exists while resolved runs.
const RUNNING: &str = "/run/systemd/resolve";

/// `dns.resolved`: the registration with systemd-resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolved {
    /// Never.
    Off,
    /// Only on nodes where resolved runs.
    #[default]
    Auto,
    /// Always; a node without resolved gets a warning.
    On,
}

/// Settings of the registration.
#[derive(Clone, Debug)]
pub struct ResolvedSettings {
    pub mode: Resolved,
    /// Name of our link.
    pub link: String,
    /// Origins of the zones, without the dot at the end.
    pub domains: BTreeSet<String>,
    /// Program that tells resolved, `resolvectl` or one that stands in for it.
    pub program: PathBuf,
    /// Address of the bus on which resolved is; `None` for that of the system.
    pub bus: Option<String>,
}

impl ResolvedSettings {
    /// The arguments of each call of `resolvectl`.
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

/// Registers the server while it listens, and takes that back at the end. Publishes in `publisher` why
/// resolved does not ask this server.
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
    let mut was_interrupted = false;
    let changed = Arc::new(Notify::new());
    // Ends with this function.
    let mut watching = tokio::task::JoinSet::new();
    watching.spawn(events::follow_link(settings.link.clone(), Arc::clone(&changed), shutdown.clone()));
    watching.spawn(events::follow_names(settings.bus.clone(), Arc::clone(&changed)));
    let mut retry = FIRST_RETRY;
    loop {
        // Read in each round: the server may listen elsewhere after a retry.
        let servers = states.borrow_and_update().addresses.clone();
        let runs = Path::new(RUNNING).exists();
        // The link is made by the first pass of the reconcile loop.
        let has_link = events::link_index(&settings.link).is_some();
        // resolved would ask an address where nothing answers, or refuse a link that it does not know.
        if !servers.is_empty() && has_link && (runs || settings.mode == Resolved::On) {
            let told = tokio::select! {
                told = tell(&settings, &servers) => told,
                () = shutdown.cancelled() => {
                    was_interrupted = true;
                    break;
                }
                // A call may wait for a polkit that never answers it, and then the next one is answered.
                () = changed.notified() => {
                    retry = FIRST_RETRY;
                    tokio::time::sleep(FIRST_RETRY).await;
                    continue;
                }
            };
            match &told {
                // Only a change is logged: the calls are repeated for ever.
                _ if last.as_ref() == Some(&told) => {}
                Ok(()) => {
                    tracing::info!(link = settings.link, "systemd-resolved asks this server for its zones");
                }
                Err(error) => tracing::warn!(
                    error,
                    "systemd-resolved does not ask this server for its zones, trying again; dns.resolved = \
                     \"off\" ends that"
                ),
            }
            // Only where it differs, because each change of the state wakes this very loop.
            publisher.send_if_modified(|state| {
                let before = std::mem::replace(&mut state.resolved, told.clone().err());
                before != state.resolved
            });
            last = Some(told);
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = states.changed() => if changed.is_err() { break },
            () = changed.notified() => retry = FIRST_RETRY,
            () = tokio::time::sleep(if last == Some(Ok(())) { REPEAT } else { retry }) => {
                retry = (2 * retry).min(RETRY);
            }
        }
    }
    // Settings of an operator are left alone if ours never took their place.
    if was_interrupted || last == Some(Ok(())) {
        // An error has no consequence: resolved asks its other servers when this one does not answer.
        let _ = call(&settings.program, &["revert".to_owned(), settings.link.clone()], LAST_PATIENCE).await;
    }
}

/// Makes all calls, and ends with the first error.
async fn tell(settings: &ResolvedSettings, servers: &[SocketAddr]) -> Result<(), String> {
    for command in settings.commands(servers) {
        call(&settings.program, &command, PATIENCE).await?;
    }
    Ok(())
}

/// Runs `resolvectl`; an error names the command and the beginning of what it said.
async fn call(program: &Path, arguments: &[String], patience: Duration) -> Result<(), String> {
    let shown = format!("resolvectl {}", arguments.join(" "));
    let said = match program::run(program, arguments, "", patience).await {
        Ok(_) => return Ok(()),
        Err(Failure::Says(said)) => said,
        Err(failure) => return Err(format!("{shown}: {failure}")),
    };
    // resolved asks polkit, which refuses a service that no rule names.
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
            program: "resolvectl".into(),
            bus: None,
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
            program: "resolvectl".into(),
            bus: None,
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(settings, publisher, shutdown.clone()));
        let told = states.wait_for(|state| state.resolved.is_some()).await.unwrap().resolved.clone();
        assert!(told.unwrap().starts_with("resolvectl dns lo"));
        shutdown.cancel();
        running.await.unwrap();
    }
}
