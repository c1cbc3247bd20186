//! Answers of Marathon about its apps and pods.
//!
//! Mesos is the better source of tasks, but Marathon's own HTTP and TCP health checks and its
//! readiness checks never reach it. A [`MarathonView`] holds these verdicts, to be joined with the
//! tasks of Mesos, and for clusters where only Marathon can be asked, tasks of its own.
//!
//! What belongs here: the JSON of Marathon and its rules. No I/O: requests are made in
//! [`crate::source::marathon`].

use std::io::Read;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::mesos::cursor::{Bounds, Cursor, ReadError, parsed, text};
use crate::mesos::{Lenient, MAX_TASKS, read_or_skip};
use wire::{MarathonApp, Pod};

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
    #[error("the answer to {path} is not that of a Marathon: {error}")]
    Document { path: &'static str, error: ReadError },
    #[error("the answer to {path} has more than {MAX_TASKS} apps, pods or tasks")]
    TooMany { path: &'static str },
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
    pub fn read(info: &MarathonInfo, apps: impl Read, pods: Option<impl Read>) -> Result<Self, Error> {
        let framework =
            info.framework.as_ref().and_then(Lenient::as_read).ok_or(Error::Unregistered)?.clone();
        let config = info.marathon_config.as_ref().and_then(Lenient::as_read);
        // Marathon's own default.
        let name =
            config.and_then(|config| config.framework_name.clone()).unwrap_or_else(|| "marathon".to_owned());
        let mut view = Self { framework: framework.as_str().into(), ..Self::default() };
        view.snapshot.frameworks.insert(framework, name);
        let mut count = 0;
        let mut apps = Answer { cursor: Cursor::new(apps), path: APPS, count: &mut count };
        apps.list_in("apps", |item| {
            let app: Option<MarathonApp> = read_or_skip(&mut view.snapshot, item?, "apps[]", "an app");
            if let Some(app) = &app {
                apps::add(&mut view, app);
            }
            Ok(app.map_or(0, |app| app.tasks.map_or(0, |tasks| tasks.len())))
        })?;
        if let Some(pods) = pods {
            let mut pods = Answer { cursor: Cursor::new(pods), path: PODS, count: &mut count };
            pods.list(|item| {
                let pod: Option<Pod> = read_or_skip(&mut view.snapshot, item?, "pods[]", "a pod");
                if let Some(pod) = &pod {
                    pods::add(&mut view, pod);
                }
                Ok(pod.map_or(0, |pod| pod.instances.map_or(0, |instances| instances.len())))
            })?;
        }
        Ok(view)
    }

    /// Puts answers together that are in memory.
    #[cfg(test)]
    pub fn parse(info: &MarathonInfo, apps: &[u8], pods: Option<&[u8]>) -> Result<Self, Error> {
        Self::read(info, apps, pods)
    }
}

/// Bounds of an app or pod with its tasks: Marathon tells all tasks of one in one item.
const ITEM: Bounds = Bounds { length: 64 << 20, values: 1 << 20 };

/// An answer that is being read in windows, one app or pod after the other.
struct Answer<'c, R> {
    cursor: Cursor<R>,
    path: &'static str,
    /// Apps, pods and tasks of all answers. Counted while they are read: each costs memory, and a few
    /// kilobytes of gzip hold millions.
    count: &'c mut usize,
}

impl<R: Read> Answer<'_, R> {
    /// Reads an object with one member that is a list.
    fn list_in<T: DeserializeOwned>(
        &mut self,
        member: &str,
        take: impl FnMut(Result<Lenient<T>, Error>) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let path = self.path;
        let fail = |error| Error::Document { path, error };
        let mut take = Some(take);
        if self.cursor.enter(b'{').map_err(fail)? {
            let mut is_first = true;
            while let Some(key) = self.cursor.next_key(&mut is_first).map_err(fail)? {
                match take.take_if(|_| key == member) {
                    Some(take) => self.items(take)?,
                    None => self.cursor.skip().map_err(fail)?,
                }
            }
        }
        if take.is_some() {
            return Err(fail(self.cursor.wrong("there is no list of apps")));
        }
        self.cursor.end().map_err(fail)
    }

    /// Reads a list.
    fn list<T: DeserializeOwned>(
        &mut self,
        take: impl FnMut(Result<Lenient<T>, Error>) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        self.items(take)?;
        self.cursor.end().map_err(|error| Error::Document { path: self.path, error })
    }

    /// Hands out the items of the list at the cursor. `take` returns the number of tasks in one.
    fn items<T: DeserializeOwned>(
        &mut self,
        mut take: impl FnMut(Result<Lenient<T>, Error>) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let path = self.path;
        let fail = |error| Error::Document { path, error };
        if !self.cursor.enter(b'[').map_err(fail)? {
            return Err(fail(self.cursor.wrong("expected a list")));
        }
        let mut is_first = true;
        while self.cursor.next_item(&mut is_first).map_err(fail)? {
            let item = match self.cursor.value(ITEM).map_err(fail)? {
                Some(length) => {
                    let item = parsed(&text(self.cursor.octets(length)));
                    let item = item.map_err(|error| fail(self.cursor.not_json(&error)));
                    self.cursor.advance(length);
                    item
                }
                None => Ok(Lenient::Unreadable {
                    error: format!("it has more than {} bytes or {} values", ITEM.length, ITEM.values),
                    json: String::new(),
                }),
            };
            *self.count += 1 + take(item)?;
            if *self.count > MAX_TASKS {
                return Err(Error::TooMany { path });
            }
        }
        Ok(())
    }
}
