//! The TCP listener, which other programs read from.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::guard::{self, Guard};
use super::server::serve;
use crate::status::HttpState;

/// Pause before the server tries again to listen where another program does.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// Address to listen on, with the rules for clients.
#[derive(Clone, Debug)]
pub struct Port {
    pub address: SocketAddr,
    pub guard: Guard,
}

/// Listens and answers until `shutdown`; tries again as long as it cannot listen, because VIPs do not depend on it.
/// Publishes the address in `states` while it listens, and else why it does not. Of the routes, `open` are for every
/// client, and `reading` for those that may know what runs here.
pub(super) async fn run(
    port: Port,
    (open, reading): (Router, Router),
    states: watch::Sender<HttpState>,
    shutdown: CancellationToken,
) {
    let guard = Arc::new(port.guard);
    let reading = reading.layer(middleware::from_fn_with_state(guard.clone(), guard::login));
    let router = open.merge(reading).layer(middleware::from_fn_with_state(guard, guard::check));
    let mut last: Option<io::ErrorKind> = None;
    loop {
        match TcpListener::bind(port.address).await {
            Ok(listener) => {
                let address = listener.local_addr().ok();
                tracing::info!(address = %address.unwrap_or(port.address), "http server is listening");
                states.send_replace(HttpState { address, error: None });
                return serve(&listener, router, shutdown).await;
            }
            // Logged once, however often it is met.
            Err(error) if last == Some(error.kind()) => {}
            Err(error) => {
                tracing::error!(
                    %error,
                    address = %port.address,
                    retry_seconds = LISTEN_RETRY.as_secs(),
                    "cannot listen for http, so that metrics cannot be scraped until a retry succeeds; another program \
                     may have the port: stop it, or change http.listen"
                );
                last = Some(error.kind());
                let error = format!("cannot listen on {}: {error}", port.address);
                states.send_replace(HttpState { address: None, error: Some(error) });
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LISTEN_RETRY) => {}
        }
    }
}
