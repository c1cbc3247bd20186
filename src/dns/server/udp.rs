//! UDP datagrams: the threads that serve them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::batch::DatagramBatch;
use super::{Action, Catalog, ClientFilter, ERROR_PAUSE, MAX_QUERY, Responder, Transport};

/// A thread that serves datagrams until it is told to stop, or until it dies.
pub struct Worker {
    /// Completes when the thread has ended; with an error if it has died.
    pub ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts a thread for some non-blocking sockets.
    ///
    /// # Errors
    /// When the kernel has no room for another thread or its event queue.
    pub fn spawn(
        sockets: Vec<std::net::UdpSocket>,
        responder: Responder,
        clients: ClientFilter,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        // Made here and not in the thread, so that a failure is the caller's to report.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The name is what top(1) and stack traces show.
        std::thread::Builder::new().name("l4lbd-dns".to_owned()).spawn(move || {
            let local = LocalSet::new();
            let served: io::Result<()> = local.block_on(&runtime, async {
                let mut loops = JoinSet::new();
                for socket in sockets {
                    let socket = Arc::new(UdpSocket::from_std(socket)?);
                    loops.spawn_local(serve(socket, responder.clone(), clients.clone()));
                }
                // Dropping the set of loops closes the sockets.
                tokio::select! {
                    () = shutdown.cancelled() => Ok(()),
                    Some(_) = loops.join_next() => Err(io::Error::other("a receive loop died")),
                }
            });
            // A dropped sender tells the server that the thread died.
            if let Err(error) = served {
                warn!(%error, "a dns thread ended, the server starts again");
                return;
            }
            // The receiver has gone if the whole server has been dropped.
            let _ = end.send(());
        })?;
        Ok(Self { ended })
    }
}

/// Answers datagrams for ever.
async fn serve(socket: Arc<UdpSocket>, responder: Responder, mut clients: ClientFilter) {
    let mut batch = DatagramBatch::new(MAX_QUERY);
    loop {
        let ready = socket.readable().await;
        let received = ready.and_then(|()| {
            // Read for each batch, so that the newest catalog answers.
            let catalog = responder.catalogs.borrow().clone();
            socket.try_io(Interest::READABLE, || {
                batch.receive(socket.as_fd(), |query, peer, reply| {
                    if !clients.allows(peer.ip()) {
                        responder.ignore(peer);
                        return false;
                    }
                    match responder.act(&catalog, query, Transport::Udp, reply) {
                        Action::Drop => false,
                        Action::Send => true,
                        // The answer comes later, and is sent by itself.
                        Action::Forward => {
                            forward(&responder, &catalog, &socket, query, peer);
                            false
                        }
                    }
                })
            })
        });
        match received {
            Ok(()) => {
                if let Err(error) = batch.send(socket.as_fd()) {
                    debug!(%error, "cannot send a dns reply");
                }
            }
            // A readiness may be outdated; the next wait finds out.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                warn!(%error, "cannot receive dns queries over udp, trying again");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Has an upstream asked; its answer is sent when it comes.
fn forward(
    responder: &Responder,
    catalog: &Arc<Catalog>,
    socket: &Arc<UdpSocket>,
    query: &[u8],
    peer: SocketAddr,
) {
    let Some(forwarder) = responder.rules.borrow().forwarder.clone() else { return };
    let socket = socket.clone();
    forwarder.spawn(query, (peer.ip(), Transport::Udp), catalog, async move |reply: Vec<u8>| {
        // Sent at once or dropped: where the buffer is full, clients repeat their questions.
        if let Err(error) = socket.try_send_to(&reply, peer) {
            debug!(%peer, %error, "cannot send the dns reply of an upstream");
        }
    });
}
