//! Memory that a node keeps of Marathon's answers: verdicts, and the addresses that agents' names had.
//!
//! Both outlive a Marathon that is away or has forgotten them, a resolver that is away, and a restart of the
//! daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::retention::{bound, is_remembered};
use super::verdicts::VerdictMemory;
use super::view::MarathonView;
use crate::cluster::TaskKey;
use crate::units::steady::Shift;

/// Verdicts and addresses, with the framework that they belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MarathonMemory {
    framework: String,
    verdicts: VerdictMemory,
    /// Addresses of agents by their names.
    hosts: BTreeMap<String, KnownHost>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownHost {
    address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unlisted: Option<Timestamp>,
}

impl MarathonMemory {
    /// Turns the results in `view` into verdicts, completed by what earlier answers said.
    pub fn judge(&mut self, view: &mut MarathonView, now: Timestamp) {
        // Another Marathon, with tasks of its own.
        if *self.framework != *view.framework {
            self.verdicts = VerdictMemory::default();
            self.framework = view.framework.to_string();
        }
        self.verdicts.judge(view, now);
    }

    /// Returns true if Marathon's own checks decide about a task.
    pub fn has_verdict(&self, task: &TaskKey) -> bool {
        *self.framework == *task.framework && self.verdicts.has(&task.task)
    }

    /// Takes in the addresses that the resolver found, and adds those that it does not find any more.
    pub fn complete_hosts(&mut self, view: &mut MarathonView, now: Timestamp) {
        for agent in view.snapshot.agents.values_mut() {
            match agent.address {
                Some(address) => {
                    let known = KnownHost { address, unlisted: None };
                    self.hosts.insert(agent.hostname.clone(), known);
                }
                None => {
                    let known = self.hosts.get_mut(&agent.hostname);
                    agent.address = known.map(|known| {
                        known.unlisted = None;
                        known.address
                    });
                }
            }
        }
        let listed: BTreeSet<&str> =
            view.snapshot.agents.values().map(|agent| agent.hostname.as_str()).collect();
        self.hosts
            .retain(|name, known| listed.contains(name.as_str()) || is_remembered(&mut known.unlisted, now));
        bound(&mut self.hosts, |known| known.unlisted);
    }

    /// Returns what is known without an answer: verdicts, and no tasks.
    pub fn view(&self, now: Timestamp) -> MarathonView {
        let mut view = MarathonView { framework: self.framework.as_str().into(), ..MarathonView::default() };
        // On a copy: this is no answer that could leave tasks out of its list.
        self.verdicts.clone().judge(&mut view, now);
        view
    }
}

impl Shift for MarathonMemory {
    fn shift(&mut self, by: SignedDuration) {
        self.verdicts.shift(by);
        self.hosts.values_mut().for_each(|known| known.unlisted.shift(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Agent;

    fn answer(names: &[(&str, Option<&str>)]) -> MarathonView {
        let mut view = MarathonView::default();
        for (name, address) in names {
            let address = address.map(|address| address.parse().unwrap());
            let agent = Agent { hostname: (*name).to_owned(), address, port: None };
            view.snapshot.agents.insert((*name).to_owned(), agent);
        }
        view
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn an_agent_that_cannot_be_found_keeps_its_address_over_a_restart() {
        let mut memory = MarathonMemory::default();
        memory.complete_hosts(&mut answer(&[("a", Some("10.0.0.1")), ("b", Some("10.0.0.2"))]), at(0));
        // A new leader that lists no tasks yet.
        memory.complete_hosts(&mut answer(&[]), at(10));
        let text = serde_json::to_string(&memory).unwrap();
        let mut restarted: MarathonMemory = serde_json::from_str(&text).unwrap();
        assert_eq!(restarted, memory);
        restarted.shift(SignedDuration::from_hours(1));
        let mut view = answer(&[("a", None), ("c", None)]);
        restarted.complete_hosts(&mut view, at(3_600 + 20));
        let addresses: Vec<_> = view.snapshot.agents.values().map(|agent| agent.address).collect();
        assert_eq!(addresses, [Some("10.0.0.1".parse().unwrap()), None]);
        restarted.complete_hosts(&mut answer(&[]), at(3_600 + 30));
        restarted.complete_hosts(&mut answer(&[]), at(7_200 + 20));
        assert_eq!(restarted.hosts.keys().collect::<Vec<_>>(), ["a"], "not listed for an hour");
    }

    #[test]
    fn another_framework_has_other_tasks() {
        let mut memory = MarathonMemory::default();
        let mut first = MarathonView { framework: "F".into(), ..MarathonView::default() };
        first.apps.insert("web".to_owned(), true);
        memory.judge(&mut first, at(0));
        assert!(memory.view(at(1)).checked.contains("web"));
        memory.judge(&mut MarathonView { framework: "G".into(), ..MarathonView::default() }, at(2));
        let view = memory.view(at(3));
        assert!(view.checked.is_empty() && *view.framework == *"G");
    }
}
