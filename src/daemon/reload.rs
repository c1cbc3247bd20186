//! The configuration file, read again while the daemon runs.
//!
//! What belongs here: the order of a reload. Everything that can fail comes first, so that a file either counts as far as
//! it can or changes nothing. Which keys count at once is decided in [`crate::config::reload`].

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::wiring;
use crate::api::ReloadRequest;
use crate::api::reload::ReloadAnswer;
use crate::cluster::belief::Patience;
use crate::config::Loaded;
use crate::config::reload::Reloaded;
use crate::dns::ServiceRules;
use crate::dns::metrics::DnsMetrics;
use crate::dns::usage::UsageRegistry;
use crate::events::{EventKind, Happening, Recorder};
use crate::reconcile::ReconcilerSettings;
use crate::source::combined::CombinedSource;
use crate::source::feed::Feed;
use crate::source::metrics::SourceMetrics;
use crate::source::{self, Report};

/// Function that sets the levels of the log.
pub type SetLog = Box<dyn Fn(&str) + Send + Sync>;

/// Reads the configuration again on request, and hands the changes to the parts.
pub(super) struct Reloader {
    /// The file; `None` for the default one.
    pub path: Option<PathBuf>,
    pub running: Loaded,
    pub outlets: Outlets,
    pub feeds: watch::Receiver<Feed>,
    pub events: Recorder,
    pub dns_usage: UsageRegistry,
    pub dns_metrics: Arc<DnsMetrics>,
    pub source_metrics: Arc<SourceMetrics>,
    pub set_log: SetLog,
}

/// Ways to the parts that take over new values.
pub(super) struct Outlets {
    pub settings: watch::Sender<Option<ReconcilerSettings>>,
    pub patiences: watch::Sender<Patience>,
    pub sources: mpsc::Sender<CombinedSource>,
    pub rules: watch::Sender<Arc<ServiceRules>>,
}

impl Reloader {
    /// Carries requests out until `shutdown`.
    pub async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>, shutdown: CancellationToken) {
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                request = requests.recv() => request,
            };
            let Some(ReloadRequest { done }) = request else { return shutdown.cancelled().await };
            let answer = self.reload().await;
            self.tell(&answer);
            // The asking client may have gone, and a signal waits for nothing.
            let _ = done.send(answer);
        }
    }

    async fn reload(&mut self) -> ReloadAnswer {
        let path = self.path.clone();
        // A file on a network file system may take its time.
        let read = tokio::task::spawn_blocking(move || Loaded::read(path.as_deref())).await;
        let newer = match read.map_err(|error| error.to_string()) {
            Ok(Ok(newer)) => newer,
            Ok(Err(error)) => return ReloadAnswer { error: Some(error.to_string()), ..Default::default() },
            Err(error) => return ReloadAnswer { error: Some(error), ..Default::default() },
        };
        let Reloaded { running, applied, pending } = Reloaded::new(&self.running, &newer);
        if !applied.is_empty()
            && let Err(error) = self.apply(&running).await
        {
            return ReloadAnswer { error: Some(error), ..Default::default() };
        }
        let remarks = running.remarks.clone();
        self.running = running;
        ReloadAnswer { error: None, applied, pending, remarks }
    }

    /// Hands the changed settings to the parts.
    ///
    /// # Errors
    /// When a part cannot go by them. Nothing has been handed to any part then.
    async fn apply(&self, next: &Loaded) -> Result<(), String> {
        let (old, new) = (&self.running.config, &next.config);
        let settings = wiring::reconciler(new, self.dns_usage.clone()).map_err(|error| error.to_string())?;
        // Sources that stay as they are keep their connections and their state of a stream.
        let is_asked_otherwise = (&old.source, &old.marathon) != (&new.source, &new.marathon);
        let source = is_asked_otherwise.then(|| self.source(next)).transpose();
        let source = source.map_err(|error| error.to_string())?;
        // Questions under way are answered by the forwarder that has them.
        let keeps_forwarder = old.dns.forward == new.dns.forward;
        let forwarder = if keeps_forwarder {
            self.outlets.rules.borrow().forwarder.clone()
        } else {
            wiring::forwarder(new, &self.dns_usage, &self.dns_metrics)
                .map_err(|error| format!("dns.forward: {error}"))?
        };
        // From here on nothing fails. A part that has ended ends the daemon, which is not the reload's to tell.
        self.outlets
            .rules
            .send_replace(Arc::new(ServiceRules { clients: new.dns.clients.clone(), forwarder }));
        self.outlets.patiences.send_replace(wiring::patience(new));
        self.outlets.settings.send_replace(Some(settings));
        if let Some(source) = source {
            let _ = self.outlets.sources.send(source).await;
        }
        // Last, so that what is logged about the rest goes by the old levels.
        if old.daemon.log != new.daemon.log {
            (self.set_log)(&new.daemon.log.0);
        }
        Ok(())
    }

    /// Opens the sources of a configuration, which go on from what is believed.
    fn source(&self, next: &Loaded) -> Result<CombinedSource, source::Error> {
        let feed = self.feeds.borrow();
        let memory = feed.marathon.as_deref().cloned();
        let cluster = feed.accepted.as_ref().map(|accepted| &*accepted.snapshot);
        let earlier = wiring::earlier(memory, cluster);
        let source = CombinedSource::new(&next.config.source, &next.config.marathon, earlier)?;
        Ok(source.counting(Arc::clone(&self.source_metrics)))
    }

    /// Logs and remembers what came of a reload.
    fn tell(&self, answer: &ReloadAnswer) {
        let ReloadAnswer { error, applied, pending, remarks } = answer;
        if let Some(error) = error {
            tracing::error!(error, "the configuration was read again and has an error, nothing has changed");
            return;
        }
        for remark in remarks {
            tracing::info!(remark, "remark on the configuration");
        }
        let (applied, pending) = (applied.join(", "), pending.join(", "));
        tracing::info!(in_effect = applied, after_a_restart = pending, "the configuration was read again");
        if !applied.is_empty() {
            let text = format!("the configuration was read again: {applied}");
            self.events.note(vec![Happening::new(EventKind::ConfigurationChanged, text)]);
        }
    }
}

/// Runs the sources until `shutdown`, and each that comes in the place of the one before.
pub(super) async fn run_sources(
    mut source: CombinedSource,
    mut others: mpsc::Receiver<CombinedSource>,
    reports: watch::Sender<Report>,
    shutdown: CancellationToken,
) {
    loop {
        let asking = shutdown.child_token();
        let mut running = tokio::spawn(source.run(reports.clone(), asking.clone()));
        let next = tokio::select! {
            // At shutdown, or a fault that ends the daemon.
            _ = &mut running => return,
            Some(next) = others.recv() => next,
        };
        asking.cancel();
        let _ = running.await;
        source = next;
    }
}
