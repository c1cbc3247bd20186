//! What the screen knows, and how keys and answers change it. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crossterm::event::KeyCode;
use jiff::Timestamp;

use crate::dataplane::{PlaneKind, ServiceKey};
use crate::status::Backend;
use crate::status::top::{MOST_ROWS, SortKey, TopAnswer, TopQuery, TopRow, VipCounts};

/// Samples that a trend has.
pub const TREND: usize = 120;

/// Rows that a page is taken to have for the keys that turn it.
const PAGE: usize = 10;

/// Characters of a filter.
const LONGEST_FILTER: usize = 60;

/// Time without an answer that is told.
pub const SLOW: Duration = Duration::from_secs(2);

/// Time for which the start of the daemon is news.
const NEWS: Duration = Duration::from_secs(10);

/// Input of the screen.
#[derive(Clone, Debug)]
pub enum TopInput {
    Key(KeyCode),
    /// A question was sent.
    Asked,
    Answered(Box<TopAnswer>),
    /// There is no answer, in words.
    Failed(String),
    /// Nothing but time has passed.
    Tick,
}

/// Part of the screen that keys are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    #[default]
    List,
    /// The filter is being written.
    Filter,
    Help,
}

/// Figures of a VIP at the time of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrendPoint {
    pub open: f64,
    pub rates: VipCounts<f64>,
}

impl TrendPoint {
    /// Returns the figure by which VIPs are sorted.
    pub fn figure(&self, sort: SortKey) -> Option<f64> {
        match sort {
            SortKey::Connections => Some(self.open),
            SortKey::Rate | SortKey::Name => self.rates.connections,
            SortKey::Bytes => self.rates.bytes(),
            SortKey::Failures => self.rates.failures,
        }
    }
}

/// Points in the order of their samples; `None` where a VIP was not among the leading ones.
pub type Trend = VecDeque<Option<TrendPoint>>;

/// What is known of the chosen VIP's backends.
#[derive(Clone, Debug, Default)]
struct BackendHistory {
    of: Option<ServiceKey>,
    totals: BTreeMap<SocketAddr, (Timestamp, VipCounts<u64>)>,
    rates: BTreeMap<SocketAddr, VipCounts<f64>>,
}

/// The state of the screen.
#[derive(Clone, Debug, Default)]
pub struct TopModel {
    pub sort: SortKey,
    pub is_reversed: bool,
    pub filter: String,
    pub focus: Focus,
    /// Set while the chosen VIP has the whole screen.
    pub is_zoomed: bool,
    /// Set while nothing is asked.
    pub is_paused: bool,
    /// The last answer.
    pub answer: Option<TopAnswer>,
    /// Reason why there was none since.
    pub failure: Option<String>,
    /// VIP whose backends are shown.
    pub chosen: Option<ServiceKey>,
    /// Set once the user has chosen one; before that it is the first of the list, whichever that is.
    is_chosen: bool,
    /// Place of that VIP in the list, which stays when it goes.
    place: usize,
    trends: BTreeMap<ServiceKey, Trend>,
    backends: BackendHistory,
    /// Time since the start of the command.
    now: Duration,
    answered_at: Duration,
    asked_at: Option<Duration>,
    /// Time at which another start of the daemon was first seen.
    restarted_at: Option<Duration>,
}

impl TopModel {
    pub fn new(sort: SortKey, is_reversed: bool, filter: String) -> Self {
        Self { sort, is_reversed, filter, ..Self::default() }
    }

    /// Returns what the daemon is to be asked.
    pub fn query(&self) -> TopQuery {
        TopQuery {
            sort: self.sort,
            is_reversed: self.is_reversed,
            filter: self.filter.clone(),
            rows: MOST_ROWS,
            chosen: self.chosen,
        }
    }

    /// Returns the screen after this input, so long after the start of the command.
    #[must_use]
    pub fn update(mut self, input: TopInput, now: Duration) -> Self {
        self.now = now;
        match input {
            TopInput::Key(key) => self.press(key),
            TopInput::Asked => self.asked_at = Some(now),
            TopInput::Answered(answer) => self.take(*answer),
            TopInput::Failed(failure) => {
                self.asked_at = None;
                self.failure = Some(failure);
            }
            TopInput::Tick => {}
        }
        self
    }

    pub fn rows(&self) -> &[TopRow] {
        self.answer.as_ref().map(|answer| answer.table.rows.as_slice()).unwrap_or_default()
    }

    /// Returns the place of the chosen VIP in the list.
    pub fn place(&self) -> Option<usize> {
        self.rows().iter().position(|row| Some(row.key()) == self.chosen)
    }

    /// Returns the trend of a VIP.
    pub fn trend(&self, key: &ServiceKey) -> Option<&Trend> {
        self.trends.get(key)
    }

    /// Returns the rates of a backend of the chosen VIP.
    pub fn backend_rates(&self, address: &SocketAddr) -> VipCounts<f64> {
        self.backends.rates.get(address).copied().unwrap_or_default()
    }

    /// Returns the age of the last answer.
    pub fn age(&self) -> Duration {
        self.now.saturating_sub(self.answered_at)
    }

    /// Returns how long a question has been without an answer, if that is long.
    pub fn waits(&self) -> Option<Duration> {
        let waits = self.now.saturating_sub(self.asked_at?);
        (waits >= SLOW).then_some(waits)
    }

    /// Returns true for a while after the daemon was started anew.
    pub fn is_restarted(&self) -> bool {
        self.restarted_at.is_some_and(|at| self.now.saturating_sub(at) < NEWS)
    }

    fn press(&mut self, key: KeyCode) {
        match (self.focus, key) {
            (Focus::Filter, KeyCode::Enter) => self.focus = Focus::List,
            (Focus::Filter, KeyCode::Esc) => {
                self.filter.clear();
                self.focus = Focus::List;
            }
            (Focus::Filter, KeyCode::Backspace) => drop(self.filter.pop()),
            (Focus::Filter, KeyCode::Char(character)) => {
                if self.filter.chars().count() < LONGEST_FILTER {
                    self.filter.push(character);
                }
            }
            (Focus::Help, KeyCode::Char('?' | 'h') | KeyCode::Esc | KeyCode::Enter) => {
                self.focus = Focus::List;
            }
            (Focus::List, KeyCode::Char('?' | 'h')) => self.focus = Focus::Help,
            (Focus::List, KeyCode::Char('/')) => self.focus = Focus::Filter,
            (Focus::List, KeyCode::Enter) => {
                self.is_zoomed = !self.is_zoomed && self.chosen.is_some();
                self.is_chosen |= self.is_zoomed;
            }
            (Focus::List, KeyCode::Esc) if self.is_zoomed => self.is_zoomed = false,
            (Focus::List, KeyCode::Esc) => self.filter.clear(),
            (Focus::List, KeyCode::Char('p')) => self.is_paused = !self.is_paused,
            (Focus::List, KeyCode::Char('i')) => self.is_reversed = !self.is_reversed,
            (Focus::List, KeyCode::Char(letter @ ('n' | 'c' | 'r' | 'b' | 'f'))) => {
                let starts = |sort: &SortKey| sort.to_string().starts_with(letter);
                self.sort = SortKey::ALL.into_iter().find(starts).unwrap_or_default();
            }
            (Focus::List, KeyCode::Left | KeyCode::Char('<')) => self.sort_beside(SortKey::ALL.len() - 1),
            (Focus::List, KeyCode::Right | KeyCode::Char('>')) => self.sort_beside(1),
            // Also while the filter is written or a VIP has the screen: they mean nothing else there.
            (Focus::List | Focus::Filter, key) => self.choose(key),
            (Focus::Help, _) => {}
        }
    }

    /// Sorts by the column so many places to the right.
    fn sort_beside(&mut self, places: usize) {
        let all = SortKey::ALL;
        let place = all.iter().position(|sort| *sort == self.sort).unwrap_or_default();
        self.sort = all.into_iter().cycle().nth(place + places).unwrap_or_default();
    }

    /// Chooses another VIP.
    fn choose(&mut self, key: KeyCode) {
        let Some(last) = self.rows().len().checked_sub(1) else { return };
        let place = self.place().unwrap_or(self.place).min(last);
        let place = match key {
            KeyCode::Up | KeyCode::Char('k') => place.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => place + 1,
            KeyCode::PageUp => place.saturating_sub(PAGE),
            KeyCode::PageDown => place + PAGE,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => return,
        };
        self.is_chosen = true;
        self.place = place.min(last);
        self.chosen = self.rows().get(self.place).map(TopRow::key);
    }

    fn take(&mut self, answer: TopAnswer) {
        self.asked_at = None;
        self.failure = None;
        self.answered_at = self.now;
        let last = self.answer.as_ref();
        if last.is_some_and(|last| last.started_at != answer.started_at) {
            self.restarted_at = Some(self.now);
        }
        // Several answers may be of one sample, which is one point.
        if answer.sampled_at.is_some() && last.is_none_or(|last| last.sampled_at != answer.sampled_at) {
            self.note_trends(&answer);
        }
        self.note_backends(&answer);
        self.answer = Some(answer);
        // The list may have other VIPs: another one takes the place of one that has gone.
        self.place = self.place().unwrap_or(self.place).min(self.rows().len().saturating_sub(1));
        if !self.is_chosen {
            self.place = 0;
            self.chosen = self.rows().first().map(TopRow::key);
        } else if self.place().is_none() {
            self.chosen = self.rows().get(self.place).map(TopRow::key);
            self.is_zoomed &= self.chosen.is_some();
        }
    }

    fn note_trends(&mut self, answer: &TopAnswer) {
        for trend in self.trends.values_mut() {
            trend.push_back(None);
        }
        for row in &answer.table.rows {
            let trend = self.trends.entry(row.key()).or_default();
            // One that was among them before has its place by now.
            trend.pop_back();
            trend.push_back(Some(TrendPoint { open: row.open as f64, rates: row.rates }));
        }
        self.trends.retain(|_, trend| {
            while trend.len() > TREND {
                trend.pop_front();
            }
            trend.iter().any(Option::is_some)
        });
    }

    fn note_backends(&mut self, answer: &TopAnswer) {
        let Some(vip) = &answer.table.chosen else {
            self.backends = BackendHistory::default();
            return;
        };
        let key = ServiceKey { protocol: vip.protocol, address: vip.address, port: vip.port };
        if self.backends.of != Some(key) {
            self.backends = BackendHistory { of: Some(key), ..BackendHistory::default() };
        }
        let BackendHistory { totals, rates, .. } = &mut self.backends;
        let mut counted = BTreeMap::new();
        for backend in &vip.backends {
            let address = SocketAddr::new(backend.address, backend.port);
            let (at, counts) = backend_counts(backend, answer);
            if let Some((before, known)) = totals.get(&address) {
                let seconds = at.duration_since(*before).as_secs_f64();
                // Asked twice within a moment: what was known stays, because a rate over less says nothing.
                if seconds < 0.5 {
                    counted.insert(address, (*before, *known));
                    continue;
                }
                rates.insert(address, counts.rates_since(*known, seconds));
            }
            counted.insert(address, (at, counts));
        }
        rates.retain(|address, _| counted.contains_key(address));
        *totals = counted;
    }
}

/// Returns the counters of a backend, and when they were read.
fn backend_counts(backend: &Backend, answer: &TopAnswer) -> (Timestamp, VipCounts<u64>) {
    match (answer.dataplane, backend.traffic, backend.connects) {
        (_, Some(traffic), _) => (traffic.at, traffic.traffic.into()),
        // A backend without any traffic is told without it.
        (PlaneKind::Ipvs, None, _) => (answer.at, crate::dataplane::traffic::Traffic::default().into()),
        (PlaneKind::Ebpf, None, Some(connects)) => (answer.at, connects.into()),
        (PlaneKind::Ebpf, None, None) => (answer.at, VipCounts::default()),
    }
}
