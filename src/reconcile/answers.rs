//! Answers to questions for the status: what the last pass left, without another one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::figures::FigurePage;
use super::pass::Passes;
use super::question::Question;
use crate::dataplane::{Connections, DataPlane, ServerKey};
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
        };
        if let Some(vip) = vip {
            let servers = self.few_servers(vip);
            // Without an answer they stay as they were.
            match self.dataplane.count(&servers).await {
                Ok(counted) => self.connections().extend(counted),
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

    /// Returns the connections that are known of servers.
    fn connections(&mut self) -> &mut BTreeMap<ServerKey, Connections> {
        match &mut self.book {
            Some(book) => &mut book.connections,
            None => &mut self.progress.connections,
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
            None => Figures { connections: &self.progress.connections, seen: None },
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
