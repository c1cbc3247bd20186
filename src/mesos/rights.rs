//! Whether a document says less than its master knows.
//!
//! Missing rights are not refused: what a client may not see is left out. But agents always tell how
//! much of their resources is in use, and that must be by something.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What to tell an operator then.
pub const HIDDEN: &str = "the agents' resources are in use, but no task is in the document: these credentials may not \
                          see tasks (ACLs view_frameworks and view_tasks)";

/// Whether agents' resources are in use although a document of a master (v0, v1, or a `SUBSCRIBED`
/// event) has neither tasks nor executors. A document that can't be read hides nothing.
pub fn hides_tasks(document: &[u8]) -> bool {
    let Ok(outline) = serde_json::from_slice::<Outline>(document) else { return false };
    let subscribed = outline.subscribed.and_then(|subscribed| subscribed.get_state);
    match outline.get_state.or(subscribed) {
        Some(state) => {
            let idle = state.get_tasks.unwrap_or_default().is_empty()
                && state.get_executors.unwrap_or_default().executors.is_empty();
            let agents = state.get_agents.unwrap_or_default().agents;
            idle && agents.iter().any(|agent| !agent.allocated_resources.is_empty())
        }
        None => {
            let idle = |framework: &Framework| framework.tasks.is_empty() && framework.executors.is_empty();
            outline.frameworks.iter().all(idle)
                && outline.slaves.iter().any(|agent| {
                    agent.used_resources.as_ref().is_some_and(|used| used.cpus > 0.0 || used.mem > 0.0)
                })
        }
    }
}

#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    slaves: Vec<Slave>,
    #[serde(default)]
    frameworks: Vec<Framework>,
    #[serde(default)]
    get_state: Option<State>,
    #[serde(default)]
    subscribed: Option<Subscribed>,
}

#[derive(Deserialize)]
struct Subscribed {
    get_state: Option<State>,
}

#[derive(Deserialize)]
struct Slave {
    #[serde(default)]
    used_resources: Option<Used>,
}

#[derive(Deserialize)]
struct Used {
    #[serde(default)]
    cpus: f64,
    #[serde(default)]
    mem: f64,
}

#[derive(Deserialize)]
struct Framework {
    #[serde(default)]
    tasks: Vec<IgnoredAny>,
    #[serde(default)]
    executors: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct State {
    get_tasks: Option<Tasks>,
    get_executors: Option<Executors>,
    get_agents: Option<Agents>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tasks {
    tasks: Vec<IgnoredAny>,
    pending_tasks: Vec<IgnoredAny>,
}

impl Tasks {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.pending_tasks.is_empty()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Executors {
    executors: Vec<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Agents {
    agents: Vec<V1Agent>,
}

#[derive(Deserialize)]
struct V1Agent {
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
