//! `GET /master/state` of a list of masters, of which one leads.
//!
//! Masters that do not lead redirect, and redirects are followed by hand: their location has no
//! scheme and must get the credentials, which an HTTP client rightly drops when the host changes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::{Client, StatusCode, Url, redirect};

use super::{Error, Fetched, Location, Source};
use crate::mesos;

/// A master that is asked redirects at most once; a second time allows for an election meanwhile.
const MAX_REDIRECTS: usize = 3;

/// Longest document; 100,000 tasks make about 150 MB.
const MAX_DOCUMENT: usize = 1 << 30;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP client, masters, and which of them answered last.
#[derive(Debug)]
pub struct Masters {
    client: Client,
    masters: Vec<Url>,
    leader: Option<Url>,
    /// Hash of the last good document.
    document: Option<u64>,
}

impl Masters {
    /// `timeout` bounds each whole answer.
    pub fn new(masters: &[Location], timeout: Duration) -> Result<Self, Error> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("l4lbd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .gzip(true)
            .no_proxy()
            .build()?;
        let masters = masters.iter().filter_map(|location| match location {
            Location::Http(url) => Some(state_url(url)),
            Location::File(_) => None,
        });
        Ok(Self { client, masters: masters.collect(), leader: None, document: None })
    }

    /// Asks one master, or the one that it names.
    async fn fetch(&self, master: &Url) -> Result<(Url, Vec<u8>), String> {
        let mut url = master.clone();
        for _ in 0..=MAX_REDIRECTS {
            let shown = without_credentials(&url);
            let mut response = self
                .client
                .get(url.clone())
                .send()
                .await
                .map_err(|error| format!("{shown}: {}", cause(&error)))?;
            match response.status() {
                StatusCode::OK => {
                    let body = body(&mut response).await.map_err(|error| format!("{shown}: {error}"))?;
                    return Ok((url, body));
                }
                StatusCode::TEMPORARY_REDIRECT | StatusCode::FOUND | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let location =
                        location.ok_or_else(|| format!("{shown}: a redirect without a location"))?;
                    url = follow(&url, location).map_err(|error| format!("{shown}: {error}"))?;
                }
                status => return Err(format!("{shown}: {status}{}", hint(status))),
            }
        }
        Err(format!("{}: too many redirects", without_credentials(master)))
    }
}

impl Source for Masters {
    async fn next(&mut self) -> Result<Fetched, Error> {
        let mut failures = Vec::new();
        let leader = self.leader.take();
        let others: Vec<Url> =
            self.masters.iter().filter(|master| Some(*master) != leader.as_ref()).cloned().collect();
        for master in leader.into_iter().chain(others) {
            let (url, body) = match self.fetch(&master).await {
                Ok(answer) => answer,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let document = hash(&body);
            if self.document == Some(document) {
                self.leader = Some(url);
                return Ok(Fetched::Unchanged);
            }
            match tokio::task::spawn_blocking(move || mesos::parse(&body, Some(mesos::Format::State))).await?
            {
                Ok(snapshot) => {
                    self.leader = Some(url);
                    self.document = Some(document);
                    return Ok(Fetched::New(snapshot));
                }
                Err(error) => failures.push(format!("{}: {error}", without_credentials(&url))),
            }
        }
        Err(Error::Masters(failures))
    }

    fn place(&self) -> String {
        self.leader.as_ref().map(without_credentials).unwrap_or_default()
    }
}

/// The address of a URL, as people may see it.
pub fn without_credentials(url: &Url) -> String {
    let mut shown = url.clone();
    // These fail only for URLs that have no host, hence no credentials.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.as_str().trim_end_matches('/').to_owned()
}

/// A master is given by its address, with a path where a proxy is in between; a whole state URL is
/// taken as it is.
fn state_url(master: &Url) -> Url {
    let mut url = master.clone();
    let path = master.path().trim_end_matches('/');
    if !path.ends_with("/state") && !path.ends_with("/state.json") {
        url.set_path(&format!("{path}/master/state"));
    }
    url
}

fn follow(from: &Url, location: &str) -> Result<Url, String> {
    let mut to = from.join(location).map_err(|error| format!("bad location {location:?}: {error}"))?;
    if to.username().is_empty() && to.scheme() == from.scheme() {
        let _ = to.set_username(from.username());
        let _ = to.set_password(from.password());
    }
    Ok(to)
}

async fn body(response: &mut reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(format!("the document has more than {MAX_DOCUMENT} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            " (credentials are missing or wrong: write http://USER:PASSWORD@HOST:PORT)"
        }
        StatusCode::FORBIDDEN => " (these credentials may not read the state)",
        StatusCode::NOT_FOUND => " (is it a Mesos master, and has it started?)",
        StatusCode::SERVICE_UNAVAILABLE => " (it knows no leader)",
        _ => "",
    }
}

/// The innermost cause, because reqwest's own text repeats the URL with what is in it.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
