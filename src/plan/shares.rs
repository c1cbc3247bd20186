//! Fair shares: one tenant does not fill what all share.
//!
//! What belongs here: the division of a bound among frameworks, and within a framework among its apps. As long
//! as everything fits, no tenant is limited. Otherwise each framework may have as much as any other, and what
//! one does not need goes to the rest; the part of a framework is divided among its apps in the same way. So
//! a tenant that needs little gets all of it. Pure: the result depends on the items and their order alone, and
//! the work grows with their number alone.
//!
//! For example, of 100 places one framework wants 10, one 30 and one 900. They get 10, 30 and 60.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::Skipped;
use crate::vip::{Tenant, Tenants};

/// Records of what is left out that are made; there is one for each app.
const MAX_RECORDS: usize = 1_000;

/// Returns true as long as less than three quarters are in use: until then nothing is counted by tenants, and
/// afterwards it is warned.
pub fn is_ample(used: usize, limit: usize) -> bool {
    used.saturating_mul(4) < limit.saturating_mul(3)
}

/// Result of a division.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Division<'a> {
    /// True for each item that has a place, in the order of the items.
    pub admitted: Vec<bool>,
    /// Places that each app may have; empty if everything fits.
    shares: BTreeMap<&'a Tenant, usize>,
}

/// Divides `room` places among items. An item of several tenants has a place if one of them has room for it: a
/// tenant that joins another's item takes nothing from that one. Of the items of one app the first ones have
/// places.
pub fn divide<'a>(items: &[&'a Tenants], room: usize) -> Division<'a> {
    if items.len() <= room {
        return Division { admitted: vec![true; items.len()], shares: BTreeMap::new() };
    }
    let shares = Demands::of(items).shares(room);
    let mut left = shares.clone();
    let mut used = 0;
    let mut admit = |tenants: &Tenants| {
        // The one that has most room left pays.
        let payer = tenants.iter().max_by_key(|tenant| left.get(tenant).copied());
        let places = payer.and_then(|payer| left.get_mut(payer)).filter(|places| **places > 0);
        let Some(places) = places.filter(|_| used < room) else { return false };
        *places -= 1;
        used += 1;
        true
    };
    Division { admitted: items.iter().map(|tenants| admit(tenants)).collect(), shares }
}

impl Division<'_> {
    /// Returns a record for each app of which items have no place. `items` are in the order of the division, each
    /// with its task and its name; `kind` says what they are, and `bound` what bounds them.
    pub fn records<'i>(
        &self,
        items: impl Iterator<Item = (&'i Tenants, String, String)>,
        kind: &str,
        bound: &str,
    ) -> Vec<Skipped> {
        let mut left_out: BTreeMap<&Tenant, (usize, String, String)> = BTreeMap::new();
        for (_, (tenants, task, name)) in self.admitted.iter().zip(items).filter(|(admitted, _)| !**admitted)
        {
            // For its first tenant alone, so that the numbers of all records add up.
            let Some(tenant) = tenants.iter().next() else { continue };
            left_out.entry(tenant).or_insert((0, task, name)).0 += 1;
        }
        let record = |(tenant, (count, task, name)): (&Tenant, (usize, String, String))| Skipped {
            task,
            value: Some(name),
            framework: Some(tenant.framework.to_string()),
            app: Some(tenant.app.to_string()),
            reason: format!(
                "{bound}, and the fair share of {tenant} is {}: {count} {kind} of it are left out, of which this \
                 is the first (see SHARED BOUNDS in l4lbd-labels(7))",
                self.shares.get(tenant).copied().unwrap_or_default()
            ),
            ..Skipped::default()
        };
        // A framework with any number of apps must not fill the status with records.
        let more = left_out.len().saturating_sub(MAX_RECORDS);
        let mut records: Vec<Skipped> = left_out.into_iter().take(MAX_RECORDS).map(record).collect();
        if more > 0 {
            let reason = format!("{bound}, and {kind} of {more} more apps are left out");
            records.push(Skipped { reason, ..Skipped::default() });
        }
        records
    }
}

/// Returns the records of a list that are shown, at most `room`, in their order and in fair shares.
pub fn shown(records: &[Skipped], room: usize) -> Vec<Skipped> {
    // The usual list is short.
    if records.len() <= room {
        return records.to_vec();
    }
    let tenants = records.iter().map(|record| {
        let (framework, app) = (record.framework.clone(), record.app.clone());
        let (framework, app) = (framework.unwrap_or_default(), app.unwrap_or_default());
        Tenants::from(Tenant { framework: framework.into(), name: String::new(), app: app.into() })
    });
    let tenants: Vec<Tenants> = tenants.collect();
    let items: Vec<&Tenants> = tenants.iter().collect();
    let admitted = divide(&items, room).admitted.into_iter().zip(records);
    admitted.filter(|(admitted, _)| *admitted).map(|(_, record)| record.clone()).collect()
}

/// Numbers of items by framework and app, both in the order in which they first come.
struct Demands<'a> {
    frameworks: Vec<Vec<(&'a Tenant, usize)>>,
}

impl<'a> Demands<'a> {
    fn of(items: &[&'a Tenants]) -> Self {
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut places: BTreeMap<&Tenant, (usize, usize)> = BTreeMap::new();
        let mut frameworks: Vec<Vec<(&Tenant, usize)>> = Vec::new();
        for tenant in items.iter().flat_map(|tenants| tenants.iter()) {
            let &mut (framework, app) = places.entry(tenant).or_insert_with(|| {
                let framework = *numbers.entry(&tenant.framework).or_insert(frameworks.len());
                if framework == frameworks.len() {
                    frameworks.push(Vec::new());
                }
                let apps = frameworks.get_mut(framework);
                let app = apps.map_or(0, |apps| {
                    apps.push((tenant, 0));
                    apps.len() - 1
                });
                (framework, app)
            });
            if let Some((_, count)) = frameworks.get_mut(framework).and_then(|apps| apps.get_mut(app)) {
                *count += 1;
            }
        }
        Self { frameworks }
    }

    fn shares(&self, room: usize) -> BTreeMap<&'a Tenant, usize> {
        let wanted = |apps: &Vec<(&Tenant, usize)>| apps.iter().map(|(_, count)| *count).collect::<Vec<_>>();
        let totals: Vec<usize> = self.frameworks.iter().map(|apps| wanted(apps).iter().sum()).collect();
        let parts = fill(&totals, room);
        let of_apps = |(apps, part)| {
            let apps: &Vec<(&'a Tenant, usize)> = apps;
            let given = fill(&wanted(apps), part);
            apps.iter().map(|(tenant, _)| *tenant).zip(given).collect::<Vec<_>>()
        };
        self.frameworks.iter().zip(parts).flat_map(of_apps).collect()
    }
}

/// Divides `room` among wants: all get the same unless they want less. What cannot be divided evenly goes to the
/// first ones.
fn fill(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut ascending = wanted.to_vec();
    ascending.sort_unstable();
    // The level up to which each gets what it wants.
    let (mut rest, mut level) = (room, usize::MAX);
    for (index, want) in ascending.iter().enumerate() {
        // In ascending order: once a want exceeds an even part of the rest, all after it do.
        let many = ascending.len() - index;
        if want.saturating_mul(many) > rest {
            level = rest / many;
            break;
        }
        rest -= want;
    }
    let even: usize = wanted.iter().map(|want| (*want).min(level)).sum();
    let mut odd = room.saturating_sub(even);
    let mut give = |want: usize| {
        let extra = usize::from(want > level && odd > 0);
        odd -= extra;
        want.min(level) + extra
    };
    wanted.iter().map(|want| give(*want)).collect()
}

/// Use of one bounded thing that tenants share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedUse {
    /// The thing, such as `VIPs`.
    pub name: String,
    pub used: usize,
    pub limit: usize,
    /// The app that uses most of it, and how much; only where three quarters are in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<(String, usize)>,
}

impl SharedUse {
    /// The use of `used` places. `items` are only gone through when it is to be warned of: each counts for its
    /// first tenant.
    pub fn new<'a>(name: &str, used: usize, limit: usize, items: impl Iterator<Item = &'a Tenants>) -> Self {
        let mut counts: BTreeMap<&Tenant, usize> = BTreeMap::new();
        for tenant in items.take_while(|_| !is_ample(used, limit)).filter_map(|tenants| tenants.iter().next())
        {
            *counts.entry(tenant).or_default() += 1;
        }
        // The order breaks ties, so that the same use is shown in the same words.
        let largest = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        let largest = largest.map(|(tenant, count)| (tenant.to_string(), count));
        Self { name: name.to_owned(), used, limit, largest }
    }

    /// Returns a remark once three quarters of it are in use.
    pub fn warning(&self) -> Option<String> {
        (!is_ample(self.used, self.limit)).then(|| {
            let most = self.largest.as_ref();
            let most = most.map(|(tenant, count)| format!(", {count} of them by {tenant}")).unwrap_or_default();
            format!(
                "{self} are in use{most}; when all are, each app has a fair share, and what is more is left out \
                 (see SHARED BOUNDS in l4lbd-labels(7))"
            )
        })
    }
}

/// The thing with its use, such as `VIPs: 5 of 32768`.
impl fmt::Display for SharedUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.name, self.used, self.limit)
    }
}

#[cfg(test)]
mod tests;
