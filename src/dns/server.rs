//! The server: moves messages between sockets and [`respond`], with bounds on what a client may cost
//! (memory for each message, time for each exchange, connections of each client and of all).
//!
//! What belongs here: sockets, threads, limits, and the check who is answered. UDP has threads of its own,
//! one a processor, each with a socket of its own (`SO_REUSEPORT`): a busy daemon, which parses documents
//! of many megabytes, does not delay answers. The loops never end by themselves; dropping them does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::DnsState;
use super::metrics::{DnsMetrics, Ignored};
use super::protocol::message::{ResponseKind, Transport, respond};
use super::usage::UsageRegistry;
use super::zones::catalog::Catalog;
use crate::plan::NodeView;
use clients::ClientFilter;
use rules::ServiceRules;

mod batch;
pub mod clients;
mod connections;
mod listener;
pub mod rules;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use listener::{Error, Listener};

/// Octets of the largest query read. Queries have tens of octets; longer ones are cut off on UDP
/// and end the connection on TCP.
const MAX_QUERY: usize = 4096;

/// Pause after a failed receive or accept, so that a lasting error (no file descriptors left)
/// does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Pause before the server tries again to listen where another program does.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// Longest wait for the first reading of the node's networks.
const FIRST_VIEW: Duration = Duration::from_secs(2);

/// Everything that answers are made of, and the clients that get them.
#[derive(Clone)]
pub struct Responder {
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    /// The node's own networks, for the clients that are inside.
    pub nodes: watch::Receiver<Arc<NodeView>>,
    pub rules: watch::Receiver<Arc<ServiceRules>>,
    /// Receives the use of connections.
    pub usage: UsageRegistry,
    pub metrics: Arc<DnsMetrics>,
}

/// Next step for a query.
enum Action {
    /// No reply.
    Drop,
    /// The reply is in the buffer.
    Send,
    /// The forwarder has to ask an upstream first.
    Forward,
}

impl Responder {
    /// A filter of clients for a server that listens on `own`.
    fn filter(&self, own: &[IpAddr]) -> ClientFilter {
        ClientFilter::new(&self.rules, own, &self.nodes)
    }

    /// Answers into `reply` as far as the catalog goes, and says what is to be done.
    fn act(&self, catalog: &Catalog, packet: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Action {
        let started = Instant::now();
        let answer = respond(catalog, packet, transport, reply);
        match answer.kind {
            ResponseKind::Ignored => {
                self.metrics.ignore(Ignored::Malformed);
                return Action::Drop;
            }
            // Counted when its answer is known.
            ResponseKind::Elsewhere
                if self.rules.borrow().forwarder.as_ref().is_some_and(|to| to.takes(packet)) =>
            {
                return Action::Forward;
            }
            ResponseKind::Answered | ResponseKind::Elsewhere => {}
        }
        self.metrics.answer(&answer, started.elapsed());
        Action::Send
    }

    /// Notes that an outsider gets no answer: the address of a sender can be forged, and an answer would show
    /// strangers that the server is there.
    fn ignore(&self, peer: SocketAddr) {
        self.metrics.ignore(Ignored::Client);
        tracing::debug!(%peer, "dns query from outside of this node is not answered; dns.clients lets more in");
    }
}

/// Listens on `addresses` and serves until `shutdown`; tries again as long as that is not possible, because
/// VIPs work by address in the meantime. Publishes in `states` where it listens, or why it does not.
pub async fn run(
    addresses: Vec<SocketAddr>,
    mut responder: Responder,
    states: watch::Sender<DnsState>,
    shutdown: CancellationToken,
) {
    while !addresses.is_empty() && !shutdown.is_cancelled() {
        let started = Instant::now();
        let error = match Listener::bind(&addresses).await {
            Ok(listener) => {
                let addresses: Vec<SocketAddr> = listener.addresses().collect();
                tracing::info!(?addresses, "dns server is listening");
                states.send_modify(|state| (state.addresses, state.error) = (addresses, None));
                await_first_view(&mut responder.nodes, &shutdown).await;
                // Returns without an error only at shutdown; anything else leads to a new attempt below.
                match listener.serve(responder.clone(), shutdown.clone()).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let error = error.to_string();
        // The same error is logged once, however often it is met.
        if states.borrow().error.as_ref() != Some(&error) {
            tracing::error!(
                error,
                retry_seconds = LISTEN_RETRY.as_secs(),
                "dns server is down, names are not resolved until a retry succeeds; VIPs work by address"
            );
        }
        states.send_modify(|state| (state.addresses, state.error) = (Vec::new(), Some(error)));
        // What had worked for a while most probably works again at once.
        if started.elapsed() > LISTEN_RETRY {
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LISTEN_RETRY) => {}
        }
    }
    shutdown.cancelled().await;
}

/// Waits until the node's networks are known, for a short time. Queries wait in the kernel meanwhile: those of
/// containers at a restart would be dropped otherwise, and asked again only after seconds.
async fn await_first_view(nodes: &mut watch::Receiver<Arc<NodeView>>, shutdown: &CancellationToken) {
    let is_known = nodes.wait_for(|view| **view != NodeView::default());
    tokio::select! {
        () = shutdown.cancelled() => {}
        // Without a view the server still has loopback clients and configured networks to answer.
        _ = tokio::time::timeout(FIRST_VIEW, is_known) => {}
    }
}
