//! Access over TCP: nothing changes state, and only clients that are meant get an answer.
//!
//! Any process of the node reaches a port of loopback, and so does any web page that its user looks at. A page of a
//! stranger may have its own name lead to 127.0.0.1 (DNS rebinding) and read the answers then. So the name in the Host
//! header has to be one of ours, and no answer allows other origins to read it (CORS).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret;

use crate::source::http::secret::SecretRef;

/// Rules for clients.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Names of the server, in lower case.
    pub hosts: Vec<String>,
    /// Place of the token that clients must have; `None` if they need none.
    pub token: Option<SecretRef>,
}

/// Answers a request that comes to this server by one of its names and changes nothing.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    // Text of tenants is no page, whatever a browser would make of it.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers a request of a client that has shown who it is, if it has to.
pub(super) async fn login(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.login(request.headers()).await {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

impl Guard {
    /// Returns the answer to a request that is refused for every client.
    fn refusal(&self, request: &Request) -> Option<Response> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let allowed = [(header::ALLOW, "GET, HEAD")];
            let text = "nothing can be changed here; the commands of l4lbd use the status socket\n";
            return Some((StatusCode::METHOD_NOT_ALLOWED, allowed, text).into_response());
        }
        // A request may name its host twice, and browsers do not let a page write either.
        let named = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().ok());
        let target = request.uri().host().map(Some);
        let mut hosts = named.chain(target).peekable();
        let is_allowed =
            hosts.peek().is_some() && hosts.all(|host| host.is_some_and(|host| self.allows(host)));
        let text = "the Host header has a name that http.hosts does not list\n";
        (!is_allowed).then(|| (StatusCode::FORBIDDEN, text).into_response())
    }

    /// Returns true for a name of this server, with or without a port. No stranger's name is an address.
    fn allows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address || name == "localhost" || self.hosts.contains(&name)
    }

    /// Returns the answer to a client that lacks the token.
    async fn login(&self, headers: &HeaderMap) -> Option<Response> {
        let place = self.token.as_ref()?;
        let token = match place.read().await {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%error, "http.token cannot be read, so that every request is refused");
                let text = "the token of this server cannot be read; see its log\n";
                return Some((StatusCode::SERVICE_UNAVAILABLE, text).into_response());
            }
        };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|value| {
            let (scheme, token) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
        });
        // Of the digests, so that the time of the comparison tells nothing of the token.
        let hash = |text: &[u8]| digest(&SHA256, text);
        let is_right = given
            .is_some_and(|given| hash(given).as_ref() == hash(token.expose_secret().as_bytes()).as_ref());
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"l4lbd\"")];
        let text = "this server wants the token of http.token: Authorization: Bearer TOKEN\n";
        (!is_right).then(|| (StatusCode::UNAUTHORIZED, challenge, text).into_response())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn guard(hosts: &[&str]) -> Guard {
        Guard { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), token: None }
    }

    fn refused(guard: &Guard, method: Method, hosts: &[&str], target: &str) -> Option<StatusCode> {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        guard.refusal(&request.body(Body::empty()).unwrap()).map(|response| response.status())
    }

    #[test]
    fn only_names_of_the_server_are_allowed() {
        let guard = guard(&["node7.example.com"]);
        for host in [
            "127.0.0.1:62080",
            "localhost",
            "LOCALHOST:1",
            "[::1]:62080",
            "10.0.0.1",
            "Node7.Example.com.:80",
        ] {
            assert_eq!(refused(&guard, Method::GET, &[host], "/metrics"), None, "{host}");
        }
        for host in
            ["evil.example", "", "node7.example.com.evil.example", "localhost.evil.example", "a b", "é"]
        {
            assert_eq!(
                refused(&guard, Method::GET, &[host], "/metrics"),
                Some(StatusCode::FORBIDDEN),
                "{host}"
            );
        }
        assert_eq!(refused(&guard, Method::GET, &[], "/"), Some(StatusCode::FORBIDDEN));
        let both = ["localhost", "evil.example"];
        assert_eq!(refused(&guard, Method::GET, &both, "/"), Some(StatusCode::FORBIDDEN));
        let target = "http://evil.example/metrics";
        assert_eq!(refused(&guard, Method::GET, &["localhost"], target), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn nothing_changes_state() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            let status = refused(&guard(&[]), method, &["localhost"], "/metrics");
            assert_eq!(status, Some(StatusCode::METHOD_NOT_ALLOWED));
        }
    }

    #[tokio::test]
    async fn a_token_is_wanted_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let guard = Guard { token: Some(SecretRef::File(path.clone())), ..guard(&[]) };
        let login = async |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            guard.login(&headers).await.map(|response| response.status())
        };
        assert_eq!(login(Some("Bearer hunter2")).await, Some(StatusCode::SERVICE_UNAVAILABLE));
        std::fs::write(&path, "hunter2\n").unwrap();
        for value in ["Bearer hunter2", "bearer hunter2"] {
            assert_eq!(login(Some(value)).await, None, "{value}");
        }
        for value in
            [None, Some("Bearer hunter"), Some("Bearer hunter22"), Some("Basic hunter2"), Some("Bearer ")]
        {
            assert_eq!(login(value).await, Some(StatusCode::UNAUTHORIZED), "{value:?}");
        }
    }
}
