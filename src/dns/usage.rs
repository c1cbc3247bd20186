//! Use of what clients share: places for forwarded questions and for TCP connections.
//!
//! What is bounded registers itself here; the status reads how much of each is in use when it is made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};

/// Use of one bounded thing that clients share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The thing, such as `forwarded questions`.
    pub name: String,
    /// Places that are taken.
    pub used: usize,
    pub limit: usize,
    /// Clients that have a place.
    pub clients: usize,
    /// Places that one of these clients may have when all are wanted.
    pub share: usize,
    /// The client with most places, and their number.
    pub largest: Option<(String, usize)>,
    /// Number of times that a client got no place since the start.
    pub refused: u64,
    /// Number of times that a client lost its place to another one since the start.
    pub displaced: u64,
}

impl Usage {
    /// Returns true if three quarters of the places are taken.
    pub fn is_pressing(&self) -> bool {
        self.used.saturating_mul(4) >= self.limit.saturating_mul(3)
    }

    /// Returns the number of places of each client, and which has most of them.
    pub fn of_clients(mut self, clients: impl Iterator<Item = (impl fmt::Display, usize)>) -> Self {
        // The order breaks ties, so that the same use is shown in the same words.
        let by_client: BTreeMap<String, usize> =
            clients.map(|(client, used)| (client.to_string(), used)).collect();
        self.clients = by_client.len();
        self.largest = by_client.into_iter().rev().max_by_key(|(_, used)| *used);
        self
    }
}

/// Completes the line of a status: `forwarded questions: 3 of 1024 ...`.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.name, self.used, self.limit)?;
        if let Some((client, used)) = &self.largest {
            let s = if self.clients == 1 { "" } else { "s" };
            write!(f, " by {} client{s} (most by {client}: {used}; share {})", self.clients, self.share)?;
        }
        if self.refused > 0 {
            write!(f, ", {} refused", self.refused)?;
        }
        if self.displaced > 0 {
            write!(f, ", {} closed for others", self.displaced)?;
        }
        Ok(())
    }
}

/// A bounded thing that can say how much of it is in use.
pub trait Metered: Send {
    /// Returns its use under a name.
    fn usage(&self, name: &str) -> Usage;
}

/// The things whose use is known, as long as they exist. Copies share them.
#[derive(Clone, Default)]
pub struct UsageRegistry(Arc<Mutex<BTreeMap<String, WeakMetered>>>);

type WeakMetered = Weak<Mutex<dyn Metered>>;

impl fmt::Debug for UsageRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UsageRegistry").field(&self.read()).finish()
    }
}

impl UsageRegistry {
    /// Adds a thing; one of the same name before it is forgotten.
    pub fn add(&self, name: String, metered: &Arc<Mutex<impl Metered + 'static>>) {
        let metered = Arc::downgrade(metered) as WeakMetered;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, metered);
    }

    /// Returns the use of everything that still exists, by name.
    pub fn read(&self) -> Vec<Usage> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, metered| metered.strong_count() > 0);
        let usage = |(name, metered): (&String, &WeakMetered)| {
            let metered = metered.upgrade()?;
            let metered = metered.lock().unwrap_or_else(PoisonError::into_inner);
            Some(metered.usage(name))
        };
        known.iter().filter_map(usage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(usize);

    impl Metered for Fixed {
        fn usage(&self, name: &str) -> Usage {
            Usage { name: name.to_owned(), used: self.0, limit: 8, ..Usage::default() }
        }
    }

    #[test]
    fn what_has_ended_is_not_listed_any_more() {
        let registry = UsageRegistry::default();
        let (one, two) = (Arc::new(Mutex::new(Fixed(5))), Arc::new(Mutex::new(Fixed(6))));
        registry.add("one".to_owned(), &one);
        registry.add("two".to_owned(), &two);
        drop(one);
        let [two] = registry.read().try_into().unwrap();
        assert_eq!((two.name.as_str(), two.used, two.is_pressing()), ("two", 6, true));
        assert!(!Usage { used: 5, limit: 8, ..Usage::default() }.is_pressing());
    }

    #[test]
    fn a_line_says_who_has_most() {
        let usage = Usage { name: "x".into(), used: 7, limit: 8, share: 2, refused: 3, ..Usage::default() };
        let usage = usage.of_clients([("10.0.0.1", 3), ("10.0.0.2", 4)].into_iter());
        assert_eq!(usage.to_string(), "x: 7 of 8 by 2 clients (most by 10.0.0.2: 4; share 2), 3 refused");
    }
}
