//! The events that are kept: all of them as long as there is room, and then fair shares of it.
//!
//! When the room is used up, the app that has most of it loses its oldest event: the largest framework, and of that
//! the largest app. So what is kept of each is what [`crate::plan::shares`] would give it: as much as any other, and
//! what one does not need goes to the rest. A tenant whose tasks fail all the time loses its own history and no
//! other one. What concerns the node counts as a framework of its own, in which each kind of event counts as an app:
//! tenants can cause some of them, such as routes for their addresses. VIPs whose app is not known, as that of one that
//! has just gone, count as apps of one more framework.
//!
//! What happens again within an hour, in the same words to the same task or VIP, is one event with a count.
//!
//! For example, with room for 6 events, where the events of `a` come first:
//!
//! ```text
//! a a a a a a     full
//! a a a a a b     b has one: the oldest of a goes
//! a a a b b b     equal shares, from here on each new event costs its own app one
//! ```

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::event::{Event, Happening};

/// Time within which the same event is counted instead of kept once more.
const FOLD: SignedDuration = SignedDuration::from_hours(1);

/// Newest events of an app among which a repetition is looked for: those of a task that becomes healthy and unhealthy
/// in turns alternate.
const RECENT: usize = 16;

/// Octets by which shares have to differ to count as different; at least those of the largest event. Among equal
/// ones the oldest event goes, so that new events always find room.
const GRAIN: usize = 2048;

/// Framework of apps that are not known, which no id of a framework can be: it has a control character.
const UNKNOWN: &str = "\0";

/// Events in the order of their ids, in bounded room.
#[derive(Debug)]
pub struct History {
    /// Octets that events may have together.
    room: usize,
    octets: usize,
    grain: usize,
    events: BTreeMap<u64, (Arc<Event>, usize)>,
    frameworks: EventShares<EventShares<()>>,
    /// Id of the next event.
    next: u64,
}

/// Parts of the room by name, of which the largest can be found.
#[derive(Debug, Default)]
struct EventShares<T> {
    parts: BTreeMap<Arc<str>, Share<T>>,
    /// Parts by size in grains, then by their oldest event, the newest first.
    by_size: BTreeSet<(usize, Reverse<u64>, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Share<T> {
    octets: usize,
    ids: BTreeSet<u64>,
    /// Parts of this part.
    within: T,
}

impl<T> Share<T> {
    fn place(&self, grain: usize, name: &Arc<str>) -> (usize, Reverse<u64>, Arc<str>) {
        let oldest = self.ids.first().copied().unwrap_or_default();
        (self.octets / grain, Reverse(oldest), Arc::clone(name))
    }
}

impl<T: Default> EventShares<T> {
    /// Adds an event to a part, or takes it away: `octets` are negative then. A part without events is forgotten.
    fn account(&mut self, name: &str, (id, octets): (u64, isize), grain: usize, within: impl FnOnce(&mut T)) {
        let name =
            self.parts.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        let share = self.parts.entry(Arc::clone(&name)).or_default();
        self.by_size.remove(&share.place(grain, &name));
        share.octets = share.octets.saturating_add_signed(octets);
        match octets > 0 {
            true => share.ids.insert(id),
            false => share.ids.remove(&id),
        };
        within(&mut share.within);
        if share.ids.is_empty() {
            self.parts.remove(&name);
        } else {
            self.by_size.insert(share.place(grain, &name));
        }
    }

    fn largest(&self) -> Option<&Share<T>> {
        let (_, _, name) = self.by_size.last()?;
        self.parts.get(name)
    }
}

impl History {
    /// An empty history of `room` octets, as events have them in JSON.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            octets: 0,
            grain: GRAIN,
            events: BTreeMap::new(),
            frameworks: EventShares::default(),
            next: 1,
        }
    }

    /// Takes in events that an earlier run has written, in their order.
    pub fn restore(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if let Some(before) = event.replaces {
                self.remove(before);
            }
            // A copy of what is there, as of a file that was put together by hand.
            self.remove(event.id);
            self.next = self.next.max(event.id.saturating_add(1));
            self.insert(event);
        }
    }

    /// Takes in what happened, and returns its event.
    pub fn note(&mut self, at: Timestamp, what: Happening) -> Arc<Event> {
        let what = what.bounded();
        let id = self.next;
        self.next += 1;
        let event = match self.find_repeated(at, &what).and_then(|before| self.remove(before)) {
            Some(before) => Event {
                id,
                at,
                count: before.count.saturating_add(1),
                first_at: Some(before.first_at.unwrap_or(before.at)),
                replaces: Some(before.id),
                what,
            },
            None => Event { id, at, count: 1, first_at: None, replaces: None, what },
        };
        self.insert(event)
    }

    /// Iterates over all events in their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.events.values().map(|(event, _)| event)
    }

    /// Iterates over the events with greater ids.
    pub fn after(&self, id: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.events.range(id.saturating_add(1)..).map(|(_, (event, _))| event)
    }

    /// Returns an event that is still kept.
    pub fn get(&self, id: u64) -> Option<&Arc<Event>> {
        self.events.get(&id).map(|(event, _)| event)
    }

    /// Returns the id of the newest event; 0 where there was none yet.
    pub fn newest(&self) -> u64 {
        self.next - 1
    }

    fn find_repeated(&self, at: Timestamp, what: &Happening) -> Option<u64> {
        let (framework, app) = share(what);
        let framework = self.frameworks.parts.get(&*framework)?;
        let app = framework.within.parts.get(&*app)?;
        let is_same = |id: &&u64| {
            let known = self.get(**id);
            known.is_some_and(|event| event.what == *what && at.duration_since(event.at).abs() < FOLD)
        };
        app.ids.iter().rev().take(RECENT).find(is_same).copied()
    }

    fn insert(&mut self, event: Event) -> Arc<Event> {
        let event = Arc::new(event);
        // One that cannot be written would not be kept in any case.
        let octets = serde_json::to_vec(&*event).map_or(0, |text| text.len()).max(1);
        self.account(&event, octets.cast_signed());
        self.events.insert(event.id, (Arc::clone(&event), octets));
        while self.octets > self.room
            && let Some(oldest) = self.oldest_of_largest()
        {
            self.remove(oldest);
        }
        event
    }

    fn oldest_of_largest(&self) -> Option<u64> {
        let app = self.frameworks.largest()?.within.largest()?;
        app.ids.first().copied()
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Event>> {
        let (event, octets) = self.events.remove(&id)?;
        self.account(&event, -octets.cast_signed());
        Some(event)
    }

    /// Adds an event to the share of its app, or takes it away.
    fn account(&mut self, event: &Event, octets: isize) {
        self.octets = self.octets.saturating_add_signed(octets);
        let (framework, app) = share(&event.what);
        let (change, grain) = ((event.id, octets), self.grain);
        self.frameworks.account(&framework, change, grain, |apps| apps.account(&app, change, grain, |()| ()));
    }
}

/// Returns the framework and the app whose share an event takes.
fn share(what: &Happening) -> (Cow<'_, str>, Cow<'_, str>) {
    if !what.framework.is_empty() {
        return (what.framework.as_str().into(), what.app.as_str().into());
    }
    match (what.vips.first(), what.task.as_str()) {
        (Some(vip), _) => (UNKNOWN.into(), vip.to_string().into()),
        (None, "") => ("".into(), what.kind.to_string().into()),
        (None, task) => (UNKNOWN.into(), task.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::EventKind;
    use crate::plan::shares::divide;
    use crate::vip::{Tenant, Tenants};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Something that happens to an app, and is different for each number from 100 to 999.
    fn happening(framework: &str, app: &str, number: usize) -> Happening {
        Happening {
            framework: framework.to_owned(),
            app: app.to_owned(),
            ..Happening::new(EventKind::TaskStarted, format!("number {number}"))
        }
    }

    fn texts(history: &History) -> Vec<(u64, &str)> {
        history.iter().map(|event| (event.count, event.what.text.as_str())).collect()
    }

    #[test]
    fn what_happens_again_is_counted() {
        let mut history = History::new(10_000);
        for (second, number) in [(0, 1), (1, 2), (2, 1), (3, 2), (4, 3)] {
            history.note(at(second), happening("F", "web", number));
        }
        assert_eq!(texts(&history), [(2, "number 1"), (2, "number 2"), (1, "number 3")]);
        let first = history.iter().next().unwrap();
        assert_eq!((first.id, first.at, first.first_at, first.replaces), (3, at(2), Some(at(0)), Some(1)));
        // To another app, and much later, it is news.
        history.note(at(5), happening("F", "db", 1));
        history.note(at(4000), happening("F", "web", 1));
        assert_eq!(history.iter().count(), 5);
        // A clock that was set back changes no count.
        history.note(at(3999), happening("F", "web", 1));
        assert_eq!((history.iter().count(), history.newest()), (5, 8));
    }

    #[test]
    fn no_app_takes_the_place_of_another() {
        let mut history = History::new(4_000);
        for number in 100..110 {
            history.note(at(0), happening("F", "quiet", number));
        }
        history.note(at(0), Happening::new(EventKind::SourceLost, "of the node"));
        for number in 0..100_000 {
            history.note(at(number), happening("F", "loud", number as usize));
        }
        let count = |app: &str| history.iter().filter(|event| event.what.app == app).count();
        assert_eq!((count("quiet"), count("")), (10, 1));
        assert!(count("loud") > 10 && history.octets <= 4_000);
    }

    #[test]
    fn what_tenants_can_cause_on_the_node_hides_nothing_else_of_it() {
        let mut history = History::new(20_000);
        history.note(at(0), Happening::new(EventKind::SourceLost, "no answer"));
        for number in 0..10_000 {
            history.note(at(number), Happening::new(EventKind::NodeChanged, format!("route {number}")));
            let host = crate::vip::Host::Named(format!("gone{number}"));
            let vip = crate::vip::VipKey { host, protocol: crate::cluster::Protocol::Tcp, port: 80 };
            let gone = Happening::new(EventKind::VipRemoved, "gone");
            history.note(at(number), Happening { vips: vec![vip], ..gone });
        }
        assert!(history.iter().any(|event| event.what.kind == EventKind::SourceLost));
    }

    #[test]
    fn a_new_event_finds_room_among_many_apps() {
        let mut history = History::new(10_000);
        for number in 0..1_000 {
            let app = format!("{:04}", 9_999 - number);
            let event = history.note(at(0), happening("F", &app, number));
            assert!(history.get(event.id).is_some(), "{number}");
        }
    }

    #[test]
    fn what_was_written_is_restored() {
        let (mut written, mut history) = (Vec::new(), History::new(3_000));
        for number in 0..200 {
            written.push(Event::clone(&history.note(at(number), happening("F", "a", number as usize / 3))));
        }
        let mut restored = History::new(3_000);
        restored.restore(written);
        assert!(restored.iter().eq(history.iter()) && restored.newest() == history.newest());
    }

    proptest! {
        /// Each app keeps what a division of the room among all that happened would give it.
        #[test]
        fn shares_are_those_of_the_plan(
            happened in prop::collection::vec((0_u8..3, 0_u8..3), 1..300),
            room in 1_usize..40,
        ) {
            let name = |kind: &str, number: u8| format!("{kind}{number}");
            let octets = {
                let mut one = History::new(10_000);
                one.next = 100;
                one.note(at(0), happening("F0", "A0", 100));
                one.octets
            };
            let mut history = History { grain: 1, ..History::new(octets * room) };
            history.next = 100;
            let mut tenants = Vec::new();
            for (number, (framework, app)) in happened.iter().enumerate() {
                let (framework, app) = (name("F", *framework), name("A", *app));
                history.note(at(0), happening(&framework, &app, 100 + number));
                let tenant = Tenant { framework: framework.into(), name: String::new(), app: app.into() };
                tenants.push(Tenants::from(tenant));
            }
            let items: Vec<&Tenants> = tenants.iter().collect();
            let admitted = divide(&items, room).admitted;
            prop_assert_eq!(history.iter().count(), admitted.iter().filter(|admitted| **admitted).count());
            for tenant in tenants.iter().flat_map(Tenants::iter) {
                let kept = history.iter().filter(|event| {
                    *event.what.framework == *tenant.framework && *event.what.app == *tenant.app
                });
                let given = items.iter().zip(&admitted).filter(|(item, admitted)| {
                    **admitted && item.iter().any(|other| other == tenant)
                });
                // What cannot be divided evenly goes to any of them, among frameworks and then among apps.
                prop_assert!(kept.count().abs_diff(given.count()) <= 2);
            }
        }

        #[test]
        fn room_is_never_exceeded(
            happened in prop::collection::vec((0_u8..3, 0_u8..3, 0_usize..20), 0..200),
            room in 0_usize..3_000,
        ) {
            let mut history = History::new(room);
            for (framework, app, number) in happened {
                history.note(at(0), happening(&framework.to_string(), &app.to_string(), number));
                let sum: usize = history.events.values().map(|(_, octets)| *octets).sum();
                prop_assert!(sum == history.octets && sum <= room);
            }
            let apps = history.frameworks.parts.values().flat_map(|share| share.within.parts.values());
            let ids: BTreeSet<u64> = apps.flat_map(|share| share.ids.iter().copied()).collect();
            prop_assert!(ids.iter().eq(history.events.keys()));
        }
    }
}
