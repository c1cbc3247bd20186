//! The walk through a document, from list to list.
//!
//! What belongs here: what the shapes of v0 ([`super::state`]) and v1 ([`super::operator`]) have in common.
//! A value of another type than expected is passed over, never an error: a document with one odd member
//! stays readable.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::agents::{self, FrameworkFacts};
use super::cursor::{Bounds, Cursor, parsed};
use super::error::Error;
use super::facts::{Facts, Kind};
use super::task;
use super::texts::Texts;
use super::wire::MesosExecutor;
use crate::cluster::{Agent, Master, Skipped, Snapshot};

/// Tasks of one document, those that have ended included; clusters have up to 100,000.
pub const MAX_TASKS: usize = 1_000_000;

/// Agents, frameworks and executors of one document together.
const MAX_ITEMS: usize = 1_000_000;

/// Bounds of a member that is a text or a number, or a time of v1, which is an object of a few members.
const SCALAR: Bounds = Bounds { length: 64 << 10, values: 16 };

/// Receiver of what a document lists.
pub trait Items {
    /// Takes the item at the cursor, and goes past it.
    ///
    /// # Errors
    /// When it is not JSON, or the document cannot be read on.
    fn item<R: Read>(&mut self, cursor: &mut Cursor<R>, kind: Kind) -> Result<(), Error>;

    /// Takes an executor whose text has its tasks as well, so that it is no item.
    fn executor(&mut self, executor: MesosExecutor<'_>);

    /// Takes a record about something that is not an item.
    fn record(&mut self, record: Skipped);
}

/// Makes facts of an item's text.
///
/// # Errors
/// When the text is not JSON.
pub fn facts(kind: Kind, text: &str, texts: &mut Texts) -> Result<Facts, serde_json::Error> {
    Ok(match kind {
        Kind::Task => task::facts(parsed(text)?, texts),
        Kind::Ended | Kind::Unreachable => task::ended(parsed(text)?, kind == Kind::Unreachable, texts),
        Kind::Executor => agents::executor_facts(parsed(text)?, texts),
        Kind::Agent | Kind::RecoveredAgent => agents::facts(parsed(text)?, kind == Kind::RecoveredAgent),
    })
}

/// Members of a document outside of its long lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    pub master: Option<Master>,
    /// Address of the leading master.
    pub leader: Option<SocketAddr>,
    /// The agent whose document it is.
    pub own: Option<(String, Agent)>,
    pub frameworks: Vec<FrameworkFacts>,
    /// Set when the document lists neither tasks nor executors.
    pub is_idle: bool,
}

impl Head {
    /// Adds the members to a snapshot, after all items.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for framework in &self.frameworks {
            framework.add_to(snapshot);
        }
        if self.leader.is_some() {
            Arc::make_mut(&mut snapshot.names).leader = self.leader;
        }
        if let Some((id, agent)) = &self.own {
            snapshot.agents.insert(id.clone(), agent.clone());
        }
    }
}

/// A walk through one document.
pub struct Walk<'w, R, I> {
    pub cursor: &'w mut Cursor<R>,
    pub items: &'w mut I,
    /// Items that were read so far, in all lists together. Counted while they are read: each costs memory, and
    /// a few kilobytes of gzip hold millions.
    tasks: usize,
    rest: usize,
    /// Tasks and executors that the document shows as present.
    pub present: usize,
}

/// Kind of value in a place for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A list, which is entered.
    List,
    /// No value.
    Null,
    /// A value of another type, which is passed over.
    Other,
}

impl<'w, R: Read, I: Items> Walk<'w, R, I> {
    pub fn new(cursor: &'w mut Cursor<R>, items: &'w mut I) -> Self {
        Self { cursor, items, tasks: 0, rest: 0, present: 0 }
    }

    /// Counts an item.
    ///
    /// # Errors
    /// When there are more than memory is worth.
    pub fn count(&mut self, is_task: bool) -> Result<(), Error> {
        let (count, most, what) = match is_task {
            true => (&mut self.tasks, MAX_TASKS, "tasks"),
            false => (&mut self.rest, MAX_ITEMS, "agents, frameworks and executors"),
        };
        *count += 1;
        if *count > most { Err(Error::TooMany { most, what }) } else { Ok(()) }
    }

    /// Enters the next value if it is a list, and else goes past it.
    pub fn enter_list(&mut self) -> Result<Listed, Error> {
        if self.cursor.enter(b'[')? {
            return Ok(Listed::List);
        }
        let is_null = self.cursor.peek()? == Some(b'n');
        self.cursor.skip()?;
        Ok(if is_null { Listed::Null } else { Listed::Other })
    }

    /// Enters the next value if it is an object, and else goes past it. Returns true if it is one.
    pub fn enter_object(&mut self) -> Result<bool, Error> {
        let is_one = self.cursor.enter(b'{')?;
        if !is_one {
            self.cursor.skip()?;
        }
        Ok(is_one)
    }

    /// Hands out the items of a list.
    pub fn list(&mut self, kind: Kind) -> Result<Listed, Error> {
        let listed = self.enter_list()?;
        if listed == Listed::List {
            let mut is_first = true;
            while self.cursor.next_item(&mut is_first)? {
                self.count(kind.is_task())?;
                self.present += usize::from(matches!(kind, Kind::Task | Kind::Executor));
                self.items.item(self.cursor, kind)?;
            }
        }
        Ok(listed)
    }

    /// Reads a text or a number; `None` if it has another type or is too long.
    pub fn scalar<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        Ok(self.cursor.scalar(SCALAR)?)
    }
}
