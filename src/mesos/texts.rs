//! Texts that many tasks have in common, each of which is in memory once.

use std::collections::HashSet;
use std::sync::Arc;

/// Ids of agents, frameworks and apps. Keyed by chance, since tenants have a part in some of them.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    known: HashSet<Arc<str>>,
    /// Number of texts that were in use when they were last looked through.
    in_use: usize,
}

/// Texts below which none is given up: ids of this many agents need some 100 kB.
const FEW: usize = 1_024;

impl Texts {
    /// Returns the text as it is shared.
    pub fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        // Texts that only this list still has are given up, at a cost that new ones have paid for.
        if self.known.len() >= FEW.max(2 * self.in_use) {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.in_use = self.known.len();
        }
        let text: Arc<str> = text.into();
        self.known.insert(Arc::clone(&text));
        text
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
        assert!(texts.known.len() <= FEW + 1, "{}", texts.known.len());
        assert!(Arc::ptr_eq(&agent, &texts.shared("agent")));
    }
}
