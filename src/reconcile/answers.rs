//! Answers to questions for the status: what the last pass left, without another one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::figures::FigurePage;
use super::pass::Passes;
use super::question::Question;
use crate::dataplane::connects::{Connects, Seen};
use crate::dataplane::traffic::{Counted, WholeCount};
use crate::dataplane::{DataPlane, ServerKey, ServiceKey};
use crate::status::document::{Document, Figures, View};
use crate::units::steady::steady_now;

/// Servers whose connections are counted anew for a question. More cost as much as the rest of the answer.
const COUNTED: usize = 64;

impl<D: DataPlane> Passes<D> {
    /// Answers a question between passes. Connections of a few VIPs are counted for it; those of many are as the
    /// last reading found them.
    pub(super) async fn answer(&mut self, question: Question) {
        let vip = match &question {
            Question::Status { wanted, .. } => Some(wanted.vip.as_deref()),
            Question::Story { vip, .. } => Some(Some(vip.as_str())),
            Question::More { .. } | Question::Keys { .. } | Question::Figures { .. } => None,
            Question::CountAll { .. } | Question::Top { .. } => return self.answer_top(question).await,
        };
        if let Some(vip) = vip {
            let servers = self.few_servers(vip);
            // Without an answer they stay as they were.
            match self.dataplane.count(&servers).await {
                Ok(counted) => self.note_counts(counted),
                Err(error) => tracing::debug!(%error, "cannot count the connections for a status"),
            }
            self.renew_status();
        }
        self.answer_with(question, self.figures());
    }

    /// Answers a question with these figures.
    pub(super) fn answer_with(&self, question: Question, figures: Figures<'_>) {
        let view = self.view(figures);
        let (made, answer): (_, oneshot::Sender<Document>) = match question {
            Question::Status { wanted, answer } => {
                (Document::begin(self.publisher.status(), view.select(&wanted), view), answer)
            }
            Question::More { rest, answer } => (rest.go_on(view), answer),
            Question::Figures { wanted, answer } => {
                let page = FigurePage { read_at: self.progress.read_at, ..view.page(&wanted) };
                // The asking client may have gone.
                return drop(answer.send(page));
            }
            Question::Story { vip, answer } => {
                let status = self.publisher.status();
                let remarks = (status.warnings.as_slice(), status.skipped.as_slice());
                // The asking client may have gone.
                let _ = answer.send(view.stories(&vip, remarks, self.marathon()));
                return;
            }
            Question::CountAll { answer } => {
                // Counted when this pass began.
                let _ = answer.send(figures.seen.map(connects_of));
                return;
            }
            Question::Top { query, rates, answer } => {
                let leaders = view.leaders(&query, &rates);
                let counted = (&BTreeSet::new(), self.progress.read_at);
                let _ = answer.send(view.top(&query, &rates, &leaders, counted));
                return;
            }
            Question::Keys { vip, answer } => {
                let _ = answer.send(view.vip_keys(&vip).collect());
                return;
            }
        };
        match made {
            // The asking client may have gone.
            Ok(document) => drop(answer.send(document)),
            Err(error) => tracing::error!(%error, "cannot write the status as JSON"),
        }
    }

    /// Answers a question for figures as they are now.
    async fn answer_top(&mut self, question: Question) {
        match question {
            Question::CountAll { answer } => {
                let counted = match self.dataplane.count_all().await {
                    Ok(counted) => counted,
                    Err(error) => {
                        tracing::debug!(%error, "cannot count connections");
                        None
                    }
                };
                let connects = counted.as_ref().map(|counted| connects_of(&counted.seen));
                if let Some(WholeCount { connections, seen }) = counted {
                    self.progress.read_at = Some(Timestamp::now());
                    match &mut self.book {
                        Some(book) => (book.connections, book.seen) = (connections, Some(seen)),
                        None => self.progress.connections = connections,
                    }
                }
                // The asking client may have gone.
                let _ = answer.send(connects);
            }
            Question::Top { query, rates, answer } => {
                let leaders = self.view(self.figures()).leaders(&query, &rates);
                let mut fresh = BTreeSet::new();
                // Where all was counted for these rates, a part of it would be no newer.
                if self.figures().seen.is_none() {
                    let servers = self.view(self.figures()).counted_anew(&query, &leaders);
                    match self.dataplane.count(&servers).await {
                        Ok(counted) => {
                            fresh = counted.traffic.iter().map(|(key, _)| *key).collect();
                            self.note_counts(counted);
                        }
                        Err(error) => tracing::debug!(%error, "cannot count the connections of leading VIPs"),
                    }
                }
                let view = self.view(self.figures());
                let _ = answer.send(view.top(&query, &rates, &leaders, (&fresh, self.progress.read_at)));
            }
            other => self.answer_with(other, self.figures()),
        }
    }

    /// Takes in what was counted for an answer.
    fn note_counts(&mut self, counted: Counted) {
        match &mut self.book {
            Some(book) => book.note_counts(counted),
            None => self.progress.connections.extend(counted.connections),
        }
    }

    /// Brings what the status says beside its VIPs up to date, as far as no reading is needed.
    fn renew_status(&mut self) {
        let book = self.book.take();
        let plan = self.planner.last().cloned();
        let planned = plan.as_deref().zip(book.as_ref());
        let is_outdated = planned.is_some_and(|(plan, _)| self.publisher.are_details_outdated(plan));
        let report = std::mem::take(&mut self.last);
        self.publish_status(&report, planned, is_outdated);
        self.last = report;
        self.book = book;
    }

    /// Returns the figures of the last reading.
    pub(super) fn figures(&self) -> Figures<'_> {
        match &self.book {
            Some(book) => Figures::of(book),
            None => Figures { connections: &self.progress.connections, seen: None, traffic: None },
        }
    }

    pub(super) fn view<'a>(&'a self, figures: Figures<'a>) -> View<'a> {
        View {
            plan: self.planner.latest(),
            planner: &self.planner,
            figures: Some(figures),
            origin: self.publisher.origin(),
            own_scheduler: self.dataplane.capabilities().own_scheduler,
            clocks: (steady_now(), Timestamp::now()),
        }
    }

    /// Returns the servers of the VIPs that a question is about, if they are few.
    fn few_servers(&self, vip: Option<&str>) -> BTreeSet<ServerKey> {
        let view = self.view(self.figures());
        let services = &view.plan.desired.services;
        if vip.is_none() && services.len() > COUNTED {
            return BTreeSet::new();
        }
        let keys = match vip {
            Some(wanted) => view.find(wanted),
            None => services.keys().copied().collect(),
        };
        let servers = keys.iter().filter_map(|key| Some((key, services.get(key)?)));
        let servers = servers
            .flat_map(|(key, programmed)| programmed.servers.keys().map(move |address| (*key, *address)));
        let few: BTreeSet<ServerKey> = servers.take(COUNTED + 1).collect();
        if few.len() > COUNTED { BTreeSet::new() } else { few }
    }
}

/// Returns the connects to each VIP.
fn connects_of(seen: &Seen) -> BTreeMap<ServiceKey, Connects> {
    seen.services.iter().map(|(key, service)| (*key, service.connects)).collect()
}
