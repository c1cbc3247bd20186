//! HTTP towards masters, agents and Marathon: credentials, TLS, redirects, compression, limits.
//!
//! What belongs here: one request and its answer. Which servers are asked, and when, is decided in the
//! sources.
//!
//! Redirects are followed by hand: those of masters have no scheme and must get the credentials,
//! which an HTTP client rightly drops when the host changes. Answers are decompressed by their
//! reader, which so knows their size on the wire and does it off the async threads.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION,
};
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url, redirect, tls};

use super::Error;
use super::asked::AskedServers;
use super::location::without_credentials;
use super::traffic::{RequestFailure, Traffic};
use credentials::{Access, Credentials};
pub use document::HttpDocument;
pub use error::cause;
use error::status_hint;
pub use redirects::TrustedServers;

pub mod credentials;
mod document;
mod error;
mod login;
pub mod redirects;
pub mod secret;

/// Redirects in a row. A master redirects at most once; a second time allows for an election
/// meanwhile.
const MAX_REDIRECTS: usize = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest use of one connection, after which its name is resolved again.
const CONNECTION_AGE: Duration = Duration::from_secs(30);

/// Method of a request, with its body.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Get,
    /// A JSON body.
    Post(&'a str),
}

/// Media type that a server should answer with.
#[derive(Clone, Copy, Debug)]
pub enum Accept {
    Json,
    /// JSON in RecordIO frames, which masters do not compress.
    Records,
    /// Server-sent events.
    Events,
}

/// A client with its credentials, authorities and limits.
#[derive(Debug)]
pub struct HttpClient {
    client: Client,
    credentials: Credentials,
    servers: TrustedServers,
    /// Addresses of all servers that were asked, those of logins among them.
    asked: AskedServers,
    timeout: Duration,
    traffic: Arc<Traffic>,
    /// Time at which connections were last closed on purpose.
    renewed: Mutex<Instant>,
}

/// Installs the implementation of TLS that every client of this program uses.
pub fn install_tls_provider() {
    // Fails if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Reads the certificates of the authorities in a PEM file.
fn authorities(path: &Path) -> Result<Vec<Certificate>, Error> {
    let certificates = Certificate::from_pem_bundle(&read(path)?);
    let certificates = certificates.map_err(|error| pem(path, cause(&error)))?;
    // An empty list would trust nothing, which would only show at the first request.
    if certificates.is_empty() {
        return Err(pem(path, "there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// Reads the client's own certificate and its key, which reqwest takes in one piece of PEM.
fn identity(certificate: &Path, key: &Path) -> Result<Identity, Error> {
    let mut both = read(certificate)?;
    both.push(b'\n');
    both.extend(read(key)?);
    Identity::from_pem(&both).map_err(|error| pem(certificate, cause(&error)))
}

impl HttpClient {
    /// `timeout` bounds each whole answer, and for streams its beginning.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(access: &Access, servers: TrustedServers, timeout: Duration) -> Result<Self, Error> {
        install_tls_provider();
        let asked = AskedServers::default();
        let trusted = access.tls_ca.as_deref().map(authorities).transpose()?;
        let identity = match (&access.tls_cert, &access.tls_key) {
            (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
            _ => None,
        };
        let build = |trusted: Option<Vec<Certificate>>| {
            let mut builder = Client::builder()
                .user_agent(concat!("l4lbd/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT.min(timeout))
                .tls_version_min(tls::Version::TLS_1_2)
                .no_proxy()
                .dns_resolver(asked.clone());
            if let Some(trusted) = trusted {
                builder = builder.tls_certs_only(trusted);
            }
            if let Some(identity) = identity.clone() {
                builder = builder.identity(identity);
            }
            builder.build()
        };
        let client = match (build(trusted.clone()), trusted) {
            // A node that has no authorities can still ask servers without TLS. What fails is a request to one
            // with TLS, whose error names the key of the configuration.
            (Err(error), None) => {
                tracing::warn!(
                    error = cause(&error),
                    "servers with https are not trusted: this node has no certificates of authorities. Install the \
                     package ca-certificates, or name a file in source.tls_ca, and restart l4lbd"
                );
                build(Some(Vec::new()))?
            }
            (client, _) => client?,
        };
        Ok(Self {
            client,
            credentials: Credentials::new(access),
            servers,
            asked,
            timeout,
            traffic: Arc::default(),
            renewed: Mutex::new(Instant::now()),
        })
    }

    /// Counts into `traffic` from now on.
    #[must_use]
    pub fn counting(self, traffic: Arc<Traffic>) -> Self {
        Self { traffic, ..self }
    }

    /// Returns the traffic so far, which goes on being counted.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Returns the servers whose redirects are followed.
    pub fn servers(&self) -> &TrustedServers {
        &self.servers
    }

    /// Returns the addresses of the servers that were asked.
    pub fn asked(&self) -> &AskedServers {
        &self.asked
    }

    /// Returns the complete answer to `call`, and the URL that gave it in the end.
    ///
    /// # Errors
    /// A text for an operator with the URL, without credentials.
    pub async fn document(&self, url: &Url, call: Call<'_>) -> Result<(Url, HttpDocument), String> {
        let asked = async {
            let (url, mut response) = self.send(url, call, Accept::Json).await?;
            let document = HttpDocument::read(&mut response).await;
            let document = document.map_err(|error| {
                let error = format!("{}: {error}", without_credentials(&url));
                self.failed(RequestFailure::Body, error)
            })?;
            self.traffic.receive(document.wire_size());
            Ok((url, document))
        };
        self.in_time(url, asked).await
    }

    /// Returns the beginning of an answer that need not end, and the URL that gives it.
    pub async fn stream(&self, url: &Url, call: Call<'_>, accept: Accept) -> Result<(Url, Response), String> {
        self.in_time(url, self.send(url, call, accept)).await
    }

    async fn in_time<T>(
        &self,
        url: &Url,
        asked: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let answered = tokio::time::timeout(self.timeout, asked).await;
        answered.unwrap_or_else(|_| {
            let error = format!(
                "{}: no answer in time, which is {:?} by source.timeout; is the server overloaded?",
                without_credentials(url),
                self.timeout
            );
            Err(self.failed(RequestFailure::Timeout, error))
        })
    }

    /// Counts a failed request, and returns its error.
    fn failed(&self, failure: RequestFailure, error: String) -> String {
        self.traffic.fail(failure);
        error
    }

    /// Sends a request, with redirects and at most one new login.
    async fn send(&self, first: &Url, call: Call<'_>, accept: Accept) -> Result<(Url, Response), String> {
        let mut url = first.clone();
        let mut again = true;
        for _ in 0..=MAX_REDIRECTS {
            let shown = without_credentials(&url);
            // Credentials never go from an encrypted connection to one that is not.
            let trusted = url.scheme() == first.scheme() || url.scheme() == "https";
            let authorization = match url.username() {
                "" if trusted => {
                    let header = self.credentials.header(&self.client).await;
                    header.map_err(|error| {
                        self.failed(RequestFailure::Credentials, format!("{shown}: {error}"))
                    })?
                }
                // The client itself makes a header of credentials in the URL.
                _ => None,
            };
            // A redirect or an election may have led there.
            self.asked.note_url(&url);
            let request = self.request(&url, call, accept, authorization);
            let response = request.send().await.map_err(|error| {
                self.failed(RequestFailure::Connect, format!("{shown}: {}", cause(&error)))
            })?;
            match response.status() {
                StatusCode::OK => return Ok((url, response)),
                StatusCode::TEMPORARY_REDIRECT | StatusCode::FOUND | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let location = location.ok_or_else(|| "a redirect without a location".to_owned());
                    let target = location.and_then(|location| self.servers.follow(&url, location));
                    url = target.map_err(|error| {
                        self.failed(RequestFailure::Redirect, format!("{shown}: {error}"))
                    })?;
                }
                // A session may have ended; then a new login helps, once.
                StatusCode::UNAUTHORIZED if again && self.credentials.end_session().await => again = false,
                status => {
                    let error = format!("{shown}: {status}{}", status_hint(status));
                    return Err(self.failed(RequestFailure::Status, error));
                }
            }
        }
        let shown = without_credentials(first);
        let error =
            format!("{shown}: too many redirects, more than {MAX_REDIRECTS}; is an election under way?");
        Err(self.failed(RequestFailure::Redirect, error))
    }

    fn request(
        &self,
        url: &Url,
        call: Call<'_>,
        accept: Accept,
        authorization: Option<HeaderValue>,
    ) -> reqwest::RequestBuilder {
        let mut request = match call {
            Call::Get => self.client.get(url.clone()),
            Call::Post(body) => {
                self.client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.to_owned())
            }
        };
        // Only complete answers are compressed: a stream would wait for the compressor's buffer.
        request = match accept {
            Accept::Json => request.header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "gzip"),
            Accept::Records => request.header(ACCEPT, "application/json"),
            Accept::Events => request.header(ACCEPT, "text/event-stream"),
        };
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if self.is_time_to_renew() {
            request = request.header(CONNECTION, "close");
        }
        request
    }

    /// Returns true once every `CONNECTION_AGE`: a connection in constant use would stay with the
    /// address that a name once had.
    fn is_time_to_renew(&self) -> bool {
        let Ok(mut renewed) = self.renewed.lock() else { return true };
        let due = renewed.elapsed() >= CONNECTION_AGE;
        if due {
            *renewed = Instant::now();
        }
        due
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|error| pem(path, format!("{error}; check that the file exists and that l4lbd may read it")))
}

fn pem(path: &Path, error: String) -> Error {
    Error::Pem { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
