//! Names and addresses that labels of several frameworks ask for.
//!
//! Labels that differ can be one name: `/web` of the framework `Mara thon!` and `web` of `marathon`, or
//! `web.x` of `y` and `web` of `x.y`. Pure, and the same on all nodes: of the frameworks that ask for a name or
//! an address, in whatever port, the one that registered first comes first, and of two that registered at one
//! time the one with the lesser id. A framework whose time is not known comes after those whose time is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::key::{Host, VipKey};
use super::settings::SharedVips;
use super::summarize;
use crate::cluster::{Snapshot, shortened};

/// Warnings that are made; there is one for each set of frameworks that meet.
const MAX_WARNINGS: usize = 100;

/// Frameworks whose labels ask for a name or an address, by their ids.
#[derive(Debug, Default)]
pub struct Claims<'a>(BTreeMap<Host, Claim<'a>>);

/// Frameworks that ask for one name or address.
#[derive(Debug)]
struct Claim<'a> {
    one: &'a str,
    others: BTreeSet<&'a str>,
}

/// A name or an address that several frameworks ask for.
#[derive(Debug)]
pub struct Contest<'a> {
    /// Framework that comes first.
    pub owner: &'a str,
    frameworks: BTreeSet<&'a str>,
    /// VIPs that labels ask for.
    pub vips: BTreeSet<VipKey>,
}

impl<'a> Claims<'a> {
    /// Notes that a label of a framework asks for `host`.
    pub fn add(&mut self, host: &Host, framework: &'a str) {
        match self.0.get_mut(host) {
            Some(claim) if claim.one == framework => {}
            Some(claim) => {
                claim.others.insert(framework);
            }
            None => {
                self.0.insert(host.clone(), Claim { one: framework, others: BTreeSet::new() });
            }
        }
    }

    /// Returns what more than one framework asks for; `earlier` has registrations that are known from before.
    pub fn contests(
        self,
        snapshot: &Snapshot,
        earlier: &BTreeMap<String, Timestamp>,
    ) -> BTreeMap<Host, Contest<'a>> {
        let place = |id: &str| {
            // The earlier one: a framework that registers anew must not lose its names to a later one.
            let times = [snapshot.registered.get(id), earlier.get(id)];
            times.into_iter().flatten().min().copied().unwrap_or(Timestamp::MAX)
        };
        let contest = |(host, Claim { one, mut others }): (Host, Claim<'a>)| {
            if others.is_empty() {
                return None;
            }
            others.insert(one);
            let owner = others.iter().copied().min_by_key(|id| (place(id), *id))?;
            Some((host, Contest { owner, frameworks: others, vips: BTreeSet::new() }))
        };
        self.0.into_iter().filter_map(contest).collect()
    }
}

/// Returns a framework as people know it: its name and its id.
pub fn framework(snapshot: &Snapshot, id: &str) -> String {
    let name = snapshot.frameworks.get(id).cloned().unwrap_or_default();
    format!("{:?} ({})", shortened(name), shortened(id.to_owned()))
}

/// Returns a warning for each set of frameworks that meet.
pub fn warnings(
    contests: &BTreeMap<Host, Contest<'_>>,
    snapshot: &Snapshot,
    shared: SharedVips,
) -> Vec<String> {
    let mut groups: BTreeMap<(&BTreeSet<&str>, &str), BTreeSet<&VipKey>> = BTreeMap::new();
    for Contest { owner, frameworks, vips } in contests.values() {
        groups.entry((frameworks, owner)).or_default().extend(vips);
    }
    let warning = |((frameworks, owner), vips): (&(&BTreeSet<&str>, &str), &BTreeSet<&VipKey>)| {
        let all = summarize(frameworks.iter().map(|id| framework(snapshot, id)));
        let owner = framework(snapshot, owner);
        let vips = summarize(vips);
        match shared {
            SharedVips::Warn => format!(
                "{vips}: labels of several frameworks ask for the same name or address: {all}; connections go to \
                 the tasks of all of them, and the options of the first, {owner}, count; change the labels or a \
                 framework's name, or leave it to the first (vips.shared = \"refuse\")"
            ),
            SharedVips::Refuse => format!(
                "{vips}: labels of several frameworks ask for the same name or address: {all}; only tasks of the \
                 first, {owner}, get connections (vips.shared); change the labels or a framework's name"
            ),
        }
    };
    let mut warnings: Vec<String> = groups.iter().take(MAX_WARNINGS).map(warning).collect();
    if let Some(more) = groups.len().checked_sub(MAX_WARNINGS).filter(|more| *more > 0) {
        warnings.push(format!("{more} more sets of frameworks ask for the same names or addresses"));
    }
    warnings
}

#[cfg(test)]
mod tests;
