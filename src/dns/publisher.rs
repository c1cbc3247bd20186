//! Keeps the catalog up to date: names of VIPs after the kernel holds them, names of tasks after each
//! document.
//!
//! The reconcile loop decides when a VIP's name appears; this task only puts its zone beside the
//! others. Names of tasks do not depend on the kernel and follow the source directly.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::tasks::{Directory, Tasks};
use super::zone::{PortNames, Zone, port_label};
use crate::cluster::Snapshot;
use crate::cluster::belief::{Accepted, SyncState};
use crate::source::Feed;
use crate::status::Status;
use crate::vip::label::{self, LabelHost};
use crate::vip::vip_name;

/// What the catalog is made of.
pub struct Inputs {
    pub vips: watch::Receiver<Arc<Zone>>,
    pub feeds: watch::Receiver<Feed>,
    /// For the node's own address.
    pub statuses: watch::Receiver<Arc<Status>>,
}

/// What stays as long as the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Masters by configuration that are given by their addresses.
    pub masters: Vec<IpAddr>,
    /// How long names are kept of agents that a new master has not heard of.
    pub patience: Duration,
    /// Whether names of tasks are served.
    pub tasks: bool,
}

/// What was learned from documents so far.
#[derive(Clone, Debug, Default)]
struct Learned {
    directory: Directory,
    port_names: PortNames,
}

/// Publishes a new catalog after every change, until `shutdown`.
pub async fn run(
    settings: Settings,
    mut inputs: Inputs,
    catalogs: watch::Sender<Arc<Catalog>>,
    shutdown: CancellationToken,
) {
    let mut catalog = Catalog::clone(&catalogs.borrow());
    let mut learned = Learned::default();
    let mut known: Option<Arc<Accepted>> = None;
    loop {
        let vips = inputs.vips.borrow_and_update().clone();
        let accepted = inputs.feeds.borrow_and_update().accepted.clone();
        let status = inputs.statuses.borrow_and_update().clone();

        let mut changed = false;
        // An earlier run's cluster has no names of tasks.
        let told = accepted.filter(|accepted| accepted.sync != SyncState::Cold);
        if let Some(accepted) =
            told.filter(|new| !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, new)))
        {
            let snapshot = Arc::clone(&accepted.snapshot);
            known = Some(accepted);
            let before = std::mem::take(&mut learned);
            let (tasks, patience) = (settings.tasks, settings.patience);
            let learn = move || before.learn(&snapshot, patience, tasks);
            let Ok(new) = tokio::task::spawn_blocking(learn).await else { return };
            learned = new;
            if settings.tasks {
                let tasks = Tasks::new(learned.directory.clone(), &settings.masters, serial());
                catalog = catalog.with_tasks(Arc::new(tasks));
            }
            changed = true;
        }
        if changed || !Arc::ptr_eq(&vips, catalog.vips()) {
            let port_names = vips.port_names(&learned.port_names);
            catalog = catalog.with_vips(vips, Arc::new(port_names));
            changed = true;
        }
        let node = [status.node.address, status.node.address6];
        if !catalog.is_node(node.into_iter().flatten()) {
            catalog = catalog.with_node(node.into_iter().flatten());
            changed = true;
        }
        if changed {
            catalogs.send_replace(Arc::new(catalog.clone()));
        }
        let some = tokio::select! {
            () = shutdown.cancelled() => return,
            some = inputs.vips.changed() => some,
            some = inputs.feeds.changed() => some,
            some = inputs.statuses.changed() => some,
        };
        if some.is_err() {
            // Somebody else ended; what is published stays.
            return shutdown.cancelled().await;
        }
    }
}

impl Learned {
    fn learn(self, snapshot: &Snapshot, patience: Duration, tasks: bool) -> Self {
        let directory = match tasks {
            true => self.directory.learn(snapshot, Timestamp::now(), patience),
            false => self.directory,
        };
        Self { directory, port_names: port_names(snapshot) }
    }
}

/// Which names the ports behind VIPs have.
fn port_names(snapshot: &Snapshot) -> PortNames {
    let mut names = PortNames::new();
    for task in snapshot.tasks.values().filter(|task| task.state.is_serving()) {
        let Some(framework) = snapshot.frameworks.get(&task.key.framework) else { continue };
        for port in &task.ports {
            let Some(port_label) = port_label(&port.name) else { continue };
            for label in &port.labels {
                if let Ok((LabelHost::Named(host), number)) = label::parse(&label.value) {
                    let key = (vip_name(host, framework), port.protocol, number);
                    names.entry(key).or_default().insert(port_label.clone());
                }
            }
        }
    }
    names
}

/// Seconds since the epoch: later zones have greater serials, also after a restart.
fn serial() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or_default()
}
