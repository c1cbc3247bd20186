//! The v1 operator API: answers to calls. Events are in [`super::live`].
//! (<https://mesos.apache.org/documentation/latest/operator-http-api/>)

use std::io::Read;

use serde::Deserialize;

use super::agents::{FrameworkFacts, FrameworkRead, pid_address};
use super::cursor::{Cursor, parsed, text};
use super::error::Error;
use super::facts::{ITEM, Kind};
use super::items::{Head, Items, Listed, Walk};
use super::skip::unreadable;
use super::wire::{FrameworkInfo, Lenient};
use crate::cluster::{Master, Skipped};

/// Walks through an object with the member `get_state`: an answer to `GET_STATE`, of a master or an agent, or
/// what `SUBSCRIBED` holds. Returns `None` without that member.
pub fn walk<R: Read, I: Items>(cursor: &mut Cursor<R>, items: &mut I) -> Result<Option<Head>, Error> {
    let mut walk = AnswerWalk { walk: Walk::new(cursor, items), frameworks: Vec::new() };
    let mut found = false;
    if walk.walk.enter_object()? {
        let mut is_first = true;
        while let Some(key) = walk.walk.cursor.next_key(&mut is_first)? {
            match key.as_str() {
                "get_state" => {
                    found = true;
                    walk.members()?;
                }
                _ => walk.walk.cursor.skip()?,
            }
        }
    }
    let AnswerWalk { walk: Walk { cursor, present, .. }, frameworks } = walk;
    cursor.end()?;
    Ok(found.then(|| Head { frameworks, is_idle: present == 0, ..Head::default() }))
}

/// Reads an answer to `GET_MASTER`.
pub fn parse_master(answer: &[u8]) -> Result<Master, Error> {
    #[derive(Deserialize)]
    struct Answer {
        get_master: Option<GetMaster>,
    }

    #[derive(Deserialize)]
    struct GetMaster {
        master_info: MasterInfo,
        elected_time: Option<Lenient<f64>>,
    }

    #[derive(Deserialize)]
    struct MasterInfo {
        id: String,
        pid: Option<String>,
    }

    let answer: Answer = serde_json::from_slice(answer)?;
    let GetMaster { master_info, elected_time } = answer.get_master.ok_or(Error::Missing("get_master"))?;
    let address = master_info.pid.as_deref().and_then(pid_address).map(|address| address.ip());
    // Only compared; one that is no number is that of no election.
    let elected_time = elected_time.as_ref().and_then(Lenient::as_read).copied().unwrap_or_default();
    Ok(Master { id: master_info.id, elected_time, address })
}

struct AnswerWalk<'w, R, I> {
    walk: Walk<'w, R, I>,
    frameworks: Vec<FrameworkFacts>,
}

impl<R: Read, I: Items> AnswerWalk<'_, R, I> {
    /// Walks through `get_state` and its members such as `get_tasks`: their own members
    /// have distinct names, so that one function serves them all.
    fn members(&mut self) -> Result<(), Error> {
        if !self.walk.enter_object()? {
            return Ok(());
        }
        let (mut is_inner, mut is_first) = (false, true);
        loop {
            let Some(key) = self.walk.cursor.next_key(&mut is_first)? else {
                if !std::mem::take(&mut is_inner) {
                    return Ok(());
                }
                is_first = false;
                continue;
            };
            match key.as_str() {
                "get_tasks" | "get_agents" | "get_frameworks" | "get_executors" if !is_inner => {
                    // A value that is no object was passed over, and a comma follows it as any member.
                    is_inner = self.walk.enter_object()?;
                    is_first = is_inner;
                }
                // Masters list `tasks`, before 1.2 also those of frameworks that have not registered with a new
                // master; agents list `launched_tasks`.
                "tasks" | "orphan_tasks" | "launched_tasks" => drop(self.walk.list(Kind::Task)?),
                "completed_tasks" | "terminated_tasks" => drop(self.walk.list(Kind::Ended)?),
                "unreachable_tasks" => drop(self.walk.list(Kind::Unreachable)?),
                "agents" => drop(self.walk.list(Kind::Agent)?),
                "recovered_agents" => drop(self.walk.list(Kind::RecoveredAgent)?),
                "frameworks" => self.frameworks()?,
                "executors" => drop(self.walk.list(Kind::Executor)?),
                // Only their number matters: who sees them has the rights.
                "pending_tasks" => self.present()?,
                _ => self.walk.cursor.skip()?,
            }
        }
    }

    fn present(&mut self) -> Result<(), Error> {
        if self.walk.enter_list()? == Listed::List {
            let mut is_first = true;
            while self.walk.cursor.next_item(&mut is_first)? {
                self.walk.present += 1;
                self.walk.cursor.skip()?;
            }
        }
        Ok(())
    }

    fn frameworks(&mut self) -> Result<(), Error> {
        if self.walk.enter_list()? == Listed::List {
            let mut is_first = true;
            while self.walk.cursor.next_item(&mut is_first)? {
                self.walk.count(false)?;
                self.framework()?;
            }
        }
        Ok(())
    }

    /// Reads one framework member by member: its offers can be longer than all the rest.
    fn framework(&mut self) -> Result<(), Error> {
        const PLACE: &str = "frameworks[]";
        let (mut read, mut registered) = (None, None);
        if self.walk.enter_object()? {
            let mut is_first = true;
            while let Some(key) = self.walk.cursor.next_key(&mut is_first)? {
                match key.as_str() {
                    "framework_info" => read = self.info()?,
                    "registered_time" => registered = self.walk.scalar()?,
                    _ => self.walk.cursor.skip()?,
                }
            }
        }
        let read = read.unwrap_or_else(|| {
            let reason = "a framework that cannot be read: it has no framework_info".to_owned();
            Err(Box::new(Skipped { reason, ..Skipped::default() }))
        });
        match read {
            Ok(framework) => {
                self.frameworks.extend(framework.map(|framework| framework.registered_at(registered)));
            }
            Err(record) => self.walk.items.record(Skipped { task: PLACE.to_owned(), ..*record }),
        }
        Ok(())
    }

    fn info(&mut self) -> Result<Option<FrameworkRead>, Error> {
        let cursor = &mut *self.walk.cursor;
        let Some(length) = cursor.value(ITEM)? else { return Ok(None) };
        let text = text(cursor.octets(length));
        let info = match parsed::<FrameworkInfo<'_>>(&text).map_err(|error| cursor.not_json(&error))? {
            Lenient::Read(info) => FrameworkFacts::of_info(info),
            Lenient::Unreadable { error, json } => Err(Box::new(unreadable(&error, json, "a framework"))),
        };
        cursor.advance(length);
        Ok(Some(info))
    }
}
