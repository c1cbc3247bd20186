//! What the port has: the page, its description, streams of events, compression.

use super::*;

#[tokio::test]
async fn the_page_and_its_description_need_no_token_and_all_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let mut served = Served::with(Some(SecretRef::File(token))).await;
    let text = asked_on_port(&mut served, &get_request("/", "localhost")).await;
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.contains("content-security-policy: default-src 'none'"),
        "{text}"
    );
    let text = asked_on_port(&mut served, &get_request("/", "evil.example")).await;
    assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
    for path in described_paths() {
        let path = path.replace("{name}", "web.marathon");
        let text = asked_on_port(&mut served, &get_request(&path, "localhost")).await;
        let is_open = ["/", "/api/openapi.json"].contains(&&*path);
        assert_eq!(text.starts_with("HTTP/1.1 200 "), is_open, "{path}: {text}");
        assert_eq!(text.starts_with("HTTP/1.1 401 "), !is_open, "{path}: {text}");
    }
    let request = get_request("/v1/version", "localhost\r\nAuthorization: Bearer secret");
    let text = asked_on_port(&mut served, &request).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// Returns the paths of the description.
fn described_paths() -> Vec<String> {
    let description: serde_json::Value = serde_json::from_str(page::DESCRIPTION).unwrap();
    description["paths"].as_object().unwrap().keys().cloned().collect()
}

/// Every route is a string in `api.rs` or `page.rs`, and each of those that only read is described.
#[test]
fn every_path_is_described() {
    let sources = [include_str!("../../api.rs"), include_str!("../page.rs")];
    let routes = sources.iter().flat_map(|source| source.split(".route(\"").skip(1));
    let mut routes: Vec<&str> = routes.map(|rest| rest.split('"').next().unwrap()).collect();
    // These are on the socket alone, and for the commands of this program.
    routes
        .retain(|route| !["/status", "/vip", "/events", "/names", "/accept-loss", "/reload"].contains(route));
    routes.sort_unstable();
    let mut described = described_paths();
    described.sort_unstable();
    assert_eq!(routes, described);
}

#[tokio::test]
async fn a_stream_has_the_events_after_an_id_and_those_that_come() {
    let mut served = Served::new().await;
    served.events.note(vec![Happening::new(EventKind::VipAdded, "old")]);
    served.events.note(vec![Happening::new(EventKind::VipAdded, "missed")]);
    let address = served.http.wait_for(|http| http.address.is_some()).await.unwrap().address.unwrap();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = get_request("/api/events?after=1", "localhost\r\nAccept: text/event-stream");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read_until = async |client: &mut tokio::net::TcpStream, text: &mut String, part: &str| {
        while !text.contains(part) {
            let mut buffer = [0; 4096];
            let length = client.read(&mut buffer).await.unwrap();
            assert!(length > 0, "{text}");
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    };
    read_until(&mut client, &mut text, "missed").await;
    assert!(text.contains("content-type: text/event-stream") && text.contains("id: 2\n"), "{text}");
    assert!(!text.contains("\"old\""), "{text}");
    served.events.note(vec![Happening::new(EventKind::VipAdded, "fresh")]);
    read_until(&mut client, &mut text, "fresh").await;
    // A stream does not outlive the daemon.
    served.shutdown.cancel();
    (&mut served.served).await.unwrap();
}

#[tokio::test]
async fn streams_are_few() {
    let mut served = Served::new().await;
    let address = served.http.wait_for(|http| http.address.is_some()).await.unwrap().address.unwrap();
    let request = get_request("/api/events", "localhost\r\nAccept: text/event-stream");
    let ask = async || {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        let length = client.read(&mut buffer).await.unwrap();
        (client, String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let mut clients = Vec::new();
    for _ in 0..events::MOST_STREAMS {
        let (client, text) = ask().await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        clients.push(client);
    }
    let (_client, text) = ask().await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (states, mut state) = watch::channel(HttpState::default());
    let shutdown = CancellationToken::new();
    let guard = Guard { hosts: Vec::new(), token: None };
    let port = Port { address: taken.local_addr().unwrap(), guard };
    let run = port::run(port, (Router::new(), Router::new()), states, shutdown);
    tokio::select! {
        () = run => unreachable!(),
        told = state.wait_for(|state| state.error.is_some()) => {
            let told = told.unwrap().clone();
            assert!(told.error.unwrap().contains("cannot listen on 127.0.0.1:") && told.address.is_none());
        }
    }
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_ask() {
    let mut served = Served::new().await;
    let address = served.http.wait_for(|http| http.address.is_some()).await.unwrap().address.unwrap();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = get_request("/v1/records", "localhost\r\nAccept-Encoding: gzip").replace("1.1", "1.0");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut octets = Vec::new();
    client.read_to_end(&mut octets).await.unwrap();
    let end = octets.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&octets[..end]).into_owned();
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&octets[end + 4..]), &mut text).unwrap();
    let records: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(records[0]["rtype"], "A", "{records}");
}
