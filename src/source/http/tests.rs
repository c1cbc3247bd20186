//! Against servers on this machine that want credentials or speak TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::source::http::credentials::TokenScheme;
use crate::source::http::secret::SecretRef;
use crate::source::testing::{Server, redirects};

const KEY: &str = include_str!("../../../tests/fixtures/keys/service-account.pem");

async fn ask(http: &HttpClient, url: &str) -> Result<String, String> {
    let (_, document) = http.document(&Url::parse(url).unwrap(), Call::Get).await?;
    Ok(String::from_utf8(document.decode().unwrap()).unwrap())
}

fn http(access: &Access) -> HttpClient {
    HttpClient::new(access, TrustedServers::default(), Duration::from_secs(10)).unwrap()
}

/// A file with this text.
fn keep(directory: &TempDir, text: &str) -> SecretRef {
    let path = directory.path().join("secret");
    std::fs::write(&path, text).unwrap();
    SecretRef::File(path)
}

fn unauthorized() -> Response {
    StatusCode::UNAUTHORIZED.into_response()
}

#[tokio::test]
async fn secrets_are_read_again_for_every_question() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(|_| "ok".into_response()).await;
    let basic = http(&Access { basic: Some(keep(&directory, "user:secret\n")), ..Access::default() });
    assert_eq!(ask(&basic, &server.url()).await.unwrap(), "ok");
    let bearer = http(&Access { token: Some(keep(&directory, "one")), ..Access::default() });
    assert_eq!(ask(&bearer, &server.url()).await.unwrap(), "ok");
    let token_scheme = TokenScheme::Token;
    let dcos = http(&Access { token: Some(keep(&directory, "two")), token_scheme, ..Access::default() });
    assert_eq!(ask(&dcos, &server.url()).await.unwrap(), "ok");
    assert_eq!(ask(&bearer, &server.url()).await.unwrap(), "ok");
    let sent: Vec<String> = server.asked().into_iter().map(|(_, credentials)| credentials.unwrap()).collect();
    assert_eq!(sent, ["Basic dXNlcjpzZWNyZXQ=", "Bearer one", "token=two", "Bearer two"]);
}

#[tokio::test]
async fn bad_credentials_are_an_error_that_does_not_show_them() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(|_| unauthorized()).await;
    let wrong = http(&Access { basic: Some(keep(&directory, "user:hunter2")), ..Access::default() });
    let text = ask(&wrong, &server.url()).await.unwrap_err();
    assert!(text.contains("401") && text.contains(&server.url()) && !text.contains("hunter2"), "{text}");
    keep(&directory, "hunter2");
    let text = ask(&wrong, &server.url()).await.unwrap_err();
    assert!(text.contains("USER:PASSWORD") && !text.contains("hunter2"), "{text}");
    std::fs::remove_file(directory.path().join("secret")).unwrap();
    let text = ask(&wrong, &server.url()).await.unwrap_err();
    assert!(text.contains("cannot read the secret"), "{text}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_user_in_the_url_has_precedence() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(|_| "ok".into_response()).await;
    let http = http(&Access { token: Some(keep(&directory, "one")), ..Access::default() });
    ask(&http, &format!("http://user:secret@{}", server.address)).await.unwrap();
    assert_eq!(server.asked()[0].1.as_deref(), Some("Basic dXNlcjpzZWNyZXQ="));
}

#[tokio::test]
async fn a_service_account_logs_in_once_and_again_when_its_session_ends() {
    let directory = tempfile::tempdir().unwrap();
    let login = Server::start(|_| r#"{"token":"first"}"#.into_response()).await;
    let accepted = |token: &'static str| {
        move |headers: &axum::http::HeaderMap| match headers["authorization"] == format!("token={token}") {
            true => "ok".into_response(),
            false => unauthorized(),
        }
    };
    let server = Server::start(accepted("first")).await;
    let account = serde_json::json!({
        "uid": "l4lbd", "scheme": "RS256", "private_key": KEY, "login_endpoint": format!("{}/login", login.url()),
    });
    let http =
        http(&Access { service_account: Some(keep(&directory, &account.to_string())), ..Access::default() });
    for _ in 0..2 {
        assert_eq!(ask(&http, &server.url()).await.unwrap(), "ok");
    }
    assert_eq!(login.asked().len(), 1);
    login.replies(|_| r#"{"token":"second"}"#.into_response());
    server.replies(accepted("second"));
    assert_eq!(ask(&http, &server.url()).await.unwrap(), "ok");
    assert_eq!(login.asked().len(), 1);
    // One that never works is given up on, and so is a login that is refused.
    server.replies(|_| unauthorized());
    assert!(ask(&http, &server.url()).await.unwrap_err().contains("401"));
    assert_eq!(login.asked().len(), 1);
    login.replies(|_| unauthorized());
    let text = ask(&http, &server.url()).await.unwrap_err();
    assert!(text.contains("login of service account") && text.contains("401"), "{text}");
}

#[tokio::test]
async fn a_login_is_never_sent_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let stranger = Server::start(|_| r#"{"token":"first"}"#.into_response()).await;
    let to = format!("{}/{}", stranger.url(), "x".repeat(10_000));
    let login =
        Server::start(move |_| (StatusCode::TEMPORARY_REDIRECT, [("location", to.clone())]).into_response())
            .await;
    let server = Server::start(|_| "ok".into_response()).await;
    let account = serde_json::json!({
        "uid": "l4lbd", "private_key": KEY, "login_endpoint": format!("{}/login", login.url()),
    });
    let http =
        http(&Access { service_account: Some(keep(&directory, &account.to_string())), ..Access::default() });
    let text = ask(&http, &server.url()).await.unwrap_err();
    assert!(text.contains("login_endpoint") && text.contains(&stranger.url()) && text.len() < 600, "{text}");
    assert!(stranger.asked().is_empty() && server.asked().is_empty());
}

#[tokio::test]
async fn the_answer_must_come_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let http =
        HttpClient::new(&Access::default(), TrustedServers::default(), Duration::from_millis(100)).unwrap();
    assert!(ask(&http, &url).await.unwrap_err().contains("no answer in time"));
}

/// Answers each connection with `head` and then with `flood` for ever; counts the connections that
/// were ended by the client.
async fn raw_server(head: String, flood: &'static str) -> (String, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (ended, endings) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (head, ended) = (head.clone(), ended.clone());
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let mut sent = stream.write_all(head.as_bytes()).await;
                while sent.is_ok() && !flood.is_empty() {
                    sent = stream.write_all(flood.as_bytes()).await;
                }
                let _ = ended.send(());
            });
        }
    });
    (url, endings)
}

#[tokio::test]
async fn numbers_in_headers_are_no_panic() {
    for number in ["-1", "0", "18446744073709551615", "18446744073709551616", "1e300", "NaN", "99999999999"] {
        for status in ["200 OK", "503 Service Unavailable", "307 Temporary Redirect"] {
            let head = format!(
                "HTTP/1.1 {status}\r\nRetry-After: {number}\r\nContent-Length: {number}\r\nAge: {number}\r\n\
                 Keep-Alive: timeout={number}\r\n\r\n{{}}"
            );
            let (url, _endings) = raw_server(head, "").await;
            let answer = ask(&http(&Access::default()), &url).await;
            assert!(answer.is_err() || answer.unwrap().is_empty(), "{number} {status}");
        }
    }
}

/// Each of them restarts the time that a server is given where only the pieces of an answer are timed.
#[tokio::test]
async fn answers_that_never_come_to_the_point_end_in_time_with_their_connection() {
    for (head, flood) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"),
    ] {
        let (url, mut endings) = raw_server(head.to_owned(), flood).await;
        let http = HttpClient::new(&Access::default(), TrustedServers::default(), Duration::from_millis(200))
            .unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            let error = ask(&http, &url).await.unwrap_err();
            assert!(error.contains("in time"), "{error}");
            // The connection is closed as well, instead of being read for ever.
            endings.recv().await.unwrap();
        });
        waited.await.unwrap();
    }
}

/// A connection that is always in use would stay with the address that a name had at first.
#[tokio::test]
async fn connections_are_made_anew_now_and_then() {
    let server = Server::start(|headers| {
        let closes = headers.get("connection").is_some_and(|value| value == "close");
        closes.to_string().into_response()
    })
    .await;
    let http = http(&Access::default());
    assert_eq!(ask(&http, &server.url()).await.unwrap(), "false");
    *http.renewed.lock().unwrap() = Instant::now().checked_sub(CONNECTION_AGE).unwrap();
    assert_eq!(ask(&http, &server.url()).await.unwrap(), "true");
    assert_eq!(ask(&http, &server.url()).await.unwrap(), "false");
}

/// An authority, with a server that has a certificate of it and perhaps wants one of the client.
struct Tls {
    directory: TempDir,
    server: Server,
}

struct Listener(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Tls {
    async fn start(wants_certificate: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.to_owned()]).unwrap();
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let (certificate, key) = issue("127.0.0.1");
        let (client, client_key) = issue("l4lbd");
        for (name, text) in
            [("ca.pem", authority.pem()), ("cert.pem", client.pem()), ("key.pem", client_key.serialize_pem())]
        {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let builder = rustls::ServerConfig::builder();
        let builder = match wants_certificate {
            true => builder
                .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap()),
            false => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener(listener, TlsAcceptor::from(Arc::new(config)));
        Self { directory, server: Server::serve(address, listener, |_| "ok".into_response()) }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.directory.path().join(name))
    }

    fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }
}

#[tokio::test]
async fn certificates_of_the_configured_authority_are_trusted() {
    let tls = Tls::start(false).await;
    let trusting = http(&Access { tls_ca: tls.path("ca.pem"), ..Access::default() });
    assert_eq!(ask(&trusting, &tls.url()).await.unwrap(), "ok");
    let other = Tls::start(false).await;
    let text = ask(&trusting, &other.url()).await.unwrap_err();
    assert!(text.contains("tls_ca") && text.contains(&other.url()), "{text}");
}

/// Where a process looks for the authorities of its system is in its environment, so this test runs itself in
/// another process.
#[tokio::test]
async fn a_node_without_authorities_asks_servers_without_tls() {
    const NOWHERE: &str = "/nowhere/authorities";
    if std::env::var_os("SSL_CERT_FILE").is_none_or(|file| file != NOWHERE) {
        let mut itself = tokio::process::Command::new(std::env::current_exe().unwrap());
        itself.args(["--exact", "source::http::tests::a_node_without_authorities_asks_servers_without_tls"]);
        itself.env("SSL_CERT_FILE", NOWHERE).env("SSL_CERT_DIR", NOWHERE);
        let output = itself.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let client = http(&Access::default());
    let server = Server::start(|_| "ok".into_response()).await;
    assert_eq!(ask(&client, &server.url()).await.unwrap(), "ok");
    let tls = Tls::start(false).await;
    let text = ask(&client, &tls.url()).await.unwrap_err();
    assert!(text.contains("tls_ca"), "{text}");
    let trusting = http(&Access { tls_ca: tls.path("ca.pem"), ..Access::default() });
    assert_eq!(ask(&trusting, &tls.url()).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_server_may_want_a_certificate() {
    let tls = Tls::start(true).await;
    let without = Access { tls_ca: tls.path("ca.pem"), ..Access::default() };
    assert!(ask(&http(&without), &tls.url()).await.is_err());
    let with = Access { tls_cert: tls.path("cert.pem"), tls_key: tls.path("key.pem"), ..without };
    assert_eq!(ask(&http(&with), &tls.url()).await.unwrap(), "ok");
}

#[tokio::test]
async fn credentials_do_not_leave_an_encrypted_connection() {
    let tls = Tls::start(false).await;
    let plain = Server::start(|_| "ok".into_response()).await;
    let to = format!("{}/state", plain.url());
    tls.server.replies(move |_| (StatusCode::TEMPORARY_REDIRECT, [("location", to.clone())]).into_response());
    let token = Some(keep(&tls.directory, "secret"));
    let access = Access { tls_ca: tls.path("ca.pem"), token, ..Access::default() };
    let listed = [Url::parse(&tls.url()).unwrap()];
    let servers = TrustedServers::new("source.masters", &listed, redirects(&[plain.url()]));
    let http = HttpClient::new(&access, servers, Duration::from_secs(10)).unwrap();
    ask(&http, &tls.url()).await.unwrap();
    assert_eq!(plain.asked(), [("/state".to_owned(), None)]);
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, text).unwrap();
        let access = Access { tls_ca: Some(path.clone()), ..Access::default() };
        let made = HttpClient::new(&access, TrustedServers::default(), CONNECT_TIMEOUT);
        assert!(made.is_err(), "{text}");
    }
}
