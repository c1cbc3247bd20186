//! The composition root: wires source, reconciler, DNS and status interface, and ends them together.
//!
//! What belongs here: which part is connected to which, start, readiness and end. [`wiring`] makes the
//! settings of each part from the configuration. No part knows another but through this module.

pub mod allocator;
mod progress;
mod reload;
pub mod wiring;

pub use progress::ShowProgress;
pub use reload::SetLog;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api, Interfaces, ReloadRequest};
use crate::config::{self, Config};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::traffic::{ReadTraffic, SharedTraffic};
use crate::dataplane::{self, DataPlane, PlaneChoice, PlaneKind};
use crate::dns::metrics::DnsMetrics;
use crate::dns::usage::UsageRegistry;
use crate::dns::{self, DnsState};
use crate::events::recorder::StartFacts;
use crate::exporter::{self, Exporter, ExporterSettings};
use crate::netlink::monitor::{self, Monitor};
use crate::plan::NodeView;
use crate::reconcile::{Inputs, Outputs, Ping, Reconciler};
use crate::sampler::Sampler;
use crate::source::combined::CombinedSource;
use crate::source::feed::{Believer, Feed};
use crate::source::{self, Report};
use crate::status::pass::Cause;
use crate::status::{HttpState, Status};
use crate::store::Store;
use crate::store::saver::{Loaded, Saver};
use crate::units::steady::steady_now;

/// Inquiries that may wait; more get the last status.
const REQUESTS: usize = 16;

/// Attempts of `run --once`, for the source and for the kernel.
const ONCE_ATTEMPTS: u32 = 3;

/// Failure to start or to go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    DataPlane(#[from] dataplane::Error),
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Zone(#[from] dns::zones::vips::Error),
    #[error("dns.forward or dns.mesos: {0}")]
    Forward(#[from] dns::forward::Error),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error("nothing was programmed, because no source gave the state of the cluster: {0}")]
    NoState(String),
    #[error("VIPs are incomplete, because the kernel refused a part in {ONCE_ATTEMPTS} attempts: {}", .0.join("; "))]
    Refused(Vec<String>),
    #[error(
        "a part of the daemon stopped unexpectedly, see the log above; the daemon ends, and the kernel keeps forwarding"
    )]
    Stopped,
}

/// Returns the data plane that a daemon with this configuration file would use on this kernel.
///
/// # Errors
/// With every problem of the file at once, or why this kernel has no such plane.
pub fn data_plane(path: &Path, text: &str) -> Result<PlaneKind, Error> {
    let config = Config::parse(path, text)?;
    Ok(Kernel::open(&wiring::kernel(&config))?.choice().plane)
}

/// Addresses of a running daemon.
#[derive(Clone, Debug)]
pub struct Bound {
    pub socket: PathBuf,
    /// Addresses of the DNS server, as soon as it listens.
    pub dns: watch::Receiver<DnsState>,
    /// State of the HTTP server, with its address as soon as it listens.
    pub http: watch::Receiver<HttpState>,
}

/// Everything that a daemon starts from.
pub struct Start {
    /// The configuration file, for reading it again; `None` for the default one.
    pub path: Option<PathBuf>,
    pub loaded: config::Loaded,
    pub set_log: SetLog,
    /// Shows what takes long, where a person looks on.
    pub show: ShowProgress,
}

/// A daemon whose parts are running.
pub struct Daemon {
    pub bound: Bound,
    parts: JoinSet<()>,
    statuses: watch::Receiver<Arc<Status>>,
    show: ShowProgress,
    reloads: mpsc::Sender<ReloadRequest>,
    pings: mpsc::Sender<Ping>,
    shutdown: CancellationToken,
}

impl Daemon {
    /// Binds and starts everything; the parts end when `shutdown` is cancelled and leave the kernel
    /// forwarding.
    pub async fn start(start: Start, shutdown: CancellationToken) -> Result<Self, Error> {
        let Start { path, loaded: running, set_log, show } = start;
        let config = &running.config;
        let kernel = Kernel::open(&wiring::kernel(config))?;
        let PlaneChoice { plane, reason } = kernel.choice();
        tracing::info!(%plane, reason, "data plane chosen");
        // Subscribed before the first reading, so that no change between the two is missed.
        let mut monitors = vec![Monitor::routing()?];
        if kernel.capabilities().packets {
            monitors.push(Monitor::netfilter()?);
        }
        let dns_usage = UsageRegistry::default();
        let dns_metrics = Arc::<DnsMetrics>::default();
        let settings = wiring::reconciler(config, dns_usage.clone())?;
        // Before the sources run: what an earlier run believed is the measure for the first document.
        let (saver, loaded) = Saver::open(Store::new(&config.daemon.state_dir), !wiring::is_file(config));
        let Loaded { persisted, cluster, deadlines, marathon } = loaded;
        let source = CombinedSource::new(
            &config.source,
            &config.marathon,
            wiring::earlier(marathon, cluster.as_ref()),
        )?;
        let source_metrics = source.metrics().clone();
        let believer = Believer::new(wiring::patience(config), cluster, deadlines.holds);
        // Fails where another daemon runs, before a pass of this one changes the table of that one.
        let api = Api::bind(&config.daemon.socket).await?;

        // After the socket is bound, so that no other daemon writes the same file.
        let events = wiring::events(config);
        events
            .note_start(StartFacts { data_plane: plane.to_string(), sections: wiring::fingerprints(config) });
        // Every channel holds the newest value only: a slow reader skips what is outdated.
        let (zones, zone_receiver) = watch::channel(Arc::new(settings.publisher.zone.clone()));
        let (statuses, status_receiver) = watch::channel(Arc::new(Status::default()));
        let (catalogs, catalog_receiver) = watch::channel(Arc::new(wiring::catalog(config)?));
        let (reports, report_receiver) = watch::channel(Report::default());
        let (dns_states, dns_receiver) = watch::channel(DnsState::default());
        let (feeds, feed_receiver) = watch::channel(believer.feed().clone());
        let (nodes, node_receiver) = watch::channel(Arc::<NodeView>::default());
        // These are not skipped: each has a client that waits for its answer.
        let (requests, request_receiver) = mpsc::channel(REQUESTS);
        let (questions, question_receiver) = mpsc::channel(REQUESTS);
        let (pings, ping_receiver) = mpsc::channel(1);
        let (losses, loss_receiver) = mpsc::channel(REQUESTS);
        let (reloads, reload_receiver) = mpsc::channel(REQUESTS);
        let (sources, source_receiver) = mpsc::channel(1);
        let (patiences, patience_receiver) = watch::channel(wiring::patience(config));
        let (new_settings, settings_receiver) = watch::channel(None);
        // Before anything runs, because it fails where no upstream is left.
        let forwarder = wiring::forwarder(config, &dns_usage, &dns_metrics)?;
        let (rules, rule_receiver) =
            watch::channel(Arc::new(dns::ServiceRules { clients: config.dns.clients.clone(), forwarder }));
        let network = Arc::new(Notify::new());
        let bound =
            Bound { socket: config.daemon.socket.clone(), dns: dns_receiver.clone(), http: api.http() };
        // Shared, so that the kernel lists its services once for metrics and for who looks on.
        let traffic = kernel.traffic()?.map(SharedTraffic::new);
        let sampler = Sampler::new(questions.clone(), status_receiver.clone(), traffic.clone());
        let exporter = Exporter::new(
            ExporterSettings { detailed: config.http.backends },
            exporter::Inputs {
                parts: vec![source_metrics.clone(), settings.publisher.metrics.clone(), dns_metrics.clone()],
                questions: questions.clone(),
                statuses: status_receiver.clone(),
                dns_usage: dns_usage.clone(),
                traffic: traffic.map(|traffic| Box::new(traffic) as Box<dyn ReadTraffic>),
            },
        );

        let names = dns::publisher::CatalogInputs {
            vips: zone_receiver,
            feeds: feed_receiver.clone(),
            nodes: node_receiver.clone(),
        };
        let kept = (persisted, deadlines.drains);
        let outputs = Outputs { zones, statuses, nodes, events: events.clone() };
        let reconciler = Reconciler::new(kernel, settings, saver, kept, outputs);
        // New sources go on from what is believed at that time.
        let reload_feeds = feed_receiver.clone();
        let inputs = Inputs {
            feeds: feed_receiver,
            requests: request_receiver,
            questions: question_receiver,
            pings: ping_receiver,
            network: network.clone(),
            dns: dns_receiver,
            http: api.http(),
            settings: settings_receiver,
        };
        // All parts run from here on, in any order: each waits for the first value of its inputs.
        let mut parts = JoinSet::new();
        parts.spawn(reconciler.run(inputs, shutdown.clone()));
        parts.spawn(reload::run_sources(source, source_receiver, reports, shutdown.clone()));
        let inputs = (report_receiver, loss_receiver, patience_receiver);
        parts.spawn(believer.run(inputs, feeds, shutdown.clone()));
        for monitor in monitors {
            parts.spawn(monitor.run(network.clone(), shutdown.clone()));
        }
        parts.spawn(dns::publisher::run(wiring::catalog_settings(config), names, catalogs, shutdown.clone()));
        let service = dns::Responder {
            catalogs: catalog_receiver.clone(),
            nodes: node_receiver,
            rules: rule_receiver,
            usage: dns_usage.clone(),
            metrics: dns_metrics.clone(),
        };
        parts.spawn(dns::resolved::run(wiring::resolved(config), dns_states.clone(), shutdown.clone()));
        parts.spawn(dns::server::run(config.dns.listen.clone(), service, dns_states, shutdown.clone()));
        let statuses = status_receiver.clone();
        let interfaces = Interfaces {
            requests,
            questions,
            losses,
            reloads: reloads.clone(),
            statuses,
            events: events.clone(),
            exporter,
            sampler,
            catalogs: catalog_receiver,
        };
        parts.spawn(api.serve(interfaces, wiring::port(config), shutdown.clone()));
        let reloader = reload::Reloader {
            path,
            running,
            outlets: reload::Outlets { settings: new_settings, patiences, sources, rules },
            feeds: reload_feeds,
            events,
            dns_usage,
            dns_metrics,
            source_metrics,
            set_log,
        };
        parts.spawn(reloader.run(reload_receiver, shutdown.clone()));
        Ok(Self { bound, parts, statuses: status_receiver, show, reloads, pings, shutdown })
    }

    /// Returns the way to have the configuration file read again.
    pub fn reloads(&self) -> mpsc::Sender<ReloadRequest> {
        self.reloads.clone()
    }

    /// Keeps the service manager informed, and returns after shutdown.
    ///
    /// # Errors
    /// A part ended of its own accord; the other parts are ended then.
    pub async fn wait(mut self) -> Result<(), Error> {
        self.parts.spawn(progress::report(self.statuses.clone(), self.show, self.shutdown.clone()));
        self.parts.spawn(feed_watchdog(self.pings.clone(), self.shutdown.clone()));
        // Any end of a part, asked for or not, ends the daemon: half of it would look healthy.
        let _ = self.parts.join_next().await;
        // Read before it is cancelled below, to tell a shutdown from a failure.
        let asked = self.shutdown.is_cancelled();
        self.shutdown.cancel();
        notify(&[NotifyState::Stopping]);
        while self.parts.join_next().await.is_some() {}
        if asked { Ok(()) } else { Err(Error::Stopped) }
    }
}

/// Makes one successful pass and leaves the kernel programmed.
///
/// # Errors
/// When the source has no state, or the kernel refuses something, after a few attempts.
pub async fn once(config: &Config, show: ShowProgress) -> Result<Arc<Status>, Error> {
    let kernel = Kernel::open(&wiring::kernel(config))?;
    // Asked before the kernel is read: without a state there is nothing to do there.
    let (saver, loaded) = Saver::open(Store::new(&config.daemon.state_dir), !wiring::is_file(config));
    let Loaded { persisted, cluster, deadlines, marathon } = loaded;
    let earlier = wiring::earlier(marathon, cluster.as_ref());
    let source = CombinedSource::new(&config.source, &config.marathon, earlier)?;
    let report = source.first(ONCE_ATTEMPTS).await;
    if report.snapshot.is_none() {
        return Err(Error::NoState(report.failure.map(|failure| failure.error).unwrap_or_default()));
    }
    let mut believer = Believer::new(wiring::patience(config), cluster, deadlines.holds);
    believer.take(report, steady_now());
    let settings = wiring::reconciler(config, UsageRegistry::default())?;
    // Zones and views of the node have no reader here: a single pass serves no DNS.
    let (zones, _zones) = watch::channel(Arc::new(settings.publisher.zone.clone()));
    let (statuses, status) = watch::channel(Arc::new(Status::default()));
    let (nodes, _nodes) = watch::channel(Arc::<NodeView>::default());
    let outputs = Outputs { zones, statuses, nodes, events: wiring::events(config) };
    let kept = (persisted, deadlines.drains);
    let mut reconciler = Reconciler::new(kernel, settings, saver, kept, outputs);
    reconciler.take_feed(Feed::clone(believer.feed()));
    let shutdown = CancellationToken::new();
    tokio::spawn(progress::report(status.clone(), show, shutdown.clone()));
    let _end = shutdown.drop_guard();
    // A module that is being loaded, or another program's change, makes the first attempt fail.
    for _ in 0..ONCE_ATTEMPTS {
        reconciler.pass(Cause::Start).await;
        if status.borrow().pass.errors.is_empty() {
            return Ok(status.borrow().clone());
        }
    }
    Err(Error::Refused(status.borrow().pass.errors.clone()))
}

/// Feeds the service manager's watchdog while the reconcile loop answers.
async fn feed_watchdog(pings: mpsc::Sender<Ping>, shutdown: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return shutdown.cancelled().await;
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            // sd_watchdog_enabled(3) recommends half the limit; a third leaves room for a pass that takes
            // seconds.
            () = tokio::time::sleep(limit / 3) => {}
        }
        // A pass that never ends answers nothing, and the service manager restarts the daemon.
        let (answer, answered) = oneshot::channel();
        if pings.send(Ping { answer }).await.is_ok() && answered.await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Notifies the service manager; does nothing without one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
