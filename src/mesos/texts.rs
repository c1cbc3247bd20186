//! Texts and lists of labels that many tasks have in common, each of which is in memory once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::cluster::VipLabel;

/// Ids of agents, frameworks and apps, names of ports and networks, and labels. Keyed by chance, since tenants have a part
/// in some of them.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    texts: Pool<str>,
    labels: Pool<[VipLabel]>,
}

impl Texts {
    /// Returns the text as it is shared.
    pub fn shared(&mut self, text: &str) -> Arc<str> {
        self.texts.shared(text)
    }

    /// Returns the labels as they are shared.
    pub fn shared_labels(&mut self, labels: &[VipLabel]) -> Arc<[VipLabel]> {
        self.labels.shared(labels)
    }
}

/// Values that are shared.
#[derive(Debug)]
struct Pool<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// Number of values that were in use when they were last looked through.
    in_use: usize,
}

/// Values below which none is given up: ids of this many agents need some 100 kB.
const FEW: usize = 1_024;

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), in_use: 0 }
    }
}

/// Copies no value, so that the type need not be `Clone`.
impl<T: ?Sized> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), in_use: self.in_use }
    }
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    fn shared<'v>(&mut self, value: &'v T) -> Arc<T>
    where
        Arc<T>: From<&'v T>,
    {
        if let Some(known) = self.known.get(value) {
            return Arc::clone(known);
        }
        // Values that only this list still has are given up, at a cost that new ones have paid for.
        if self.known.len() >= FEW.max(2 * self.in_use) {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.in_use = self.known.len();
        }
        let value: Arc<T> = value.into();
        self.known.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_there_once_and_goes_when_it_is_out_of_use() {
        let mut texts = Texts::default();
        let agent = texts.shared("agent");
        assert!(Arc::ptr_eq(&agent, &texts.shared("agent")));
        for n in 0..100_000 {
            texts.shared(&n.to_string());
        }
        assert!(texts.texts.known.len() <= FEW + 1, "{}", texts.texts.known.len());
        assert!(Arc::ptr_eq(&agent, &texts.shared("agent")));
    }

    #[test]
    fn tasks_with_the_same_labels_share_them() {
        let label = |value: &str| VipLabel { key: "VIP_0".to_owned(), value: value.to_owned() };
        let mut texts = Texts::default();
        let labels = texts.shared_labels(&[label("/web:80")]);
        assert!(Arc::ptr_eq(&labels, &texts.shared_labels(&[label("/web:80")])));
        assert!(!Arc::ptr_eq(&labels, &texts.shared_labels(&[label("/web:81")])));
    }
}
