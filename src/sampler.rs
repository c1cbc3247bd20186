//! Samples of the counters of all VIPs, while somebody looks on.
//!
//! A sample is one reading of the kernel for all who ask within a moment. Two of them give rates, so that the daemon
//! can sort VIPs by what flows now, and answer with the few that lead. Nobody who looks makes a pass, and nothing is
//! sampled while nobody does.
//!
//! ```text
//! plane with packets:  one dump of all services, beside the reconciler ─┐
//! plane with connects: its maps, by the reconciler ─────────────────────┴─► two samples ─► Rates ─► Question::Top
//! ```

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::dataplane::traffic::SharedTraffic;
use crate::reconcile::Question;
use crate::status::Status;
use crate::status::top::{CounterReading, Rates, TopAnswer, TopQuery};

/// Time within which all who ask get the same rates. Somewhat less than the second after which a client asks again, so
/// that each of its answers is a new one.
const SHARED: Duration = Duration::from_millis(800);

/// Age of a sample from which rates since then would not be those of now.
const OUTDATED: Duration = Duration::from_secs(15);

/// Longest wait for the reconciler, which may be in a long change of the kernel.
const PATIENCE: Duration = Duration::from_secs(3);

/// Samples counters. Copies share what is sampled.
#[derive(Clone)]
pub struct Sampler(Arc<SamplerState>);

struct SamplerState {
    questions: mpsc::Sender<Question>,
    statuses: watch::Receiver<Arc<Status>>,
    /// `None` if the plane sees no packets.
    traffic: Option<SharedTraffic>,
    started_at: Timestamp,
    /// Held while a sample is taken.
    last: Mutex<LastSample>,
}

#[derive(Default)]
struct LastSample {
    sample: Option<(Instant, Arc<CounterReading>)>,
    rates: Arc<Rates>,
    /// Reason why the last attempt gave none.
    error: Option<String>,
}

impl Sampler {
    pub fn new(
        questions: mpsc::Sender<Question>,
        statuses: watch::Receiver<Arc<Status>>,
        traffic: Option<SharedTraffic>,
    ) -> Self {
        let last = Mutex::default();
        Self(Arc::new(SamplerState { questions, statuses, traffic, started_at: Timestamp::now(), last }))
    }

    /// Answers a client; `None` if the reconciler has no time.
    pub async fn top(&self, query: TopQuery) -> Option<TopAnswer> {
        let shared = &self.0;
        let (rates, error) = shared.rates().await;
        self.forget_later();
        let (seconds, sampled_at) = (rates.seconds, rates.at);
        let table = shared.ask(|answer| Question::Top { query, rates, answer }).await?;
        let status = shared.statuses.borrow();
        let numbers = status.numbers();
        Some(TopAnswer {
            hostname: status.node.hostname.clone(),
            version: status.version.clone(),
            dataplane: status.node.dataplane.plane,
            started_at: shared.started_at,
            at: Timestamp::now(),
            reason: status.reasons.first().cloned(),
            vips: numbers.vips,
            dead: numbers.dead,
            sampled_at,
            seconds,
            error,
            table,
        })
    }

    /// Frees the samples once nobody has looked for a while.
    fn forget_later(&self) {
        let shared = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(OUTDATED).await;
            if let Some(shared) = shared.upgrade() {
                let mut last = shared.last.lock().await;
                if last.sample.as_ref().is_some_and(|(at, _)| at.elapsed() >= OUTDATED) {
                    *last = LastSample::default();
                }
            }
        });
    }
}

impl SamplerState {
    /// Returns the rates of now, and why there are none of the kernel.
    async fn rates(&self) -> (Arc<Rates>, Option<String>) {
        // Further clients wait here, and get the same.
        let mut last = self.last.lock().await;
        if last.sample.as_ref().is_some_and(|(at, _)| at.elapsed() < SHARED) {
            return (Arc::clone(&last.rates), last.error.clone());
        }
        match self.sample().await {
            Ok((at, newest)) => {
                let newest = Arc::new(newest);
                let earlier = last.sample.take().filter(|(before, _)| at.duration_since(*before) < OUTDATED);
                let reading = Arc::clone(&newest);
                // Comparing 10,000 of them takes milliseconds, for which an async thread has better use.
                let compared = tokio::task::spawn_blocking(move || {
                    let before = earlier.as_ref();
                    let before = before.map(|(before, reading)| (&**reading, (at - *before).as_secs_f64()));
                    Rates::between(before, reading)
                });
                last.rates = compared.await.map(Arc::new).unwrap_or_default();
                last.sample = Some((at, newest));
                last.error = None;
            }
            // The sample stays: rates over some more time are better than none.
            Err(error) => {
                last.rates = Arc::default();
                last.error = Some(error);
            }
        }
        (Arc::clone(&last.rates), last.error.clone())
    }

    /// Reads the counters of all VIPs.
    async fn sample(&self) -> Result<(Instant, CounterReading), String> {
        if let Some(traffic) = self.traffic.clone() {
            // The dump of 10,000 services takes milliseconds of a thread.
            let read = tokio::task::spawn_blocking(move || traffic.read_shared()).await;
            let (at, traffic) = read.map_err(|error| error.to_string())??;
            return Ok((at.into(), CounterReading::Traffic(traffic)));
        }
        let counted = self.ask(|answer| Question::CountAll { answer }).await;
        let counted = counted.ok_or("the daemon is busy with a long change of the kernel")?;
        let connects = counted.ok_or("the kernel does not tell its counters; see the log")?;
        Ok((Instant::now(), CounterReading::Connects(connects)))
    }

    /// Returns the answer to a question; `None` if it takes too long.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.questions.send(question(answer)).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::Protocol;
    use crate::dataplane::ServiceKey;
    use crate::dataplane::connects::Connects;
    use crate::status::top::TopTable;

    /// Answers questions as a plane does that sees connects, ten more each time. Returns how often it counted.
    async fn answer(mut questions: mpsc::Receiver<Question>, counted: watch::Sender<u64>) {
        let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
        while let Some(question) = questions.recv().await {
            match question {
                Question::CountAll { answer } => {
                    counted.send_modify(|counted| *counted += 1);
                    let connects = Connects { begun: 10 * *counted.borrow(), ..Connects::default() };
                    answer.send(Some(BTreeMap::from([(key, connects)]))).unwrap();
                }
                Question::Top { rates, answer, .. } => {
                    let open = rates.seconds.map_or(0, |seconds| (seconds * 10.0).round() as u64);
                    answer.send(TopTable { open, ..TopTable::default() }).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_look_within_a_moment_share_a_sample_and_rates_need_two() {
        let (questions, asked) = mpsc::channel(1);
        let (_statuses, statuses) = watch::channel(Arc::default());
        let (counted, times) = watch::channel(0);
        let sampler = Sampler::new(questions, statuses, None);
        let answering = tokio::spawn(answer(asked, counted));
        let looked = async || sampler.top(TopQuery::default()).await.unwrap().seconds;
        assert_eq!((looked().await, looked().await), (None, None));
        assert_eq!(*times.borrow(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((looked().await, looked().await), (Some(1.0), Some(1.0)));
        assert_eq!(*times.borrow(), 2);
        // After a while nothing is known of before, and nothing was sampled meanwhile.
        tokio::time::sleep(2 * OUTDATED).await;
        assert_eq!(looked().await, None);
        assert_eq!(*times.borrow(), 3);
        answering.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_reconciler_is_no_answer() {
        let (questions, _asked) = mpsc::channel(1);
        let (_statuses, statuses) = watch::channel(Arc::default());
        let sampler = Sampler::new(questions, statuses, None);
        assert_eq!(sampler.top(TopQuery::default()).await, None);
    }
}
