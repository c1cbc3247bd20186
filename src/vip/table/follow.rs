//! Changes of a table that cost what has changed: the VIPs of changed tasks are made anew, the rest stays.
//!
//! The rules are those of [`VipTable::after`], applied to the tasks that ask for the same names as the changed
//! ones. Where tasks of other names have a say, the whole table has to be made anew instead: see
//! [`VipTable::follow`].
//!
//! For example, with task `a2` that became unhealthy, and two VIPs:
//!
//! ```text
//! changed tasks    a2
//! names            a.marathon                 (its labels, before and after)
//! tasks            a1, a2, a3                 (all that ask for one of these names)
//! new table        tcp a.marathon:80          (of these tasks alone; b.marathon is not looked at)
//! ```

use std::collections::BTreeSet;

use super::{Host, TableMemory, VipKey, VipTable};
use crate::cluster::shared::Change;
use crate::cluster::{Snapshot, Task, TaskKey};
use crate::vip::label::{self, LabelHost};
use crate::vip::{LabelPolicy, vip_name};

/// Changed tasks beyond which all tasks are looked at: a part as large takes as long as the whole.
const MOST_TASKS: usize = 1_000;

impl VipTable {
    /// Turns the table of `before` into the one of `after`, and returns the VIPs that may differ. Returns `None`,
    /// with the table unchanged, if it is to be made anew: `after` differs in more than tasks, or in one that
    /// other ones depend on, or that is refused in part.
    pub fn follow(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        rules: &LabelPolicy,
        registered: &TableMemory<'_>,
    ) -> Option<BTreeSet<VipKey>> {
        if !before.differs_in_tasks_alone(after) || !self.claims.is_empty() {
            return None;
        }
        let mut tasks: BTreeSet<TaskKey> = BTreeSet::new();
        let mut hosts: BTreeSet<Host> = BTreeSet::new();
        for change in before.tasks.changes(&after.tasks) {
            let (old, new) = match &change {
                Change::Added(_, new) => (None, Some(&***new)),
                Change::Changed(_, old, new) => (Some(&***old), Some(&***new)),
                Change::Removed(_, old) => (Some(&***old), None),
            };
            // A label that asks for an address depends on where all other tasks are.
            if self.depends_on_names && addresses(old) != addresses(new) {
                return None;
            }
            // The names from before as well: one that a task does not ask for any more loses a backend.
            for task in old.into_iter().chain(new) {
                asked_hosts(task, before, &mut hosts)?;
            }
            tasks.insert(change.key().clone());
            if tasks.len() > MOST_TASKS {
                return None;
            }
        }
        if self.depends_on_names && !before.names.has_same_addresses(&after.names) {
            return None;
        }
        // Tasks of one name decide together which backends serve, and whose options count.
        for host in &hosts {
            tasks.extend(self.askers.get(host).into_iter().flat_map(|tasks| tasks.iter()).cloned());
        }
        let old = Self::after(&part(before, &tasks), rules, registered);
        let new = Self::after(&part(after, &tasks), rules, registered);
        // What is refused or remarked on is said in an order, and up to a number, that all tasks decide.
        if !(old.is_plain() && new.is_plain()) {
            return None;
        }
        let mut concerned = BTreeSet::new();
        for host in hosts {
            concerned.extend(self.replace(host, &new));
        }
        Some(concerned)
    }

    /// Returns true if nothing was refused or remarked on, and nothing depends on tasks without VIPs.
    fn is_plain(&self) -> bool {
        self.skipped.is_empty()
            && self.warnings.is_empty()
            && self.claims.is_empty()
            && self.doubtful == Default::default()
            && !self.depends_on_names
    }

    /// Takes everything of `host` from `new`; returns the VIPs that it had or has.
    fn replace(&mut self, host: Host, new: &Self) -> BTreeSet<VipKey> {
        let mut concerned = BTreeSet::new();
        let first = VipKey::first(&host);
        for key in of_host(self.vips.iter_from(&first).map(|(key, _)| key), &host) {
            concerned.insert(key);
        }
        concerned.extend(of_host(self.awaited.iter_from(&first), &host));
        // Before the new ones: what a task no longer asks for is in neither of the new lists.
        for key in &concerned {
            self.vips.remove(key);
            self.awaited.remove(key);
            self.unreachable.remove(key);
        }
        for key in of_host(new.vips.iter_from(&first).map(|(key, _)| key), &host) {
            if let Some(vip) = new.vips.get(&key) {
                self.vips.insert(key.clone(), vip.clone());
            }
            concerned.insert(key);
        }
        for key in of_host(new.awaited.iter_from(&first), &host) {
            self.awaited.insert(key.clone());
            concerned.insert(key);
        }
        self.unreachable.extend(of_host(new.unreachable.iter_from(&first), &host));
        match new.askers.get(&host) {
            Some(askers) => self.askers.insert(host, askers.clone()),
            None => self.askers.remove(&host),
        };
        concerned
    }
}

/// Collects the keys of `host` from keys that start with them.
fn of_host<'k>(keys: impl Iterator<Item = &'k VipKey>, host: &Host) -> Vec<VipKey> {
    keys.take_while(|key| key.host == *host).cloned().collect()
}

/// Returns where a task is as far as labels that ask for an address care.
fn addresses(task: Option<&Task>) -> Option<BTreeSet<std::net::IpAddr>> {
    let task = task.filter(|task| task.state.is_serving())?;
    Some(task.addresses.iter().map(|reported| reported.address).collect())
}

/// Adds the names that a task asks for. Returns `None` if it asks for an address, or if its framework is not
/// known.
fn asked_hosts(task: &Task, snapshot: &Snapshot, hosts: &mut BTreeSet<Host>) -> Option<()> {
    // Its labels are refused, with a reason that is listed.
    let framework = snapshot.frameworks.get(&*task.key.framework)?;
    for label in task.ports.iter().flat_map(|port| port.labels.iter()) {
        match label::parse(&label.value) {
            Ok((LabelHost::Named(written), _)) => {
                hosts.insert(Host::Named(vip_name(written, framework)));
            }
            Ok((LabelHost::Literal(_), _)) => return None,
            // It is refused whatever other tasks there are, and that is found out with the part.
            Err(_) => {}
        }
    }
    Some(())
}

/// Returns the snapshot with these tasks alone.
fn part(snapshot: &Snapshot, tasks: &BTreeSet<TaskKey>) -> Snapshot {
    let tasks = tasks.iter().filter_map(|key| Some((key.clone(), snapshot.tasks.get(key)?.clone())));
    // Without the document's own records, with which no part would look plain.
    Snapshot { tasks: tasks.collect(), skipped: Vec::new(), ..snapshot.clone() }
}
