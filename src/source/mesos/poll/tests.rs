//! Against small HTTP servers on this machine that answer as masters do.

use std::io::Write;

use axum::response::{IntoResponse, Response};
use reqwest::StatusCode;
use tokio::net::TcpListener;

use super::*;
use crate::source::testing::{Server as Master, redirects};
use crate::units::Rate;

const DOCUMENT: &str = r#"{"id":"M","elected_time":1.0,"slaves":[],"frameworks":[]}"#;

fn redirect(to: &str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [("location", to.to_owned())]).into_response()
}

fn config(urls: &[String]) -> settings::Source {
    let masters = urls.iter().map(|url| url.parse().unwrap()).collect();
    settings::Source { masters, ..settings::Source::default() }
}

fn masters(urls: &[String]) -> MesosPoll {
    MesosPoll::new(&config(urls)).unwrap()
}

async fn failure(masters: &mut MesosPoll) -> String {
    masters.next().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_redirect_without_scheme_is_followed_with_the_credentials() {
    let leader = Master::start(|_| DOCUMENT.into_response()).await;
    let to = format!("//{}/master/state", leader.address);
    let standby = Master::start(move |_| redirect(&to)).await;
    let mut config = config(&[format!("http://user:secret@{}", standby.address)]);
    config.redirects = redirects(&[leader.url()]);
    let mut masters = MesosPoll::new(&config).unwrap();
    assert!(matches!(masters.next().await, Ok(Fetched::New(_))));
    let credentials = Some("Basic dXNlcjpzZWNyZXQ=".to_owned());
    assert_eq!(leader.asked(), [("/master/state".to_owned(), credentials)]);
    assert_eq!(
        masters.origin(),
        format!(
            "http://{}/master/state (redirected to by http://{}/master/state, not listed)",
            leader.address, standby.address
        )
    );
    // From now on the leader is asked itself.
    standby.asked();
    assert!(matches!(masters.next().await, Ok(Fetched::Unchanged)));
    assert_eq!((standby.asked().len(), leader.asked().len()), (0, 1));
}

#[tokio::test]
async fn servers_that_were_asked_are_known_by_their_addresses() {
    let leader = Master::start(|_| DOCUMENT.into_response()).await;
    let to = format!("//{}/master/state", leader.address);
    let standby = Master::start(move |_| redirect(&to)).await;
    let mut config = config(&[format!("http://localhost:{}", standby.address.port())]);
    config.redirects = redirects(&[leader.url()]);
    let mut masters = MesosPoll::new(&config).unwrap();
    assert!(matches!(masters.next().await, Ok(Fetched::New(_))));
    // The redirect came later, and names the address itself.
    assert_eq!(masters.servers().get(&leader.address.ip()).map(String::as_str), Some("127.0.0.1"));
    config.masters = vec![format!("http://localhost:{}", leader.address.port()).parse().unwrap()];
    let mut masters = MesosPoll::new(&config).unwrap();
    assert!(matches!(masters.next().await, Ok(Fetched::New(_))));
    assert_eq!(masters.servers().get(&leader.address.ip()).map(String::as_str), Some("localhost"));
}

#[tokio::test]
async fn a_stranger_gets_neither_a_question_nor_credentials() {
    let stranger = Master::start(|_| DOCUMENT.into_response()).await;
    let to = format!("{}/steal", stranger.url());
    let master = Master::start(move |_| redirect(&to)).await;
    let mut masters = masters(&[format!("http://user:secret@{}", master.address)]);
    let text = failure(&mut masters).await;
    let place = format!("add {:?} to source.masters or source.redirects", stranger.url());
    assert!(text.contains(&place) && !text.contains("secret"), "{text}");
    assert!(stranger.asked().is_empty());
    // The next answer of the master itself counts.
    master.replies(|_| DOCUMENT.into_response());
    assert!(matches!(masters.next().await, Ok(Fetched::New(_))));
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
    assert!(masters.origin().starts_with(&second.url()));
}

#[tokio::test]
async fn compressed_answers_are_asked_for_and_their_size_sets_the_pace() {
    let agents: Vec<String> =
        (0..1000).map(|n| format!(r#"{{"id":"S{n}","hostname":"10.0.0.1"}}"#)).collect();
    let document = DOCUMENT.replace("\"slaves\":[]", &format!("\"slaves\":[{}]", agents.join(",")));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(document.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let size = compressed.len();
    assert!(size * 5 < document.len());
    let master = Master::start(move |headers| {
        assert_eq!(headers["accept-encoding"], "gzip");
        ([("content-encoding", "X-GZIP")], compressed.clone()).into_response()
    })
    .await;
    let budget = Rate(size as u64 * 10);
    let mut poll = MesosPoll::new(&settings::Source { budget, ..config(&[master.url()]) }).unwrap();
    assert_eq!(poll.schedule().interval, Duration::from_secs(2));
    let Ok(Fetched::New(snapshot)) = poll.next().await else { panic!() };
    assert_eq!(snapshot.agents.len(), 1000);
    assert_eq!(poll.schedule().interval, Duration::from_secs(100));
    assert!(matches!(poll.next().await, Ok(Fetched::Unchanged)));
    assert_eq!(poll.schedule().interval, Duration::from_secs(100));
}

#[tokio::test]
async fn a_document_without_the_tasks_that_run_is_an_error() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures/master_state_acl_view_tasks_none.json");
    let document = std::fs::read_to_string(path).unwrap();
    let master = Master::start(move |_| document.clone().into_response()).await;
    let text = failure(&mut masters(&[master.url()])).await;
    assert!(text.contains("view_tasks"), "{text}");
}

#[tokio::test]
async fn broken_compression_is_an_error() {
    let master = Master::start(|_| ([("content-encoding", "gzip")], DOCUMENT).into_response()).await;
    let text = failure(&mut masters(&[master.url()])).await;
    assert!(text.contains("decompress"), "{text}");
}
