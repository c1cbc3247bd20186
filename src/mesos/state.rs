//! v0 `/state` of a master or an agent.
//!
//! A master lists running tasks under `frameworks[].tasks`, and before Mesos 1.2 those of frameworks that
//! have not registered with a new master under `orphan_tasks`; an agent lists them under
//! `frameworks[].executors[].tasks`. Agents and framework names are resolved after the whole
//! document was read, because their order in it is not promised.

use std::io::Read;

use super::agents::{self, FrameworkFacts};
use super::cursor::Cursor;
use super::error::Error;
use super::facts::{ITEM, Kind, MAX_NAME};
use super::items::{Head, Items, Listed, Walk};
use super::wire::{MesosExecutor, PortResources, WrappedText};
use crate::cluster::{Master, Skipped};

/// Walks through the `/state` of a master or an agent.
pub fn walk<R: Read, I: Items>(cursor: &mut Cursor<R>, items: &mut I) -> Result<Head, Error> {
    let mut walk = StateWalk { walk: Walk::new(cursor, items), document: StateDocument::default() };
    walk.document()?;
    let StateWalk { walk: Walk { cursor, present, .. }, document } = walk;
    cursor.end()?;
    document.finish(present)
}

/// Members of a document as they come, in any order.
#[derive(Default)]
struct StateDocument {
    frameworks: Vec<FrameworkFacts>,
    has_frameworks: bool,
    id: Option<String>,
    elected_time: Option<f64>,
    pid: Option<String>,
    hostname: Option<String>,
    leader: Option<String>,
    /// Set by a member that only masters have.
    is_master: bool,
}

impl StateDocument {
    fn finish(self, present: usize) -> Result<Head, Error> {
        let Self { frameworks, has_frameworks, id, elected_time, pid, hostname, leader, is_master } = self;
        if !has_frameworks {
            return Err(Error::Missing("frameworks"));
        }
        let mut head = Head { frameworks, is_idle: present == 0, ..Head::default() };
        if is_master {
            let address = pid.as_deref().and_then(agents::pid_address).map(|address| address.ip());
            // A master that answers leads itself: standby masters know no state and redirect.
            head.leader = leader.or(pid).as_deref().and_then(agents::pid_address);
            head.master = id.map(|id| Master { id, elected_time: elected_time.unwrap_or_default(), address });
        } else if let Some(id) = id {
            // An agent describes itself at the top of its own document.
            head.own = Some((id, agents::agent(hostname.unwrap_or_default(), pid.as_deref())));
        }
        Ok(head)
    }
}

struct StateWalk<'w, R, I> {
    walk: Walk<'w, R, I>,
    document: StateDocument,
}

impl<R: Read, I: Items> StateWalk<'_, R, I> {
    fn document(&mut self) -> Result<(), Error> {
        let mut is_first = true;
        if !self.walk.enter_object()? {
            return Ok(());
        }
        while let Some(key) = self.walk.cursor.next_key(&mut is_first)? {
            match key.as_str() {
                "id" => self.document.id = self.walk.scalar()?,
                "elected_time" => self.document.elected_time = self.walk.scalar()?,
                "pid" => self.document.pid = self.walk.scalar()?,
                "hostname" => self.document.hostname = self.walk.scalar()?,
                "leader" => self.document.leader = self.walk.scalar()?,
                // An agent's document has no such list.
                "slaves" => {
                    self.document.is_master = true;
                    self.walk.list(Kind::Agent)?;
                }
                "recovered_slaves" => drop(self.walk.list(Kind::RecoveredAgent)?),
                // The names of their frameworks are in no list.
                "orphan_tasks" => drop(self.walk.list(Kind::Task)?),
                "frameworks" => {
                    self.document.has_frameworks = true;
                    self.frameworks()?;
                }
                _ => self.walk.cursor.skip()?,
            }
        }
        Ok(())
    }

    fn frameworks(&mut self) -> Result<(), Error> {
        match self.walk.enter_list()? {
            Listed::List => {}
            Listed::Null => return Ok(()),
            Listed::Other => {
                self.walk.items.record(misplaced("frameworks", "not a list"));
                return Ok(());
            }
        }
        let mut is_first = true;
        while self.walk.cursor.next_item(&mut is_first)? {
            self.walk.count(false)?;
            self.framework()?;
        }
        Ok(())
    }

    fn framework(&mut self) -> Result<(), Error> {
        if !self.walk.enter_object()? {
            self.walk.items.record(misplaced("frameworks[]", "a framework is not an object"));
            return Ok(());
        }
        let (mut id, mut name, mut pid, mut hostname) = (None::<String>, None::<String>, None, None);
        let (mut registered, mut executors) = (None, Vec::new());
        let mut is_first = true;
        while let Some(key) = self.walk.cursor.next_key(&mut is_first)? {
            match key.as_str() {
                "id" => id = self.walk.scalar()?,
                "name" => name = self.walk.scalar()?,
                "registered_time" => registered = self.walk.scalar()?,
                "pid" => pid = self.walk.scalar::<String>()?,
                "hostname" => hostname = self.walk.scalar::<String>()?,
                "tasks" => self.tasks()?,
                "executors" if self.document.is_master => drop(self.walk.list(Kind::Executor)?),
                // Agents list their tasks one level further down.
                "executors" => self.executors(&mut executors)?,
                "completed_tasks" => drop(self.walk.list(Kind::Ended)?),
                "unreachable_tasks" => drop(self.walk.list(Kind::Unreachable)?),
                _ => self.walk.cursor.skip()?,
            }
        }
        for executor in executors {
            // Named here, because agents do not repeat it in each executor.
            let framework_id = id.as_deref().map(|id| WrappedText(id.into()));
            let executor = MesosExecutor { framework_id, ..executor };
            self.walk.items.executor(executor);
        }
        // A framework without a name gives no names to VIPs, and its tasks are reported as skipped.
        if let (Some(id), Some(name)) = (id, name) {
            let longest = id.len().max(name.len());
            if longest > MAX_NAME {
                let reason =
                    format!("an id or a name with {longest} bytes, of which at most {MAX_NAME} are read");
                self.walk.items.record(misplaced("frameworks[]", &reason));
            } else {
                let framework = FrameworkFacts::new(id, name, pid.as_deref(), hostname.as_deref());
                self.document.frameworks.push(framework.registered_at(registered));
            }
        }
        Ok(())
    }

    /// Walks through the executors of an agent, whose tasks are in them, and adds those with an id to `found`.
    fn executors(&mut self, found: &mut Vec<MesosExecutor<'static>>) -> Result<(), Error> {
        if self.walk.enter_list()? != Listed::List {
            return Ok(());
        }
        let mut is_first = true;
        while self.walk.cursor.next_item(&mut is_first)? {
            self.walk.count(false)?;
            self.walk.present += 1;
            if !self.walk.enter_object()? {
                continue;
            }
            let (mut id, mut agent, mut resources) = (None::<String>, None::<String>, None);
            let mut is_first = true;
            while let Some(key) = self.walk.cursor.next_key(&mut is_first)? {
                match key.as_str() {
                    // The latter where a master's document has its agents after its frameworks.
                    "id" | "executor_id" => id = self.walk.scalar()?,
                    "slave_id" => agent = self.walk.scalar()?,
                    "resources" => resources = self.walk.cursor.scalar::<PortResources>(ITEM)?,
                    "tasks" => self.tasks()?,
                    "completed_tasks" => drop(self.walk.list(Kind::Ended)?),
                    _ => self.walk.cursor.skip()?,
                }
            }
            if let Some(id) = id {
                let text = |text: String| WrappedText(text.into());
                found.push(MesosExecutor {
                    executor_id: Some(text(id)),
                    framework_id: None,
                    slave_id: agent.map(text),
                    resources: resources.unwrap_or_default(),
                    executor_info: None,
                });
            }
        }
        Ok(())
    }

    fn tasks(&mut self) -> Result<(), Error> {
        if self.walk.list(Kind::Task)? == Listed::Other {
            self.walk.items.record(misplaced("tasks", "not a list"));
        }
        Ok(())
    }
}

fn misplaced(place: &str, reason: &str) -> Skipped {
    Skipped { task: place.to_owned(), reason: reason.to_owned(), ..Skipped::default() }
}
