//! Answers of Marathon about its apps and pods.
//!
//! Mesos is the better source of tasks, but Marathon's own HTTP and TCP health checks and its
//! readiness checks never reach it. A [`MarathonView`] holds these verdicts, to be joined with the
//! tasks of Mesos, and for clusters where only Marathon can be asked, tasks of its own.
//!
//! What belongs here: the JSON of Marathon and its rules. No I/O: requests are made in
//! [`crate::source::marathon`].

use serde::Deserialize;

use crate::mesos::{Lenient, read_or_skip};

mod apps;
mod departed;
mod events;
mod labels;
mod memory;
mod networks;
mod pods;
mod results;
mod retention;
mod verdicts;
mod view;
mod wire;

#[cfg(test)]
mod tests;

pub use departed::DepartedTasks;
pub use events::EventStream;
pub use memory::MarathonMemory;
pub use results::{CheckResult, TaskResults};
pub use view::MarathonView;

/// Reason why answers are of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the answer to {path} is not that of a Marathon: {error}")]
    Json { path: &'static str, error: serde_json::Error },
    #[error(
        "Marathon is not registered with Mesos: /v2/info has no frameworkId; is Marathon connected to a master?"
    )]
    Unregistered,
}

/// Path of the apps with their tasks and readiness.
pub const APPS: &str = "/v2/apps?embed=apps.tasks&embed=apps.readiness";
/// Path of the pods.
pub const PODS: &str = "/v2/pods/::status";
/// Path of Marathon's version, framework and configuration.
pub const INFO: &str = "/v2/info";

/// Answer to [`INFO`].
#[derive(Debug, Deserialize)]
pub struct MarathonInfo {
    #[serde(rename = "frameworkId")]
    framework: Option<Lenient<String>>,
    version: Option<Lenient<String>>,
    marathon_config: Option<Lenient<MarathonConfig>>,
}

#[derive(Debug, Deserialize)]
struct MarathonConfig {
    framework_name: Option<String>,
}

impl MarathonInfo {
    /// Reads the answer to [`INFO`].
    pub fn parse(answer: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(answer);
        serde_json::from_str(&text).map_err(|error| Error::Json { path: INFO, error })
    }

    /// Returns true for versions with pods, which came with 1.4.
    pub fn has_pods(&self) -> bool {
        // Without a version it is none of the old ones, which all told it.
        let Some(version) = self.version.as_ref().and_then(Lenient::as_read) else { return true };
        let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        (major, minor) >= (1, 4)
    }
}

impl MarathonView {
    /// Puts the answers to [`INFO`], [`APPS`] and [`PODS`] together.
    ///
    /// There are no verdicts yet: [`MarathonMemory::judge`] makes them of the results.
    ///
    /// An app, a pod, a task or a port that cannot be read or placed costs only itself and leaves a record
    /// in [`Snapshot::skipped`](crate::cluster::Snapshot::skipped).
    ///
    /// # Errors
    /// When an answer is not Marathon's, or Marathon has no framework yet.
    pub fn parse(info: &MarathonInfo, apps: &[u8], pods: Option<&[u8]>) -> Result<Self, Error> {
        let framework =
            info.framework.as_ref().and_then(Lenient::as_read).ok_or(Error::Unregistered)?.clone();
        let config = info.marathon_config.as_ref().and_then(Lenient::as_read);
        // Marathon's own default.
        let name =
            config.and_then(|config| config.framework_name.clone()).unwrap_or_else(|| "marathon".to_owned());
        let mut view = Self { framework: framework.as_str().into(), ..Self::default() };
        view.snapshot.frameworks.insert(framework, name);
        let text = String::from_utf8_lossy(apps);
        let apps: wire::MarathonApps =
            serde_json::from_str(&text).map_err(|error| Error::Json { path: APPS, error })?;
        for app in apps.apps {
            if let Some(app) = read_or_skip(&mut view.snapshot, app, "apps[]", "an app") {
                apps::add(&mut view, &app);
            }
        }
        if let Some(pods) = pods {
            let text = String::from_utf8_lossy(pods);
            let pods: Vec<Lenient<wire::Pod>> =
                serde_json::from_str(&text).map_err(|error| Error::Json { path: PODS, error })?;
            for pod in pods {
                if let Some(pod) = read_or_skip(&mut view.snapshot, pod, "pods[]", "a pod") {
                    pods::add(&mut view, &pod);
                }
            }
        }
        Ok(view)
    }
}
