//! What Marathon knows of its apps and pods.
//!
//! Mesos is the better source of tasks, but Marathon's own HTTP and TCP health checks and its
//! readiness checks never reach it. A [`View`] holds these verdicts, to be joined with the tasks of
//! Mesos, and for clusters where only Marathon can be asked, tasks of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::cluster::Snapshot;

mod apps;
mod pods;
mod wire;

#[cfg(test)]
mod tests;

/// Everything that one set of answers says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Whether a task should get connections, by task id; only tasks that Marathon itself checks.
    pub verdicts: BTreeMap<String, bool>,
    /// Beginnings of task ids of apps with such checks: until there is a verdict, their tasks should
    /// get none.
    pub checked: BTreeSet<String>,
    /// Id of Marathon's framework.
    pub framework: String,
    /// The cluster as far as Marathon knows it.
    pub snapshot: Snapshot,
}

/// Why answers are of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} is not what Marathon answers: {error}")]
    Json { path: &'static str, error: serde_json::Error },
    #[error("Marathon is not registered with Mesos: /v2/info has no frameworkId")]
    Unregistered,
}

/// Path of the apps with everything that matters here.
pub const APPS: &str = "/v2/apps?embed=apps.tasks&embed=apps.readiness";
/// Path of the pods.
pub const PODS: &str = "/v2/pods/::status";
/// Path of what Marathon says of itself.
pub const INFO: &str = "/v2/info";

/// What Marathon says of itself.
#[derive(Debug, Deserialize)]
pub struct Info {
    #[serde(rename = "frameworkId")]
    framework: Option<String>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    marathon_config: Settings,
}

#[derive(Debug, Default, Deserialize)]
struct Settings {
    framework_name: Option<String>,
}

impl Info {
    pub fn parse(answer: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(answer).map_err(|error| Error::Json { path: INFO, error })
    }

    /// Whether this version has pods, which came with 1.4.
    pub fn has_pods(&self) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        (major, minor) >= (1, 4)
    }
}

impl View {
    /// Puts the answers together.
    pub fn parse(info: &Info, apps: &[u8], pods: Option<&[u8]>) -> Result<Self, Error> {
        let framework = info.framework.clone().ok_or(Error::Unregistered)?;
        let name = info.marathon_config.framework_name.clone().unwrap_or_else(|| "marathon".to_owned());
        let mut view = Self { framework: framework.clone(), ..Self::default() };
        view.snapshot.frameworks.insert(framework, name);
        let apps: wire::Apps =
            serde_json::from_slice(apps).map_err(|error| Error::Json { path: APPS, error })?;
        for app in &apps.apps {
            apps::add(&mut view, app);
        }
        if let Some(pods) = pods {
            let pods: Vec<wire::Pod> =
                serde_json::from_slice(pods).map_err(|error| Error::Json { path: PODS, error })?;
            for pod in &pods {
                pods::add(&mut view, pod);
            }
        }
        Ok(view)
    }

    /// Adds Marathon's verdicts to tasks of Mesos: a task is healthy if neither says otherwise.
    pub fn judge(&self, snapshot: &mut Snapshot) {
        for task in snapshot.tasks.values_mut().filter(|task| task.key.framework == self.framework) {
            let id = task.key.task.as_str();
            let verdict = self.verdicts.get(id).copied();
            let verdict = verdict.or_else(|| self.checked.contains(run_spec(id)).then_some(false));
            if let Some(good) = verdict {
                task.healthy = Some(good && task.healthy != Some(false));
            }
        }
    }
}

/// The part of a task id that all tasks of an app have in common: `dev_web` of
/// `dev_web.instance-UUID._app.1`, and of `dev_web.UUID` before Marathon 1.4.
fn run_spec(task: &str) -> &str {
    task.rsplit_once(".instance-").or_else(|| task.rsplit_once('.')).map_or(task, |(spec, _)| spec)
}
