//! Figures of all VIPs for people who watch: shared by all who ask within a moment, with rates since the figures before.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::table::Table;
use crate::dataplane::ServiceKey;
use crate::dataplane::traffic::Traffic;
use crate::reconcile::figures::VipFigures;

/// Longest time between two readings of which rates are made: a mean over more says nothing of now.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Two readings of the figures, of which the newer one counts.
#[derive(Clone, Default)]
pub struct Live {
    pub table: Arc<Table>,
    /// An earlier reading; `None` if there is none that is near enough.
    pub before: Option<Arc<Table>>,
}

/// Counts of a VIP since it is in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VipCounts {
    /// New connections, or flows of datagrams; absent where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Octets in both directions; absent where the plane does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Connects that failed; absent where the plane does not see them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
}

/// Growth of these counts in a second; absent before a second reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VipRates {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<f64>,
}

impl Live {
    /// Takes in a newer reading.
    #[must_use]
    pub fn followed_by(self, table: Arc<Table>) -> Self {
        let before = Some(self.table).filter(|before| seconds(before, &table).is_some());
        Self { table, before }
    }

    /// Returns the figures of a VIP.
    pub fn vip(&self, key: &ServiceKey) -> Option<&VipFigures> {
        find(&self.table, key)
    }

    /// Returns the counts of a VIP.
    pub fn counts(&self, vip: &VipFigures) -> VipCounts {
        counts(&self.table, vip)
    }

    /// Returns the rates of a VIP. Counts that begin again, as those of a VIP that was made anew, have none.
    pub fn rates(&self, vip: &VipFigures) -> VipRates {
        let Some(before) = &self.before else { return VipRates::default() };
        let Some((seconds, earlier)) = seconds(before, &self.table).zip(find(before, &vip.key)) else {
            return VipRates::default();
        };
        let (now, earlier) = (self.counts(vip), counts(before, earlier));
        let rate =
            |now: Option<u64>, earlier: Option<u64>| Some(now?.checked_sub(earlier?)? as f64 / seconds);
        VipRates {
            connections: rate(now.connections, earlier.connections),
            bytes: rate(now.bytes, earlier.bytes),
            failures: rate(now.failures, earlier.failures),
        }
    }
}

/// Returns the time between two readings, if rates can be made of them.
fn seconds(before: &Table, table: &Table) -> Option<f64> {
    let milliseconds = |at: Timestamp| at.as_millisecond();
    let passed = milliseconds(table.taken_at?) - milliseconds(before.taken_at?);
    let seconds = passed as f64 / 1e3;
    (seconds > 0.0 && seconds <= LONGEST.as_secs_f64()).then_some(seconds)
}

/// Returns the figures of a VIP; tables are in the order of their keys.
fn find<'t>(table: &'t Table, key: &ServiceKey) -> Option<&'t VipFigures> {
    let place = table.vips.binary_search_by(|vip| vip.key.cmp(key)).ok()?;
    table.vips.get(place)
}

fn counts(table: &Table, vip: &VipFigures) -> VipCounts {
    let traffic: Option<Traffic> = table.traffic.as_ref().and_then(|traffic| traffic.get(&vip.key).copied());
    let connects = vip.connects.as_ref().map(|connects| connects.connects);
    VipCounts {
        connections: traffic.map(|traffic| traffic.connections).or(connects.map(|connects| connects.begun)),
        bytes: traffic.map(|traffic| traffic.in_bytes.saturating_add(traffic.out_bytes)),
        failures: connects.map(|connects| connects.refused.saturating_add(connects.timed_out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Protocol;
    use crate::dataplane::Connections;
    use crate::status::health::VipHealth;
    use crate::vip::Tenants;

    fn table(second: i64, connections: u64) -> Arc<Table> {
        let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
        let vip = VipFigures {
            key,
            name: None,
            tenants: Tenants::default(),
            ready: 1,
            all: 1,
            health: VipHealth::Fine,
            connections: Connections::default(),
            connects: None,
            backends: Vec::new(),
        };
        let traffic = Traffic { connections, in_bytes: 10 * connections, ..Traffic::default() };
        Arc::new(Table {
            vips: vec![vip],
            traffic: Some([(key, traffic)].into()),
            taken_at: Timestamp::from_second(second).ok(),
            ..Table::default()
        })
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let first = Live::default().followed_by(table(100, 50));
        let rates = |live: &Live| live.rates(&live.table.vips[0].clone());
        assert_eq!(rates(&first), VipRates::default());
        let second = first.followed_by(table(102, 60));
        assert_eq!(rates(&second), VipRates { connections: Some(5.0), bytes: Some(50.0), failures: None });
        // It was made anew in the kernel.
        let third = second.followed_by(table(103, 1));
        assert_eq!(rates(&third), VipRates::default());
        let late = third.followed_by(table(200, 100));
        assert_eq!(rates(&late), VipRates::default());
    }
}
