//! Against small HTTP servers on this machine that answer as masters do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::*;

const DOCUMENT: &str = r#"{"id":"M","elected_time":1.0,"slaves":[],"frameworks":[]}"#;

type Reply = Box<dyn Fn(&HeaderMap) -> Response + Send>;

/// What a master was asked: path, and the credentials it got.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

#[derive(Clone)]
struct Master {
    address: SocketAddr,
    asked: Asked,
    reply: Arc<Mutex<Reply>>,
}

impl Master {
    async fn start(reply: impl Fn(&HeaderMap) -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let master = Self {
            address: listener.local_addr().unwrap(),
            asked: Asked::default(),
            reply: Arc::new(Mutex::new(Box::new(reply))),
        };
        let router = Router::new().fallback(answer).with_state(master.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        master
    }

    fn replies(&self, reply: impl Fn(&HeaderMap) -> Response + Send + 'static) {
        *self.reply.lock().unwrap() = Box::new(reply);
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn answer(State(master): State<Master>, uri: Uri, headers: HeaderMap) -> Response {
    let credentials = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    master.asked.lock().unwrap().push((uri.path().to_owned(), credentials));
    master.reply.lock().unwrap()(&headers)
}

fn redirect(to: &str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [("location", to.to_owned())]).into_response()
}

fn masters(urls: &[String]) -> Masters {
    let locations: Vec<Location> = urls.iter().map(|url| url.parse().unwrap()).collect();
    Masters::new(&locations, Duration::from_secs(10)).unwrap()
}

async fn failure(masters: &mut Masters) -> String {
    masters.next().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_redirect_without_scheme_is_followed_with_the_credentials() {
    let leader = Master::start(|_| DOCUMENT.into_response()).await;
    let to = format!("//{}/master/state", leader.address);
    let standby = Master::start(move |_| redirect(&to)).await;
    let mut masters = masters(&[format!("http://user:secret@{}", standby.address)]);
    assert!(matches!(masters.next().await, Ok(Fetched::New(_))));
    let credentials = Some("Basic dXNlcjpzZWNyZXQ=".to_owned());
    assert_eq!(leader.asked(), [("/master/state".to_owned(), credentials)]);
    assert_eq!(masters.place(), format!("http://{}/master/state", leader.address));
    // From now on the leader is asked itself.
    standby.asked();
    assert!(matches!(masters.next().await, Ok(Fetched::Unchanged)));
    assert_eq!((standby.asked().len(), leader.asked().len()), (0, 1));
}

#[tokio::test]
async fn masters_without_an_answer_are_skipped_and_named() {
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED] {
        let bad = Master::start(move |_| status.into_response()).await;
        let good = Master::start(|_| DOCUMENT.into_response()).await;
        assert!(matches!(masters(&[bad.url(), good.url()]).next().await, Ok(Fetched::New(_))), "{status}");
        let text = failure(&mut masters(&[bad.url()])).await;
        assert!(text.contains(&bad.url()) && text.contains(status.as_str()), "{text}");
    }
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let text = failure(&mut masters(&[format!("http://user:secret@{gone}")])).await;
    assert!(text.contains("refused") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn what_is_no_state_is_an_error_and_not_an_empty_cluster() {
    for body in ["", "<html>busy</html>", "{}", "[]", "null", &DOCUMENT[..30]] {
        let body = body.to_owned();
        let master = Master::start(move |_| body.clone().into_response()).await;
        let text = failure(&mut masters(&[master.url()])).await;
        assert!(text.contains(&master.url()), "{text}");
    }
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let master = Master::start(|_| redirect("/master/state")).await;
    let text = failure(&mut masters(&[master.url()])).await;
    assert!(text.contains("too many redirects"), "{text}");
}

#[tokio::test]
async fn the_next_leader_is_found_after_the_last_one_fails() {
    let first = Master::start(|_| DOCUMENT.into_response()).await;
    let second = Master::start(|_| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    let mut masters = masters(&[first.url(), second.url()]);
    assert!(masters.next().await.is_ok());
    first.replies(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    assert!(masters.next().await.is_err());
    second.replies(|_| DOCUMENT.replace("\"M\"", "\"N\"").into_response());
    assert!(matches!(masters.next().await, Ok(Fetched::New(_))));
    assert!(masters.place().starts_with(&second.url()));
}

#[tokio::test]
async fn compressed_answers_are_asked_for() {
    let master = Master::start(|headers| {
        assert!(headers["accept-encoding"].to_str().unwrap().contains("gzip"));
        DOCUMENT.into_response()
    })
    .await;
    assert!(masters(&[master.url()]).next().await.is_ok());
}

#[test]
fn paths() {
    let path = |text: &str| state_url(&Url::parse(text).unwrap()).to_string();
    assert_eq!(path("http://m:5050"), "http://m:5050/master/state");
    assert_eq!(path("http://m:5050/"), "http://m:5050/master/state");
    assert_eq!(path("https://proxy/mesos/"), "https://proxy/mesos/master/state");
    assert_eq!(path("http://m:5050/state"), "http://m:5050/state");
}
