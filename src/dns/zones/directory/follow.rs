//! Directories that follow a change of the cluster, at the cost of the tasks that come and go.
//!
//! Names are found by halving sorted lists, which hold numbers alone: a change copies them, 12 octets a task, and
//! looks at no other task. For example, with the new task `c` between three others:
//!
//! ```text
//! entries    [b a] [d]   ->   [b a] [c] [d]     stretches are copied as they are
//! tasks      0: a, 1: b, 2: d, 3: c             chunks of 128, shared but for the last
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Directory, MANY, NameTraits, NumberedTask, TaskEntry, TraitCounts, Traits, has_name};
use crate::cluster::Snapshot;
use crate::cluster::registry::RegisteredTask;
use crate::cluster::shared::Change;

/// Changed tasks beyond which all tasks are indexed anew.
const MOST_TASKS: usize = 1_000;

/// Entries that leave a sorted list, by their places, and those that come into it, by the place that they come
/// before. In the order of the places; at one place what comes is first.
#[derive(Default)]
struct IndexEdits(Vec<(usize, bool, Option<TaskEntry>)>);

impl IndexEdits {
    fn remove(&mut self, place: usize) {
        self.0.push((place, true, None));
    }

    fn insert(&mut self, place: usize, entry: TaskEntry) {
        self.0.push((place, false, Some(entry)));
    }

    /// Returns the list with all of them. `compare` is the order of the list.
    fn apply<K: Ord>(
        mut self,
        list: &Arc<Vec<TaskEntry>>,
        key: impl Fn(&TaskEntry) -> K,
    ) -> Arc<Vec<TaskEntry>> {
        if self.0.is_empty() {
            return Arc::clone(list);
        }
        self.0
            .sort_by_cached_key(|(place, is_removed, entry)| (*place, *is_removed, entry.as_ref().map(&key)));
        let mut edited = Vec::with_capacity(list.len() + self.0.len());
        let mut from = 0;
        for (place, _, entry) in self.0 {
            edited.extend_from_slice(list.get(from..place).unwrap_or_default());
            from = place;
            match entry {
                Some(entry) => edited.push(entry),
                None => from += 1,
            }
        }
        edited.extend_from_slice(list.get(from..).unwrap_or_default());
        Arc::new(edited)
    }
}

impl Directory {
    /// Returns the directory of `after`, where this one is that of `before`. Returns `None` if it is to be made
    /// anew: they differ in more than tasks, or in many.
    #[must_use]
    pub fn follow(&self, before: &Snapshot, after: &Snapshot) -> Option<Self> {
        let (old, new) = (&before.names, &after.names);
        // Agents and groups have their numbers by the order in which they come.
        let has_same_origins = before.agents == after.agents
            && before.frameworks == after.frameworks
            && old.leader == new.leader
            && old.schedulers == new.schedulers;
        if !has_same_origins || self.tasks.is_sparse() {
            return None;
        }
        let mut next = self.clone();
        let (mut labels, mut written) = (IndexEdits::default(), IndexEdits::default());
        let (mut named, mut turned) =
            (BTreeSet::<(u32, Arc<str>)>::new(), BTreeSet::<(u32, Arc<str>)>::new());
        let mut groups = BTreeSet::new();
        for (count, change) in old.tasks.changes(&new.tasks).enumerate() {
            if count >= MOST_TASKS {
                return None;
            }
            let (gone, come) = match change {
                Change::Added(_, come) => (None, Some(come)),
                Change::Changed(_, gone, come) => (Some(gone), Some(come)),
                Change::Removed(_, gone) => (Some(gone), None),
            };
            // Tasks of a framework without a name have none either.
            let Some(name) = after.frameworks.get(&*change.key().framework) else { continue };
            let number = self.groups.iter().position(|group| group.name == *name)?;
            let group = u32::try_from(number).ok()?;
            groups.insert(group);
            for task in gone.into_iter().chain(come) {
                // One that is not registered has a number as long as a task is on it.
                if !after.agents.contains_key(&*task.agent) {
                    return None;
                }
                named.insert((group, Arc::from(&*task.label)));
            }
            if let Some(task) = gone {
                let (place, entry) = self.labelled(group, task)?;
                labels.remove(place);
                if let Some(name) = self.turned(&entry) {
                    let wanted = self.by_written(&entry);
                    let first = self.written.partition_point(|other| self.by_written(other) < wanted);
                    let after = self.written.iter().skip(first).position(|other| *other == entry)?;
                    written.remove(first + after);
                    turned.insert((group, Arc::from(name)));
                }
                next.count(&entry, task, TraitCounts::remove);
                next.tasks.remove(entry.task);
            }
            if let Some(task) = come {
                let agent = *self.agents.numbers.get(&*task.agent)?;
                let entry = TaskEntry { task: next.tasks.insert(NumberedTask::new(task)), agent, group };
                let wanted = next.by_label(&entry);
                labels.insert(self.entries.partition_point(|other| self.by_label(other) < wanted), entry);
                if let Some(name) = next.turned(&entry) {
                    let wanted = next.by_written(&entry);
                    let place = self.written.partition_point(|other| self.by_written(other) < wanted);
                    written.insert(place, entry);
                    turned.insert((group, Arc::from(name)));
                }
                next.count(&entry, task, TraitCounts::add);
            }
        }
        next.entries = labels.apply(&self.entries, |entry| next.by_label(entry));
        next.written = written.apply(&self.written, |entry| next.by_written(entry));
        // A group is there for its tasks or its scheduler.
        let is_there = |group: &u32| {
            let has_scheduler = |group: &super::Group| !group.schedulers.is_empty();
            next.groups.get(*group as usize).is_some_and(has_scheduler)
                || next.tasks(*group, None).next().is_some()
        };
        if !groups.iter().all(is_there) {
            return None;
        }
        for key in named {
            let counts = next.of_long(next.named(key.0, &key.1).entries, next.traits.get(&key));
            note(&mut next.traits, key, counts);
        }
        for key in turned {
            let name: String = key.1.chars().rev().collect();
            let counts = next.of_long(next.written(key.0, &name).entries, next.written_traits.get(&key));
            note(&mut next.written_traits, key, counts);
        }
        Some(next)
    }

    /// Finds the entry of a task.
    fn labelled(&self, group: u32, task: &Arc<RegisteredTask>) -> Option<(usize, TaskEntry)> {
        let agent = *self.agents.numbers.get(&*task.agent)?;
        let wanted = (group, &*task.label, agent, Some(task.hash));
        let first = self.entries.partition_point(|other| self.by_label(other) < wanted);
        let alike = self.entries.iter().enumerate().skip(first);
        let mut alike = alike.take_while(|(_, other)| self.by_label(other) == wanted);
        // Two tasks may have one hash.
        let is_it = |numbered: &NumberedTask| Arc::ptr_eq(&numbered.task, task) || numbered.task == *task;
        alike
            .find(|(_, other)| self.tasks.get(other.task).is_some_and(is_it))
            .map(|(place, entry)| (place, *entry))
    }

    /// Counts a task that comes or goes among those of its group, and of its names where these have many.
    fn count(&mut self, entry: &TaskEntry, task: &RegisteredTask, change: fn(&mut TraitCounts, Traits)) {
        let traits = self.traits_of(task, entry);
        if has_name(task)
            && let Some(counts) = self.group_traits.get_mut(entry.group as usize)
        {
            change(counts, traits);
        }
        if let Some(counts) = self.traits.get_mut(&(entry.group, Arc::from(&*task.label))) {
            change(counts, traits);
        }
        let turned = self.turned(entry).map(Arc::from);
        if let Some(counts) = turned.and_then(|name| self.written_traits.get_mut(&(entry.group, name))) {
            change(counts, traits);
        }
    }

    /// Returns what is noted of a run: `known`, which has followed its changes, or what is counted where the run has
    /// become long; `None` for a short one.
    fn of_long(&self, run: &[TaskEntry], known: Option<&TraitCounts>) -> Option<TraitCounts> {
        (run.len() > MANY).then(|| known.copied().unwrap_or_else(|| self.counts(run)))
    }
}

fn note(traits: &mut NameTraits, key: (u32, Arc<str>), counts: Option<TraitCounts>) {
    match counts {
        Some(counts) => drop(traits.insert(key, counts)),
        None => drop(traits.remove(&key)),
    }
}

#[cfg(test)]
mod tests;
