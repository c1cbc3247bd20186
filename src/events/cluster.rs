//! What happened to the cluster between two feeds, by the tasks, agents and holds in which they differ.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;

use super::event::{EventKind, Happening, MOST};
use crate::cluster::belief::{Accepted, Displaced, HoldReason};
use crate::cluster::shared::Change;
use crate::cluster::{Snapshot, Task, TaskKey, TaskState};
use crate::plan::shares::divide;
use crate::source::Feed;
use crate::vip::asked::asked;
use crate::vip::{Tenant, Tenants, summarize};

/// Returns what happened to the source and to the cluster.
pub fn changes(before: &Feed, after: &Feed) -> Vec<Happening> {
    let mut happened = source(before, after);
    let Some(accepted) = &after.accepted else { return happened };
    let of_cluster = match &before.accepted {
        Some(known) if Arc::ptr_eq(known, accepted) => Vec::new(),
        Some(known) => cluster(known, accepted, after),
        // All of it is news, and nothing that happened now.
        None => {
            let text = format!(
                "the first state has {} tasks with VIPs on {} agents",
                accepted.snapshot.tasks.len(),
                accepted.snapshot.agents.len()
            );
            let mut first = vec![Happening::new(EventKind::FirstState, text)];
            first.extend(holds(&[], &accepted.held));
            first
        }
    };
    // The usual poll says what is known.
    if of_cluster.is_empty() {
        return happened;
    }
    // One cause for all of them: they come from the same document.
    let cause = document(after, &accepted.snapshot);
    happened.extend(of_cluster.into_iter().map(|what| match what.cause.is_empty() {
        true => Happening { cause: cause.clone(), ..what },
        false => Happening { cause: format!("{}, {cause}", what.cause), ..what },
    }));
    happened
}

/// Returns the document that a feed comes from, in words.
fn document(feed: &Feed, snapshot: &Snapshot) -> String {
    let place = match feed.place.as_str() {
        "" => "state of an earlier run".to_owned(),
        place => format!("document of {place}"),
    };
    match &snapshot.master {
        Some(master) => format!("{place}, master {}", master.id),
        None => place,
    }
}

fn source(before: &Feed, after: &Feed) -> Vec<Happening> {
    match (&before.failure, &after.failure) {
        (None, Some(failure)) => vec![Happening::new(EventKind::SourceLost, failure.error.as_str())],
        (Some(failure), None) => {
            let text = format!("{} answers again, after {} attempts", after.place, failure.attempts);
            vec![Happening::new(EventKind::SourceRegained, text)]
        }
        _ => Vec::new(),
    }
}

fn cluster(before: &Accepted, after: &Accepted, feed: &Feed) -> Vec<Happening> {
    let (old, new) = (&before.snapshot, &after.snapshot);
    let mut happened = Vec::new();
    // The first document has no master before it to differ from.
    if let (Some(old), Some(new)) = (&old.master, &new.master)
        && !old.is_same(new)
    {
        let text = format!("master {} leads, after master {}", new.id, old.id);
        happened.push(Happening::new(EventKind::MasterChanged, text));
    }
    // In this order: what is held explains why tasks stay though agents went.
    happened.extend(holds(&before.held, &after.held));
    happened.extend(agents(old, new));
    happened.extend(after.displaced.iter().map(displaced));
    happened.extend(tasks(old, new, feed));
    happened
}

/// Returns which holds began and which are over. Their numbers change while they go on, which is no news.
fn holds(before: &[HoldReason], after: &[HoldReason]) -> Vec<Happening> {
    // By kind alone, since the numbers in a reason change with each document.
    let lacks = |all: &[HoldReason], one: &HoldReason| {
        all.iter().all(|other| discriminant(other) != discriminant(one))
    };
    let begun = after.iter().filter(|hold| lacks(before, hold));
    let over = before.iter().filter(|hold| lacks(after, hold)).map(|hold| match hold {
        HoldReason::Failover { .. } => "the hold after the fail-over is over",
        HoldReason::MassLoss { .. } => "tasks that vanished without a trace are no longer kept",
    });
    let begun = begun.map(|hold| Happening::new(EventKind::HoldBegun, hold.to_string()));
    begun.chain(over.map(|text| Happening::new(EventKind::HoldOver, text))).collect()
}

/// Returns which agents came and went, in two lines: a fail-over concerns all of them.
fn agents(before: &Snapshot, after: &Snapshot) -> Vec<Happening> {
    let (mut come, mut gone) = (Vec::new(), Vec::new());
    for change in before.agents.changes(&after.agents) {
        match change {
            Change::Added(id, agent) => come.push(format!("{id} ({})", agent.hostname)),
            Change::Removed(id, agent) => gone.push(format!("{id} ({})", agent.hostname)),
            Change::Changed(..) => {}
        }
    }
    let one = |kind, text: &str, agents: Vec<String>| {
        (!agents.is_empty()).then(|| Happening::new(kind, format!("{text}: {}", summarize(agents))))
    };
    let come = one(EventKind::AgentRegistered, "new agents are registered with the master", come);
    let gone = one(EventKind::AgentGone, "agents are no longer registered with the master", gone);
    come.into_iter().chain(gone).collect()
}

fn displaced(displaced: &Displaced) -> Happening {
    let Displaced { task, address, holder } = displaced;
    let text = format!("the task is no longer kept, because {holder} has its address {address} now");
    let mut what = Happening::new(EventKind::TaskDisplaced, text);
    (what.task, what.framework) = (task.task.to_string(), task.framework.to_string());
    what
}

/// Returns what happened to tasks: to all of them, or to fair shares of many.
fn tasks(before: &Snapshot, after: &Snapshot, feed: &Feed) -> Vec<Happening> {
    let changed: Vec<Change<'_, TaskKey, Arc<Task>>> = before.tasks.changes(&after.tasks).collect();
    let admitted = admitted(&changed);
    let left_out = admitted.iter().filter(|admitted| !**admitted).count();
    let listed = changed.iter().zip(admitted).filter(|(_, admitted)| *admitted);
    let mut happened: Vec<Happening> =
        listed.filter_map(|(change, _)| task(change, (before, after), feed)).collect();
    happened.extend(Happening::left_out(left_out, "tasks changed"));
    happened
}

/// Returns true for each change that is listed.
fn admitted(changed: &[Change<'_, TaskKey, Arc<Task>>]) -> Vec<bool> {
    if changed.len() <= MOST {
        return vec![true; changed.len()];
    }
    // Most changes are of few apps, and each app's share is looked up by a number.
    let mut known: BTreeMap<(&str, &str), Tenants> = BTreeMap::new();
    let tenants = changed.iter().map(|change| {
        let (Change::Added(key, task) | Change::Changed(key, _, task) | Change::Removed(key, task)) = change;
        let tenants = known.entry((&*key.framework, &*task.app)).or_insert_with(|| {
            let (framework, app) = (Arc::clone(&key.framework), Arc::clone(&task.app));
            Tenants::from(Tenant { framework, name: String::new(), app })
        });
        tenants.clone()
    });
    let tenants: Vec<Tenants> = tenants.collect();
    divide(&tenants.iter().collect::<Vec<_>>(), MOST).admitted
}

/// Returns what happened to a task; `None` for what does not concern its VIPs.
fn task(
    change: &Change<'_, TaskKey, Arc<Task>>,
    (before, after): (&Snapshot, &Snapshot),
    feed: &Feed,
) -> Option<Happening> {
    let (task, snapshot, (kind, text)) = match change {
        Change::Added(_, task) => (task, after, started(task)),
        Change::Removed(key, task) => (task, before, ended(key, task, after)),
        Change::Changed(_, old, new) => (new, after, changed(old, new)?),
    };
    let mut what = Happening::new(kind, text);
    let framework = snapshot.frameworks.get(&*task.key.framework);
    what.vips = framework.map(|name| asked(task, name).into_iter().collect()).unwrap_or_default();
    (what.task, what.agent) = (task.key.task.to_string(), task.agent_id.to_string());
    (what.framework, what.app) = (task.key.framework.to_string(), task.app.to_string());
    // Only for health there is more than one who can say so.
    let is_health = matches!(kind, EventKind::TaskHealthy | EventKind::TaskUnhealthy);
    if let Some(marathon) = feed.marathon.as_ref().filter(|_| is_health) {
        let is_marathons = marathon.has_verdict(&task.key);
        what.cause = if is_marathons { "Marathon's checks" } else { "the task's Mesos check" }.to_owned();
    }
    Some(what)
}

fn started(task: &Task) -> (EventKind, &'static str) {
    let text = match (task.state, task.healthy) {
        (TaskState::Preparing, _) => "a task is starting",
        (TaskState::Running, Some(false)) => "a task runs, and waits for the first good result of its check",
        (TaskState::Running, _) => "a task runs, and takes connections",
        (TaskState::Killing, _) => "a task was found that is told to stop",
        (TaskState::Lost | TaskState::Terminal, _) => "a task was found whose agent is lost",
    };
    (EventKind::TaskStarted, text)
}

fn ended(key: &TaskKey, task: &Task, after: &Snapshot) -> (EventKind, &'static str) {
    // Before the end of the task is asked for: an agent that is lost reports none.
    if after.lost.contains(key) {
        return (EventKind::TaskLost, "the master has lost the task's agent");
    }
    match (after.ended.contains(key), task.state) {
        (_, TaskState::Killing) => (EventKind::TaskEnded, "the task has ended after it was told to stop"),
        (true, TaskState::Lost) => (EventKind::TaskEnded, "the task whose agent was lost is given up"),
        (true, _) => (EventKind::TaskEnded, "the task has ended: it was killed, failed or finished"),
        (false, _) => (EventKind::TaskVanished, "the task is no longer listed, without a word on its end"),
    }
}

fn changed(old: &Task, new: &Task) -> Option<(EventKind, &'static str)> {
    Some(match (old.state, new.state) {
        (TaskState::Preparing, TaskState::Running) => started(new),
        (old, TaskState::Killing) if old != TaskState::Killing => {
            (EventKind::TaskStopping, "the task is told to stop, and gets no new connections")
        }
        (old, TaskState::Lost) if old != TaskState::Lost => (
            EventKind::TaskLost,
            "the master has lost the task's agent; the task is kept while its VIP has no other backend",
        ),
        (TaskState::Lost, TaskState::Running) => {
            (EventKind::TaskStarted, "the task's agent is back, and the task runs")
        }
        _ => match (old.healthy == Some(false), new.healthy == Some(false)) {
            (false, true) => (EventKind::TaskUnhealthy, "the task is unhealthy, and gets no new connections"),
            (true, false) => (EventKind::TaskHealthy, "the task is healthy, and takes connections"),
            // Numbers and labels decide VIPs; what else a task has does not.
            _ if (&old.ports, &old.addresses, &old.agent_id)
                != (&new.ports, &new.addresses, &new.agent_id) =>
            {
                (EventKind::TaskChanged, "the ports, labels or addresses of the task have changed")
            }
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests;
