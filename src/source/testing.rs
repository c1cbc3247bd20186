//! Small HTTP servers on this machine that answer as the real ones do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use tokio::net::TcpListener;

use crate::source::http::redirects::Redirects;

/// Returns the value of `source.redirects` with these entries.
pub fn redirects(entries: &[String]) -> Redirects {
    serde_json::from_value(entries.into()).unwrap()
}

type Reply = Box<dyn Fn(&HeaderMap) -> Response + Send>;

/// Requests to a server: path, and the credentials in them.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server that gives the same reply to every request.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    asked: Asked,
    reply: Arc<Mutex<Reply>>,
}

impl Server {
    pub async fn start(reply: impl Fn(&HeaderMap) -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener.local_addr().unwrap(), listener, reply)
    }

    pub fn serve<L: axum::serve::Listener<Addr: std::fmt::Debug>>(
        address: SocketAddr,
        listener: L,
        reply: impl Fn(&HeaderMap) -> Response + Send + 'static,
    ) -> Self {
        let server = Self { address, asked: Asked::default(), reply: Arc::new(Mutex::new(Box::new(reply))) };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    pub fn replies(&self, reply: impl Fn(&HeaderMap) -> Response + Send + 'static) {
        *self.reply.lock().unwrap() = Box::new(reply);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests since the last call.
    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn answer(State(server): State<Server>, uri: Uri, headers: HeaderMap) -> Response {
    let credentials = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    server.asked.lock().unwrap().push((uri.path().to_owned(), credentials));
    server.reply.lock().unwrap()(&headers)
}
