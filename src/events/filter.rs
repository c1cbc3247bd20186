//! Which events a client asks for.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::event::Event;
use crate::vip::VipKey;
use crate::vip::pattern::VipPattern;

/// Wishes of a client; without any of them all events are asked for.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Time from which events count.
    pub since: Option<Timestamp>,
    /// Id of the last event that the client knows.
    pub after: Option<u64>,
    pub vip: Option<VipPattern>,
    /// VIPs that `vip` means now, because it is an address or a task that they have.
    pub vips: BTreeSet<VipKey>,
    /// Id of a task, cut as those of events are.
    pub task: Option<String>,
}

impl EventFilter {
    /// Returns true for an event that is asked for.
    pub fn admits(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.at >= since)
            && self.after.is_none_or(|after| event.id > after)
            && self.task.as_ref().is_none_or(|task| event.what.task == *task)
            && self.vip.as_ref().is_none_or(|pattern| {
                event.what.vips.iter().any(|key| pattern.is_of(key) || self.vips.contains(key))
                    || event.what.service.is_some_and(|service| pattern.is_at(service))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;
    use crate::events::{EventKind, Happening};
    use crate::vip::Host;

    fn key(name: &str, port: u16) -> VipKey {
        VipKey { host: Host::Named(name.to_owned()), protocol: Protocol::Tcp, port }
    }

    fn pattern(text: &str) -> VipPattern {
        VipPattern::parse(text, "l4lb.thisdcos.directory")
    }

    #[test]
    fn each_wish_counts() {
        let mut what = Happening::new(EventKind::DrainBegun, "");
        (what.vips, what.task) = (vec![key("web.marathon", 80)], "web.1".to_owned());
        what.service = Some("11.0.0.1:80".parse().unwrap());
        let at = Timestamp::from_second(100).unwrap();
        let event = Event { id: 7, at, count: 1, first_at: None, replaces: None, what };
        let all = EventFilter::default();
        assert!(all.admits(&event));
        let second = |second| Timestamp::from_second(second).ok();
        for (filter, is_admitted) in [
            (EventFilter { since: second(100), ..all.clone() }, true),
            (EventFilter { since: second(101), ..all.clone() }, false),
            (EventFilter { after: Some(6), ..all.clone() }, true),
            (EventFilter { after: Some(7), ..all.clone() }, false),
            (EventFilter { task: Some("web.1".to_owned()), ..all.clone() }, true),
            (EventFilter { task: Some("web".to_owned()), ..all.clone() }, false),
            (EventFilter { vip: Some(pattern("web.marathon")), ..all.clone() }, true),
            (EventFilter { vip: Some(pattern("11.0.0.1")), ..all.clone() }, true),
            (EventFilter { vip: Some(pattern("11.0.0.1:81")), ..all.clone() }, false),
            (EventFilter { vip: Some(pattern("db.marathon")), ..all.clone() }, false),
            (
                EventFilter {
                    vip: Some(pattern("fd01::1")),
                    vips: [key("web.marathon", 80)].into(),
                    ..all.clone()
                },
                true,
            ),
        ] {
            assert_eq!(filter.admits(&event), is_admitted, "{filter:?}");
        }
    }
}
