//! The composition root: wires source, reconciler, DNS and status interface, and ends them together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::config::Config;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::{self, DataPlane, Plane, PlaneChoice};
use crate::dns;
use crate::netlink::monitor::{self, Monitor};
use crate::reconcile::{Inputs, Inquiry, Outputs, Reconciler};
use crate::source::combined::CombinedSource;
use crate::source::{self, Report};
use crate::status::{self, Status};

/// Inquiries that may wait; more get the last status.
const INQUIRIES: usize = 16;

/// Pause before DNS tries again to listen where somebody else does.
const DNS_RETRY: Duration = Duration::from_secs(5);

/// Attempts of `run --once`, for the source and for the kernel.
const ONCE_ATTEMPTS: u32 = 3;

/// Why the daemon could not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    DataPlane(#[from] dataplane::Error),
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Zone(#[from] dns::zone::Error),
    #[error("dns.forward or dns.mesos: {0}")]
    Forward(#[from] dns::forward::Error),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error("no state of the cluster: {0}")]
    NoState(String),
    #[error("the kernel refused a part: {}", .0.join("; "))]
    Refused(Vec<String>),
    #[error("a part of the daemon stopped unexpectedly")]
    Stopped,
}

/// Where a daemon can be reached.
#[derive(Clone, Debug)]
pub struct Bound {
    pub socket: PathBuf,
    /// Addresses of the DNS server, as soon as it listens.
    pub dns: watch::Receiver<status::Dns>,
}

/// A daemon whose parts are running.
pub struct Daemon {
    pub bound: Bound,
    parts: JoinSet<()>,
    statuses: watch::Receiver<Arc<Status>>,
    inquiries: mpsc::Sender<Inquiry>,
    shutdown: CancellationToken,
}

impl Daemon {
    /// Binds and starts everything; the parts end when `shutdown` is cancelled and leave the kernel
    /// forwarding.
    pub async fn start(config: &Config, shutdown: CancellationToken) -> Result<Self, Error> {
        let kernel = Kernel::open(&config.kernel())?;
        let PlaneChoice { plane, reason } = kernel.choice();
        tracing::info!(%plane, reason, "data plane");
        if let Some(remark) = config.mesos_remark() {
            tracing::info!("{remark}");
        }
        let mut monitors = vec![Monitor::routing()?];
        if plane == Plane::Ipvs {
            monitors.push(Monitor::netfilter()?);
        }
        let source = CombinedSource::new(&config.source, &config.marathon)?;
        let zone = config.zone()?;
        let api = Api::bind(&config.daemon.socket).await?;

        let (zones, zone_receiver) = watch::channel(Arc::new(zone.clone()));
        let (statuses, status_receiver) = watch::channel(Arc::new(Status::default()));
        let (catalogs, catalog_receiver) = watch::channel(Arc::new(config.catalog()?));
        let (reports, report_receiver) = watch::channel(Report::default());
        let (dns_states, dns_receiver) = watch::channel(status::Dns::default());
        let (inquiries, inquiry_receiver) = mpsc::channel(INQUIRIES);
        let network = Arc::new(Notify::new());
        let bound = Bound { socket: config.daemon.socket.clone(), dns: dns_receiver.clone() };

        let names = dns::publisher::Inputs {
            vips: zone_receiver,
            reports: report_receiver.clone(),
            statuses: status_receiver.clone(),
        };
        let reconciler = Reconciler::new(kernel, config, zone, Outputs { zones, statuses });
        let inputs = Inputs {
            reports: report_receiver,
            inquiries: inquiry_receiver,
            network: network.clone(),
            dns: dns_receiver,
        };
        let mut parts = JoinSet::new();
        parts.spawn(reconciler.run(inputs, shutdown.clone()));
        parts.spawn(source.run(reports, shutdown.clone()));
        for monitor in monitors {
            parts.spawn(monitor.run(network.clone(), shutdown.clone()));
        }
        parts.spawn(dns::publisher::run(config.names(), names, catalogs, shutdown.clone()));
        let service = dns::Serving {
            catalogs: catalog_receiver,
            clients: config.dns.clients.clone(),
            forwarder: config.forwarder()?,
        };
        parts.spawn(dns::resolved::run(config.resolved(), dns_states.clone(), shutdown.clone()));
        parts.spawn(serve_dns(config.dns.listen.clone(), service, dns_states, shutdown.clone()));
        parts.spawn(api.serve(inquiries.clone(), status_receiver.clone(), shutdown.clone()));
        Ok(Self { bound, parts, statuses: status_receiver, inquiries, shutdown })
    }

    /// Keeps the service manager informed, and returns after shutdown.
    ///
    /// # Errors
    /// When a part ended of its own accord; the others are ended then.
    pub async fn wait(mut self) -> Result<(), Error> {
        self.parts.spawn(report_readiness(self.statuses.clone(), self.shutdown.clone()));
        self.parts.spawn(feed_watchdog(self.inquiries.clone(), self.shutdown.clone()));
        let _ = self.parts.join_next().await;
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
pub async fn once(config: &Config) -> Result<Arc<Status>, Error> {
    let kernel = Kernel::open(&config.kernel())?;
    let report = CombinedSource::new(&config.source, &config.marathon)?.first(ONCE_ATTEMPTS).await;
    if report.snapshot.is_none() {
        return Err(Error::NoState(report.failure.map(|failure| failure.error).unwrap_or_default()));
    }
    let zone = config.zone()?;
    let (zones, _zones) = watch::channel(Arc::new(zone.clone()));
    let (statuses, status) = watch::channel(Arc::new(Status::default()));
    let mut reconciler = Reconciler::new(kernel, config, zone, Outputs { zones, statuses });
    reconciler.take_report(report);
    for _ in 0..ONCE_ATTEMPTS {
        reconciler.pass().await;
        if status.borrow().pass.errors.is_empty() {
            return Ok(status.borrow().clone());
        }
    }
    Err(Error::Refused(status.borrow().pass.errors.clone()))
}

/// Listens as soon as that is possible: VIPs work by address in the meantime.
async fn serve_dns(
    listen: Vec<SocketAddr>,
    service: dns::Serving,
    states: watch::Sender<status::Dns>,
    shutdown: CancellationToken,
) {
    while !listen.is_empty() && !shutdown.is_cancelled() {
        let error = match dns::Listener::bind(&listen).await {
            Ok(listener) => {
                let addresses: Vec<SocketAddr> = listener.addresses().collect();
                tracing::info!(?addresses, "dns is listening");
                states.send_modify(|state| (state.addresses, state.error) = (addresses, None));
                match listener.serve(service.clone(), shutdown.clone()).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let error = error.to_string();
        if states.borrow().error.as_ref() != Some(&error) {
            tracing::error!(error, "dns is not served, will try again");
        }
        states.send_modify(|state| (state.addresses, state.error) = (Vec::new(), Some(error)));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(DNS_RETRY) => {}
        }
    }
    shutdown.cancelled().await;
}

/// Tells the service manager when the first pass is done, and how things are from then on.
async fn report_readiness(mut statuses: watch::Receiver<Arc<Status>>, shutdown: CancellationToken) {
    let mut ready = false;
    let mut last = String::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = statuses.changed() => if changed.is_err() { return },
        }
        let status = statuses.borrow_and_update().clone();
        if !ready && status.pass.at.is_some() {
            ready = true;
            tracing::info!(vips = status.vips.len(), "first pass done, ready");
            notify(&[NotifyState::Ready]);
        }
        let summary = status.summary();
        if summary != last {
            notify(&[NotifyState::Status(&summary)]);
            last = summary;
        }
    }
}

/// Shows the service manager's watchdog that passes still happen, by asking for one.
async fn feed_watchdog(inquiries: mpsc::Sender<Inquiry>, shutdown: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return shutdown.cancelled().await;
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(limit / 3) => {}
        }
        let (answer, answered) = oneshot::channel();
        let inquiry = Inquiry { accept_loss: false, answer };
        if inquiries.send(inquiry).await.is_ok() && answered.await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Without a service manager there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
