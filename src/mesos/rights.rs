//! Detection of documents that leave out tasks for lack of rights.
//!
//! A master does not refuse a client without rights: it leaves out what the client may not see, and
//! the document looks like that of an idle cluster. But agents always report how much of their
//! resources is in use. Resources in use without any task or executor give such a document away.
//! (<https://mesos.apache.org/documentation/latest/authorization/>)

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Text for an operator whose credentials hide the tasks.
pub const HIDDEN: &str = "agents report resources in use, but no task is in the document: the credentials of l4lbd may not \
                          see tasks; check the master's ACLs view_frameworks and view_tasks for this user";

/// Returns true for a document of a master (v0, v1, or a `SUBSCRIBED` event) with agents whose
/// resources are in use, but with neither tasks nor executors. A document that cannot be read hides
/// nothing.
pub fn hides_tasks(document: &[u8]) -> bool {
    let Ok(outline) = serde_json::from_slice::<Outline>(document) else { return false };
    let subscribed = outline.subscribed.and_then(|subscribed| subscribed.get_state);
    match outline.get_state.or(subscribed) {
        // v1: executors without tasks are idle, but visible, and so are tasks that wait for an agent.
        Some(state) => {
            // Every list has to be empty: a task that is seen shows that the rights are there.
            let idle = state.get_tasks.unwrap_or_default().is_empty()
                && state.get_executors.unwrap_or_default().executors.is_empty();
            let agents = state.get_agents.unwrap_or_default().agents;
            idle && agents.iter().any(|agent| !agent.allocated_resources.is_empty())
        }
        // v0
        None => {
            let idle =
                |framework: &OutlineFramework| framework.tasks.is_empty() && framework.executors.is_empty();
            outline.frameworks.iter().all(idle)
                && outline.slaves.iter().any(|agent| {
                    agent.used_resources.as_ref().is_some_and(|used| used.cpus > 0.0 || used.mem > 0.0)
                })
        }
    }
}

/// The members of a document that give it away.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    slaves: Vec<OutlineSlave>,
    #[serde(default)]
    frameworks: Vec<OutlineFramework>,
    #[serde(default)]
    get_state: Option<OutlineState>,
    #[serde(default)]
    subscribed: Option<OutlineSubscribed>,
}

#[derive(Deserialize)]
struct OutlineSubscribed {
    get_state: Option<OutlineState>,
}

#[derive(Deserialize)]
struct OutlineSlave {
    #[serde(default)]
    used_resources: Option<UsedResources>,
}

#[derive(Deserialize)]
struct UsedResources {
    #[serde(default)]
    cpus: f64,
    #[serde(default)]
    mem: f64,
}

#[derive(Deserialize)]
struct OutlineFramework {
    #[serde(default)]
    tasks: Vec<IgnoredAny>,
    #[serde(default)]
    executors: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct OutlineState {
    get_tasks: Option<OutlineTasks>,
    get_executors: Option<OutlineExecutors>,
    get_agents: Option<OutlineAgents>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutlineTasks {
    tasks: Vec<IgnoredAny>,
    pending_tasks: Vec<IgnoredAny>,
}

impl OutlineTasks {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.pending_tasks.is_empty()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutlineExecutors {
    executors: Vec<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutlineAgents {
    agents: Vec<OutlineAgent>,
}

#[derive(Deserialize)]
struct OutlineAgent {
    #[serde(default)]
    allocated_resources: Vec<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn real_documents() {
        assert!(hides_tasks(&capture("master_state_acl_view_tasks_none.json")));
        assert!(hides_tasks(&capture("master_state_acl_filtered.json")));
        for whole in [
            "master_state.json",
            "master_state_after_failover.json",
            "v1_master_get_state.json",
            "agent_state.json",
        ] {
            assert!(!hides_tasks(&capture(whole)), "{whole}");
        }
    }

    #[test]
    fn an_idle_cluster_and_idle_executors_hide_nothing() {
        assert!(!hides_tasks(br#"{"slaves":[{"used_resources":{"cpus":0.0,"mem":0.0}}],"frameworks":[]}"#));
        assert!(!hides_tasks(
            br#"{"slaves":[{"used_resources":{"cpus":1.0,"mem":0.0}}],"frameworks":[{"tasks":[],"executors":[{}]}]}"#
        ));
        assert!(hides_tasks(
            br#"{"get_state":{"get_tasks":{},"get_agents":{"agents":[{"allocated_resources":[{}]}]}}}"#
        ));
        assert!(!hides_tasks(br#"{"get_state":{"get_agents":{"agents":[{"allocated_resources":[]}]}}}"#));
    }
}
