//! The task that keeps the catalog up to date: names of VIPs after the kernel holds them, names of tasks
//! after each document.
//!
//! The reconcile loop decides when a VIP's name appears; this task only puts that zone into the catalog.
//! Names of tasks do not depend on the kernel and follow the believed cluster directly. Putting the parts
//! together is pure (`Composer`).

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::zones::Directory;
use super::zones::catalog::Catalog;
use super::zones::tasks::TaskZone;
use super::zones::vips::Zone;
use crate::cluster::belief::{Accepted, SyncState};
use crate::plan::NodeView;
use crate::plan::desired::Sources;
use crate::source::Feed;

/// Sources of the catalog's parts.
pub struct CatalogInputs {
    pub vips: watch::Receiver<Arc<Zone>>,
    pub feeds: watch::Receiver<Feed>,
    /// The node, for its own addresses.
    pub nodes: watch::Receiver<Arc<NodeView>>,
}

/// Operator's decisions about names of tasks.
#[derive(Clone, Debug)]
pub struct CatalogSettings {
    /// Masters by configuration that are given by their addresses.
    pub masters: Vec<IpAddr>,
    /// True if names of tasks are served.
    pub tasks: bool,
}

/// The newest state of all parts.
struct Parts {
    vips: Arc<Zone>,
    accepted: Option<Arc<Accepted>>,
    sources: Sources,
}

impl CatalogInputs {
    /// The newest parts, which count as seen from now on.
    fn take(&mut self) -> Parts {
        Parts {
            vips: self.vips.borrow_and_update().clone(),
            accepted: self.feeds.borrow_and_update().accepted.clone(),
            sources: self.nodes.borrow_and_update().sources,
        }
    }
}

/// Publishes a new catalog after every change, until `shutdown`.
pub async fn run(
    settings: CatalogSettings,
    mut inputs: CatalogInputs,
    catalogs: watch::Sender<Arc<Catalog>>,
    shutdown: CancellationToken,
) {
    let mut composer = Composer::new(settings, Catalog::clone(&catalogs.borrow()));
    loop {
        // Before the work: what comes meanwhile counts as unseen, and ends the wait below at once.
        let parts = inputs.take();
        // An index of 100,000 tasks takes longer than other tasks of this thread may wait.
        let composing = tokio::task::spawn_blocking(move || {
            let composed = composer.compose(parts, serial());
            (composer, composed)
        });
        let composed;
        (composer, composed) = match composing.await {
            Ok(done) => done,
            // Without a composer there is nothing to go on with; the daemon ends all its parts.
            Err(error) => {
                tracing::error!(%error, "cannot compose the names that dns serves, the daemon ends");
                return;
            }
        };
        if let Some(catalog) = composed {
            catalogs.send_replace(Arc::new(catalog));
        }
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = inputs.vips.changed() => changed,
            changed = inputs.feeds.changed() => changed,
            changed = inputs.nodes.changed() => changed,
        };
        if changed.is_err() {
            // A sender has ended, which happens at shutdown; what is published stays until then.
            return shutdown.cancelled().await;
        }
    }
}

/// Puts the parts of a catalog together.
struct Composer {
    settings: CatalogSettings,
    /// The last catalog.
    catalog: Catalog,
    /// The cluster whose tasks it has.
    indexed: Option<Arc<Accepted>>,
}

impl Composer {
    fn new(settings: CatalogSettings, catalog: Catalog) -> Self {
        Self { settings, catalog, indexed: None }
    }

    /// The catalog of these parts, or `None` if it is the last one. `serial` goes into the SOA of the zones
    /// of tasks (RFC 1982: later is greater).
    fn compose(&mut self, parts: Parts, serial: u32) -> Option<Catalog> {
        let mut catalog = self.catalog.clone();
        let mut is_new = false;
        if self.settings.tasks
            && let Some(accepted) = parts.accepted.filter(|accepted| self.is_unknown(accepted))
        {
            let indexed = self.indexed.as_ref().map(|indexed| &indexed.snapshot);
            // Most changes are of the health of a task, which its names do not depend on.
            if !indexed.is_some_and(|indexed| Directory::is_same_of(indexed, &accepted.snapshot)) {
                let known = indexed.zip(catalog.tasks());
                let followed =
                    known.and_then(|(indexed, zone)| zone.directory().follow(indexed, &accepted.snapshot));
                let directory = followed.unwrap_or_else(|| Directory::new(&accepted.snapshot));
                let zone = TaskZone::new(directory, &self.settings.masters, serial);
                catalog = catalog.with_tasks(Arc::new(zone));
                is_new = true;
            }
            // The cluster is kept, so that its place in memory cannot become another one's.
            self.indexed = Some(accepted);
        }
        // The reconcile loop sends a zone only when its records have changed.
        if !Arc::ptr_eq(&parts.vips, catalog.vips()) {
            catalog = catalog.with_vips(parts.vips);
            is_new = true;
        }
        let node = || [parts.sources.v4, parts.sources.v6].into_iter().flatten();
        if !catalog.is_node(node()) {
            catalog = catalog.with_node(node());
            is_new = true;
        }
        is_new.then(|| {
            self.catalog = catalog.clone();
            catalog
        })
    }

    /// True if the names of a cluster's tasks are not in the catalog yet, and are known: what an earlier run
    /// left on disk has VIPs only.
    fn is_unknown(&self, accepted: &Arc<Accepted>) -> bool {
        let is_indexed = self.indexed.as_ref().is_some_and(|indexed| Arc::ptr_eq(indexed, accepted));
        accepted.sync != SyncState::Cold && !is_indexed
    }
}

/// Returns the serial of a zone that is made now: seconds since the epoch, so that later zones have
/// greater serials, also after a restart.
pub fn serial() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
