//! How often a node may ask the masters itself when no node publishes, if all nodes do so at once.

use std::time::Duration;

use super::messages::FactsMessage;

/// Share of a master's processor core that all nodes together may take: a twentieth.
const SHARE: u64 = 20;

/// Returns the interval at which each node may poll, so that all of them together stay within `budget` octets a
/// second and within the share of a core. `None` where nothing is known to go by.
pub fn interval(facts: &FactsMessage, budget: u64) -> Option<Duration> {
    // Zeros stand for fields that are missing, and would let all nodes poll without a pause.
    if facts.agents == 0 || facts.document_bytes == 0 {
        return None;
    }
    let agents = u64::from(facts.agents);
    // In milliseconds, and rounded up: an interval that is shorter by a little is beyond the budget.
    let by_octets = agents.saturating_mul(facts.document_bytes).saturating_mul(1000).div_ceil(budget.max(1));
    let by_time = agents.saturating_mul(facts.answer_ms.into()).saturating_mul(SHARE);
    Some(Duration::from_millis(by_octets.max(by_time)))
}
