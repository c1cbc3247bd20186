//! How long something is remembered that Marathon's answers do not list any more.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// Time for which something that answers do not list is remembered. Answers only count it: time in which
/// Marathon is away is none.
const RETENTION: Duration = Duration::from_secs(3_600);

/// Tasks, apps or agents, of each as many, that are remembered although the last answer did not list them.
const MAX_UNLISTED: usize = 100_000;

/// Returns true while something that the answer of `now` does not list is remembered.
pub(super) fn is_remembered(unlisted: &mut Option<Timestamp>, now: Timestamp) -> bool {
    let since = *unlisted.get_or_insert(now);
    now.duration_since(since).unsigned_abs() < RETENTION
}

/// Forgets what has not been listed for longest, where that is too much.
pub(super) fn bound<V>(known: &mut BTreeMap<String, V>, unlisted: impl Fn(&V) -> Option<Timestamp>) {
    let mut times: Vec<Timestamp> = known.values().filter_map(&unlisted).collect();
    let Some(surplus) = times.len().checked_sub(MAX_UNLISTED + 1) else { return };
    let (_, last, _) = times.select_nth_unstable(surplus);
    let last = *last;
    known.retain(|_, value| unlisted(value).is_none_or(|since| since > last));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn what_is_not_listed_is_bounded_and_the_newest_stay() {
        let mut known: BTreeMap<String, Option<Timestamp>> =
            (0..MAX_UNLISTED as i64 + 7).map(|number| (number.to_string(), Some(at(number)))).collect();
        known.insert("listed".to_owned(), None);
        bound(&mut known, |since| *since);
        assert_eq!(known.len(), MAX_UNLISTED + 1);
        assert!(known.contains_key("listed") && known.contains_key("7") && !known.contains_key("6"));
    }
}
