//! All names of tasks, for those who list them.
//!
//! Names are worked out from tasks as [`super::mesos`] and [`TaskZone::dcos`] describe them; which records they have
//! is left to the look-up, so that a listing shows what a question would get.

use std::collections::BTreeSet;

use super::mesos::canonical_label;
use super::{Addresses, AnswerWindow, Found, RData, TaskZone};
use crate::cluster::registry::RegisteredTask;
use crate::dns::zones::directory::{Group, TaskEntry};

/// Names of ports of one task name that are listed. A look-up goes through the ports of all its tasks, so that
/// listing many would take their square.
const MOST_PORTS: usize = 32;

/// Ends of names of tasks, each with true for those of the agents' side.
const ZONES: [(&str, bool); 2] = [("", false), (".slave", true)];

/// A name that may exist.
pub struct TaskName {
    /// Below the origin.
    pub relative: String,
    /// Records that are known already; otherwise a look-up finds them.
    pub records: Option<Vec<RData>>,
}

impl From<String> for TaskName {
    fn from(relative: String) -> Self {
        Self { relative, records: None }
    }
}

impl TaskZone {
    /// Returns all names below `dcos.thisdcos.directory` that have records, and perhaps some that have none.
    pub fn dcos_names(&self) -> impl Iterator<Item = TaskName> + '_ {
        let groups = self.directory.groups().filter(|(_, group)| !group.label.is_empty());
        let of_tasks = groups.flat_map(|(number, group)| {
            self.labels(number).flat_map(|(label, _)| {
                ["agentip", "autoip", "containerip"].map(|kind| format!("{label}.{}.{kind}", group.label))
            })
        });
        ["leader", "master"].map(str::to_owned).into_iter().chain(of_tasks).map(TaskName::from)
    }

    /// Returns all names below `mesos` that have records, and perhaps some that have none.
    pub fn mesos_names(&self) -> impl Iterator<Item = TaskName> + '_ {
        let fixed = ["leader", "master", "slave", "_leader._tcp", "_leader._udp", "_slave._tcp"];
        let masters = (0..self.masters.len()).map(|number| format!("master{number}"));
        let groups = self.directory.groups().filter(|(_, group)| !group.fragment.is_empty());
        let of_groups = groups.flat_map(|(number, group)| {
            let fragment = &group.fragment;
            let own = [fragment.clone(), format!("_framework._tcp.{fragment}")].map(TaskName::from);
            own.into_iter().chain(self.labels(number).flat_map(|(_, run)| self.mesos_names_of(group, &run)))
        });
        fixed.map(str::to_owned).into_iter().chain(masters).map(TaskName::from).chain(of_groups)
    }

    /// Returns all frameworks by their names, each with the names of its tasks, and with the names below `mesos` that
    /// these give.
    pub fn frameworks(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = (&str, Vec<TaskName>)>)> {
        self.directory.groups().map(move |(number, group)| {
            // A framework whose name has no letter or digit has no place in DNS.
            let labels = self.labels(number).filter(|_| !group.fragment.is_empty());
            (&*group.name, labels.map(move |(label, run)| (label, self.mesos_names_of(group, &run))))
        })
    }

    /// The labels of a framework name's tasks in their order, each with its tasks.
    fn labels(&self, group: u32) -> impl Iterator<Item = (&str, Vec<(&RegisteredTask, &TaskEntry)>)> {
        let mut tasks = self.directory.tasks(group, None).peekable();
        std::iter::from_fn(move || {
            let first = tasks.next()?;
            let label = &*first.0.label;
            let mut run = vec![first];
            // Tasks of a label are neighbours.
            while let Some(next) = tasks.next_if(|(task, _)| *task.label == *label) {
                run.push(next);
            }
            Some((label, run))
        })
        .filter(|(label, _)| !label.is_empty())
    }

    /// The names of the tasks of one label.
    fn mesos_names_of(&self, group: &Group, run: &[(&RegisteredTask, &TaskEntry)]) -> Vec<TaskName> {
        let fragment = &group.fragment;
        let label = run.first().map(|(task, _)| &*task.label);
        let written = run.iter().filter_map(|(task, _)| task.written.as_deref());
        let forms: BTreeSet<&str> = label.into_iter().chain(written).collect();
        let labels = run.iter().flat_map(|(task, _)| task.ports.iter().flatten()).map(|port| &*port.label);
        let ports: BTreeSet<&str> = labels.filter(|label| !label.is_empty()).take(MOST_PORTS).collect();
        let mut names = Vec::new();
        for form in forms {
            names.extend([format!("{form}.{fragment}"), format!("{form}.{fragment}.slave")]);
            for protocol in ["_tcp", "_udp"] {
                let service = format!("_{form}.{protocol}.{fragment}");
                names.extend(ports.iter().map(|port| format!("_{port}.{service}")));
                names.extend([format!("{service}.slave"), service]);
            }
        }
        let mut names: Vec<TaskName> = names.into_iter().map(TaskName::from).collect();
        for (task, entry) in run {
            let agent = self.directory.agent_tail(entry);
            let hash = String::from_utf8_lossy(&task.hash);
            let written = task.written.as_ref().map(|name| format!("{name}-{hash}-{agent}"));
            let forms = canonical_label(task, agent).into_iter().chain(written);
            for (form, (zone, slave)) in forms.flat_map(|form| ZONES.map(|zone| (form.clone(), zone))) {
                let relative = format!("{form}.{fragment}{zone}");
                // Its only task is known; to look for it among others with long names would take their square.
                let mut found = Found::new(AnswerWindow::ALL);
                self.add_addresses(Addresses::First { slave }, task, entry, &mut found);
                names.push(TaskName { relative, records: found.records() });
            }
        }
        names
    }
}
