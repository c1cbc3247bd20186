//! The upstreams of the names below one origin.
//!
//! They are asked one after another, beginning with the one that answered last: the next as soon as one fails,
//! or does not answer for a moment. The first answer counts; an error of one never hides the answer of another.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::exchange::{self, Failure};
use super::tally::Tally;

/// Time for one attempt at one upstream.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Time after which the next upstream is asked as well.
const PATIENCE: Duration = Duration::from_millis(400);

/// Attempts at an upstream that does not answer.
const ATTEMPTS: usize = 2;

/// Upstreams of the names below an origin.
pub struct ForwardRoute {
    /// The origin on the wire, without the root.
    pub origin: Box<[u8]>,
    upstreams: Vec<SocketAddr>,
    /// Place of the upstream that answered last.
    last: AtomicUsize,
    /// Answers that match no question.
    forged: Arc<Tally>,
}

impl ForwardRoute {
    pub fn new(origin: Box<[u8]>, upstreams: Vec<SocketAddr>) -> Self {
        Self { origin, upstreams, last: AtomicUsize::new(0), forged: Arc::default() }
    }

    /// Asks the upstreams until one has an answer, which may be that there is none (NXDOMAIN).
    ///
    /// # Errors
    /// When all have failed: the most telling code that one of them gave, SERVFAIL if none gave any.
    pub async fn ask(&self, query: &Query) -> Result<Message, ResponseCode> {
        let first = self.last.load(Ordering::Relaxed);
        let places = (0..self.upstreams.len()).map(|place| (first + place) % self.upstreams.len());
        let mut waiting: VecDeque<(usize, usize)> = places.map(|place| (place, 1)).collect();
        // Attempts that are still under way end when the set is dropped.
        let mut attempts = JoinSet::new();
        let mut code: Option<ResponseCode> = None;
        loop {
            if let Some((place, number)) = waiting.pop_front()
                && let Some(upstream) = self.upstreams.get(place).copied()
            {
                let (query, forged) = (query.clone(), Arc::clone(&self.forged));
                attempts.spawn(async move {
                    let asked = timeout(TIMEOUT, exchange::ask(upstream, &query, &forged)).await;
                    (place, number, asked)
                });
            }
            let (place, number, asked) = tokio::select! {
                Some(Ok(ended)) = attempts.join_next() => ended,
                () = sleep(PATIENCE), if !waiting.is_empty() => continue,
                else => return Err(code.unwrap_or(ResponseCode::ServFail)),
            };
            match asked {
                Ok(Ok(answer)) => {
                    self.last.store(place, Ordering::Relaxed);
                    return Ok(answer);
                }
                // It would say the same again.
                Ok(Err(Failure::Code(said))) => {
                    code = code.into_iter().chain([said]).max_by_key(|code| telling(*code));
                }
                Ok(Err(Failure::Io(_) | Failure::Garbage)) => {}
                // Behind the upstreams that were not asked yet: silence may be no more than a lost datagram.
                Err(_) if number < ATTEMPTS => waiting.push_back((place, number + 1)),
                Err(_) => {}
            }
        }
    }
}

/// Rank of a code that an upstream gave instead of an answer. SERVFAIL comes from a server that tried; REFUSED
/// from one that is not for this client or name; the rest from servers that do not understand.
fn telling(code: ResponseCode) -> u8 {
    match code {
        ResponseCode::ServFail => 3,
        ResponseCode::Refused => 2,
        ResponseCode::NotImp => 1,
        _ => 0,
    }
}
