//! The asking side of the interface.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method};

/// Longest wait for the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a request to the daemon whose socket this is, and returns the body of its answer, a
/// [`Status`](crate::status::Status) as JSON.
///
/// # Errors
/// When nobody answers in time, or with a refusal.
pub async fn ask(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, reqwest::Error> {
    // Fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // No certificate is ever looked at on a Unix socket, and reading them all takes long.
    let client = Client::builder().unix_socket(socket).tls_certs_only([]).timeout(TIMEOUT).build()?;
    let response = client.request(method, format!("http://l4lbd{path}")).send().await?.error_for_status()?;
    Ok(response.bytes().await?.into())
}
