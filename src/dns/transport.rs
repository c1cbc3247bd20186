//! Moving messages between sockets and [`respond`], with bounds on what a client may cost: memory for
//! each message, time for each exchange, connections of each client and of all.
//!
//! UDP has threads of its own, one a processor, each with a socket of its own (`SO_REUSEPORT`): a busy
//! daemon, which parses documents of many megabytes, does not delay answers. The loops never end by
//! themselves; whoever spawned them drops them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::catalog::Catalog;
use super::clients::{Client, Clients};
use super::forward::Forwarder;
use super::message::{Outcome, Transport, respond};

mod batch;
pub(super) mod tcp;
pub(super) mod udp;

/// Octets of the largest query read. Queries have tens of octets; longer ones are cut off on UDP
/// and end the connection on TCP.
const MAX_QUERY: usize = 4096;

/// Pause after a failed receive or accept, so that a lasting error (no file descriptors left)
/// does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What is answered, and to whom.
#[derive(Clone)]
pub struct Serving {
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    pub clients: Vec<Client>,
    /// Who answers for names that are not in the catalog.
    pub forwarder: Option<Forwarder>,
}

/// What is to be sent.
enum Action {
    Nothing,
    Send,
    /// Somebody else is to be asked first.
    Forward,
}

impl Serving {
    fn clients(&self) -> Clients {
        Clients::new(&self.clients)
    }

    /// Answers into `reply`, or says that another has to.
    fn act(&self, catalog: &Catalog, packet: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Action {
        match respond(catalog, packet, transport, reply) {
            Outcome::Ignored => Action::Nothing,
            Outcome::Answered => Action::Send,
            Outcome::Elsewhere if self.forwarder.as_ref().is_some_and(|to| to.takes(packet)) => {
                Action::Forward
            }
            Outcome::Elsewhere => Action::Send,
        }
    }
}

/// Outsiders get no answer: a sender's address can be forged, and they need not know of us.
fn ignore(peer: SocketAddr) {
    tracing::debug!(%peer, "dns query from outside of the node dropped");
}
