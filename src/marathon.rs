//! Answers of Marathon about its apps and pods.
//!
//! Mesos is the better source of tasks, but Marathon's own HTTP and TCP health checks and its
//! readiness checks never reach it. A [`MarathonView`] holds these verdicts, to be joined with the
//! tasks of Mesos, and for clusters where only Marathon can be asked, tasks of its own.
//!
//! What belongs here: the JSON of Marathon and its rules. No I/O: requests are made in
//! [`crate::source::marathon`].

use serde::Deserialize;

mod apps;
mod labels;
mod pods;
mod view;
mod wire;

#[cfg(test)]
mod tests;

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
    framework: Option<String>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    marathon_config: MarathonConfig,
}

#[derive(Debug, Default, Deserialize)]
struct MarathonConfig {
    framework_name: Option<String>,
}

impl MarathonInfo {
    /// Reads the answer to [`INFO`].
    pub fn parse(answer: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(answer).map_err(|error| Error::Json { path: INFO, error })
    }

    /// Returns true for versions with pods, which came with 1.4.
    pub fn has_pods(&self) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        (major, minor) >= (1, 4)
    }
}

impl MarathonView {
    /// Puts the answers to [`INFO`], [`APPS`] and [`PODS`] together.
    ///
    /// # Errors
    /// When an answer is not Marathon's, or Marathon has no framework yet.
    pub fn parse(info: &MarathonInfo, apps: &[u8], pods: Option<&[u8]>) -> Result<Self, Error> {
        let framework = info.framework.clone().ok_or(Error::Unregistered)?;
        // Marathon's own default.
        let name = info.marathon_config.framework_name.clone().unwrap_or_else(|| "marathon".to_owned());
        let mut view = Self { framework: framework.clone(), ..Self::default() };
        view.snapshot.frameworks.insert(framework, name);
        let apps: wire::MarathonApps =
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
}
