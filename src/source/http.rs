//! HTTP towards masters, agents and Marathon: credentials, TLS, redirects, compression, limits.
//!
//! Redirects are followed by hand: those of masters have no scheme and must get the credentials,
//! which an HTTP client rightly drops when the host changes. Answers are decompressed by their
//! reader, who so knows how large they were on the wire and does it off the async threads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION,
};
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url, redirect, tls};

use super::Error;
use super::location::without_credentials;
use super::settings::Access;
use credentials::Credentials;

pub mod credentials;
mod login;
pub mod secret;

/// A master that is asked redirects at most once; a second time allows for an election meanwhile.
const MAX_REDIRECTS: usize = 3;

/// Longest document; 100,000 tasks make about 150 MB.
const MAX_DOCUMENT: usize = 1 << 30;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest use of one connection, after which its name is resolved again.
const CONNECTION_AGE: Duration = Duration::from_secs(30);

/// What to ask a server.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
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

/// A client with everything that its servers ask for.
#[derive(Debug)]
pub struct Http {
    client: Client,
    credentials: Credentials,
    timeout: Duration,
    /// When connections were last closed on purpose.
    renewed: Mutex<Instant>,
}

impl Http {
    /// `timeout` bounds each whole answer, and for streams its beginning.
    ///
    /// # Errors
    /// When a certificate or key can't be used.
    pub fn new(access: &Access, timeout: Duration) -> Result<Self, Error> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("l4lbd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .tls_version_min(tls::Version::TLS_1_2)
            .no_proxy();
        if let Some(path) = &access.tls_ca {
            let certificates = Certificate::from_pem_bundle(&read(path)?);
            let certificates = certificates.map_err(|error| pem(path, cause(&error)))?;
            if certificates.is_empty() {
                return Err(pem(path, "there is no certificate in it".to_owned()));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let (Some(certificate), Some(key)) = (&access.tls_cert, &access.tls_key) {
            let mut both = read(certificate)?;
            both.push(b'\n');
            both.extend(read(key)?);
            builder =
                builder.identity(Identity::from_pem(&both).map_err(|error| pem(certificate, cause(&error)))?);
        }
        Ok(Self {
            client: builder.build()?,
            credentials: Credentials::new(access),
            timeout,
            renewed: Mutex::new(Instant::now()),
        })
    }

    /// The answer to `ask`, complete, with the URL that gave it in the end.
    pub async fn document(&self, url: &Url, ask: Ask<'_>) -> Result<(Url, Document), String> {
        let asked = async {
            let (url, mut response) = self.send(url, ask, Accept::Json).await?;
            let gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
            let encoded = body(&mut response).await;
            let encoded = encoded.map_err(|error| format!("{}: {error}", without_credentials(&url)))?;
            Ok((url, Document { encoded, gzip }))
        };
        self.in_time(url, asked).await
    }

    /// The beginning of an answer that need not end.
    pub async fn stream(&self, url: &Url, ask: Ask<'_>, accept: Accept) -> Result<(Url, Response), String> {
        self.in_time(url, self.send(url, ask, accept)).await
    }

    async fn in_time<T>(
        &self,
        url: &Url,
        asked: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let answered = tokio::time::timeout(self.timeout, asked).await;
        answered.unwrap_or_else(|_| Err(format!("{}: no answer in time", without_credentials(url))))
    }

    async fn send(&self, first: &Url, ask: Ask<'_>, accept: Accept) -> Result<(Url, Response), String> {
        let mut url = first.clone();
        let mut again = true;
        for _ in 0..=MAX_REDIRECTS {
            let shown = without_credentials(&url);
            // Never from an encrypted connection to one that is not.
            let trusted = url.scheme() == first.scheme() || url.scheme() == "https";
            let authorization = match url.username() {
                "" if trusted => {
                    self.credentials.header(&self.client).await.map_err(|error| error.to_string())?
                }
                // The client makes a header of what is in the URL.
                _ => None,
            };
            let request = self.request(&url, ask, accept, authorization);
            let response = request.send().await.map_err(|error| format!("{shown}: {}", cause(&error)))?;
            match response.status() {
                StatusCode::OK => return Ok((url, response)),
                StatusCode::TEMPORARY_REDIRECT | StatusCode::FOUND | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let location =
                        location.ok_or_else(|| format!("{shown}: a redirect without a location"))?;
                    url = follow(&url, location).map_err(|error| format!("{shown}: {error}"))?;
                }
                // A session may have ended; then a new login helps, once.
                StatusCode::UNAUTHORIZED if again && self.credentials.end_session().await => again = false,
                status => return Err(format!("{shown}: {status}{}", hint(status))),
            }
        }
        Err(format!("{}: too many redirects", without_credentials(first)))
    }

    fn request(
        &self,
        url: &Url,
        ask: Ask<'_>,
        accept: Accept,
        authorization: Option<HeaderValue>,
    ) -> reqwest::RequestBuilder {
        let mut request = match ask {
            Ask::Get => self.client.get(url.clone()),
            Ask::Post(body) => {
                self.client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.to_owned())
            }
        };
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

    /// A connection that is used all the time would stay with the address that a name once had.
    fn is_time_to_renew(&self) -> bool {
        let Ok(mut renewed) = self.renewed.lock() else { return true };
        let due = renewed.elapsed() >= CONNECTION_AGE;
        if due {
            *renewed = Instant::now();
        }
        due
    }
}

/// An answer as it came.
#[derive(Debug)]
pub struct Document {
    encoded: Vec<u8>,
    gzip: bool,
}

impl Document {
    /// Bytes on the wire.
    pub fn wire_size(&self) -> usize {
        self.encoded.len()
    }

    /// The same for the same bytes.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.encoded.hash(&mut hasher);
        hasher.finish()
    }

    /// The bytes that were meant. Takes long for long documents.
    pub fn decode(self) -> std::io::Result<Vec<u8>> {
        if !self.gzip {
            return Ok(self.encoded);
        }
        let mut decoded = Vec::new();
        let most = MAX_DOCUMENT as u64;
        let mut reader = flate2::read::MultiGzDecoder::new(self.encoded.as_slice()).take(most + 1);
        reader.read_to_end(&mut decoded)?;
        if decoded.len() > MAX_DOCUMENT {
            return Err(std::io::Error::other(too_long()));
        }
        Ok(decoded)
    }
}

async fn body(response: &mut Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn too_long() -> String {
    format!("the document has more than {MAX_DOCUMENT} bytes")
}

fn follow(from: &Url, location: &str) -> Result<Url, String> {
    let mut to = from.join(location).map_err(|error| format!("bad location {location:?}: {error}"))?;
    if to.username().is_empty() && to.scheme() == from.scheme() {
        let _ = to.set_username(from.username());
        let _ = to.set_password(from.password());
    }
    Ok(to)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::File { path: path.to_owned(), error })
}

fn pem(path: &Path, error: String) -> Error {
    Error::Pem { path: path.to_owned(), error }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            " (credentials are missing, wrong or expired: see basic, token and service_account in l4lbd --help)"
        }
        StatusCode::FORBIDDEN => " (these credentials may not read that)",
        StatusCode::NOT_FOUND => " (is it the right server, and has it started?)",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => " (it knows no leader)",
        _ => "",
    }
}

/// The innermost cause, because reqwest's own text repeats the URL with what is in it.
pub fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    match cause.contains("invalid peer certificate") {
        true => format!("{cause} (is the authority of its certificate in tls_ca?)"),
        false => cause,
    }
}

#[cfg(test)]
mod tests;
