//! The client of the status interface, for the commands of this program.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::source::http::install_tls_provider;
use crate::status::Status;
use crate::status::document::VipFilter;

/// Parameter of a request for the status: name or address of the only VIP to be listed.
pub const VIP: &str = "vip";

/// Parameter of a request for the status: list VIPs alone of which a backend should take connections and does not.
pub const UNHEALTHY: &str = "unhealthy";

/// Parameter of a request for the status: id, name or address of the agent whose VIPs are to be listed.
pub const AGENT: &str = "agent";

/// Parameter of a request for the status: name or id of the framework whose VIPs are to be listed.
pub const FRAMEWORK: &str = "framework";

/// Parameter of a request for the status: compare the kernel with what it should hold first.
pub const COMPARE: &str = "compare";

/// Longest wait for the daemon's answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reasons why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no daemon answers on {0}: start it (systemctl start l4lbd), or see why it ended (journalctl -u l4lbd). \
         Connections go on meanwhile"
    )]
    NoDaemon(PathBuf),
    #[error("no permission to use {0}: run as root or as a member of its group")]
    Denied(PathBuf),
    #[error("cannot connect to the daemon on {socket}: {error}")]
    Connect { socket: PathBuf, error: io::Error },
    #[error("the request {path} to the daemon on {socket} failed")]
    Request { socket: PathBuf, path: String, source: reqwest::Error },
    #[error("the daemon on {0} is busy with a long change of the kernel; ask again in a few seconds")]
    Busy(PathBuf),
    #[error(
        "the daemon's answer on {socket} is not what was asked for: {error}; is the daemon of another version?"
    )]
    Answer { socket: PathBuf, error: serde_json::Error },
}

/// The daemon's status.
#[derive(Debug)]
pub struct StatusAnswer {
    /// JSON as the daemon sent it.
    pub body: Vec<u8>,
    pub status: Status,
}

/// Returns the path of a request for the status: with which VIPs, and as the last pass left things or after another
/// one.
pub fn status_path(wanted: &VipFilter, compares: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in [(VIP, &wanted.vip), (AGENT, &wanted.agent), (FRAMEWORK, &wanted.framework)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    if wanted.unhealthy {
        query.append_key_only(UNHEALTHY);
    }
    if compares {
        query.append_key_only(COMPARE);
    }
    match query.finish().as_str() {
        "" => "/status".to_owned(),
        query => format!("/status?{query}"),
    }
}

/// Returns the path of a request with these parameters; those without a value are left out.
pub fn path_of<'p>(path: &str, parameters: impl IntoIterator<Item = (&'p str, Option<&'p str>)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in parameters {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    match query.finish().as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// Sends a request to the daemon on this socket, and returns the status that answers it.
///
/// # Errors
/// When no daemon answers in time, or it refuses the request.
pub async fn ask(socket: &Path, method: Method, path: &str) -> Result<StatusAnswer, ClientError> {
    let (body, status) = fetch_json(socket, method, path).await?;
    Ok(StatusAnswer { body, status })
}

/// Sends a request to the daemon on this socket, and returns the answer as sent and as read.
///
/// # Errors
/// When no daemon answers in time, it refuses the request, or answers something else.
pub async fn fetch_json<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
) -> Result<(Vec<u8>, T), ClientError> {
    let body = fetch(socket, method, path).await?;
    match serde_json::from_slice(&body) {
        Ok(answer) => Ok((body, answer)),
        Err(error) => Err(ClientError::Answer { socket: socket.to_owned(), error }),
    }
}

/// Sends a request to the daemon on this socket, and returns the body of the answer.
///
/// # Errors
/// When no daemon answers in time, or it refuses the request.
pub async fn fetch(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, ClientError> {
    // The HTTP library does not tell why it could not connect.
    if let Err(error) = UnixStream::connect(socket).await {
        let socket = socket.to_owned();
        return Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(socket),
            io::ErrorKind::PermissionDenied => ClientError::Denied(socket),
            _ => ClientError::Connect { socket, error },
        });
    }
    send(socket, method, path).await.map_err(|source| match source.status() {
        Some(StatusCode::SERVICE_UNAVAILABLE) => ClientError::Busy(socket.to_owned()),
        _ => ClientError::Request { socket: socket.to_owned(), path: path.to_owned(), source },
    })
}

async fn send(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, reqwest::Error> {
    install_tls_provider();
    // A Unix socket has no certificates, and reading those of the system takes long.
    let client = Client::builder().unix_socket(socket).tls_certs_only([]).timeout(TIMEOUT).build()?;
    // The host has no meaning on a Unix socket, and HTTP wants one.
    let response = client.request(method, format!("http://l4lbd{path}")).send().await?.error_for_status()?;
    Ok(response.bytes().await?.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one request with this body; the connections before it are the look whether a daemon is there.
    async fn answered_with(status: &str, body: &str) -> Result<StatusAnswer, ClientError> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("l4lbd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let response = response.clone();
                tokio::spawn(async move {
                    if connection.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                        connection.write_all(response.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        ask(&socket, Method::GET, "/status").await
    }

    #[tokio::test]
    async fn a_status_is_returned_as_it_was_sent_too() {
        let sent = serde_json::to_string(&Status { version: "9".into(), ..Status::default() }).unwrap();
        let answer = answered_with("200 OK", &sent).await.unwrap();
        assert_eq!(answer.body, sent.as_bytes());
        assert_eq!(answer.status.version, "9");
    }

    #[test]
    fn wishes_are_in_the_query() {
        assert_eq!(status_path(&VipFilter::default(), false), "/status");
        let vip = Some("a&b c".to_owned());
        let wanted = VipFilter { vip, unhealthy: true, ..VipFilter::default() };
        assert_eq!(status_path(&wanted, true), "/status?vip=a%26b+c&unhealthy&compare");
        assert_eq!(path_of("/events", [("vip", Some("*")), ("task", None)]), "/events?vip=*");
    }

    #[tokio::test]
    async fn a_busy_daemon_is_to_be_asked_again() {
        let error = answered_with("503 Service Unavailable", "").await.unwrap_err();
        assert!(matches!(error, ClientError::Busy(_)), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_status_is_an_error() {
        let error = answered_with("200 OK", "[]").await.unwrap_err();
        assert!(matches!(error, ClientError::Answer { .. }), "{error}");
        let error = answered_with("500 Internal Server Error", "{}").await.unwrap_err();
        assert!(matches!(error, ClientError::Request { .. }), "{error}");
    }

    #[tokio::test]
    async fn without_a_daemon_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("l4lbd.sock");
        let error = ask(&socket, Method::GET, "/status").await.unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon(_)), "{error}");
        // A daemon that was killed leaves its socket behind.
        drop(UnixListener::bind(&socket).unwrap());
        let error = ask(&socket, Method::GET, "/status").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("no daemon answers on {}", socket.display())), "{error}");
        assert!(error.contains("systemctl start l4lbd"), "{error}");
    }
}
