//! Record of the demonstration: its clock, the client's connections, and what the user is shown of both.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::demo::client::ClientRecord;
use crate::demo::output::Output;
use crate::demo::scenario::{ClusterModel, InstanceId};
use crate::demo::tally::Tally;

/// Number of failed connections that are shown one by one.
const SHOWN_FAILURES: u64 = 10;

/// Everything that is recorded and shown.
pub struct ClientJournal {
    pub output: Output,
    pub tally: Tally,
    /// Start of the clock, later by every time that the demonstration was stopped.
    began: Instant,
    /// Time at which the output is due again.
    next_show: Duration,
}

impl ClientJournal {
    pub fn new(output: Output) -> Self {
        Self { output, tally: Tally::default(), began: Instant::now(), next_show: Duration::ZERO }
    }

    /// Returns the time since the clock started, without the times for which the demonstration was stopped.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Starts the clock anew: the client begins.
    pub fn restart_clock(&mut self) {
        self.began = Instant::now();
        self.next_show = self.output.interval();
    }

    /// Returns true if the present state is to be shown, and sets the next time for that.
    pub fn is_show_due(&mut self) -> bool {
        let now = self.now();
        let is_due = now >= self.next_show;
        if is_due {
            self.next_show = now + self.output.interval();
        }
        is_due
    }

    /// Tells of an event.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn event(&mut self, text: &str) -> io::Result<()> {
        self.output.event(self.now(), text)
    }

    /// Stops this process as Ctrl-Z does, and returns once it is continued. The clock stands still meanwhile, so that
    /// the scenario goes on where it was.
    ///
    /// # Errors
    /// When the terminal cannot be used any more.
    pub fn suspend(&mut self) -> io::Result<()> {
        let stopped = Instant::now();
        self.output.suspend()?;
        self.began += stopped.elapsed();
        Ok(())
    }

    /// Counts a record of the client, and tells of what is special about it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn record(&mut self, record: ClientRecord, cluster: &ClusterModel) -> io::Result<()> {
        let is_disconnected = |task: &str| {
            InstanceId::of_task(task).is_some_and(|instance| cluster.disconnected.contains(&instance.agent()))
        };
        match &record {
            ClientRecord::Failed { error } if self.tally.failed < SHOWN_FAILURES => {
                self.event(&format!("FAILED: {error}"))?;
            }
            // No load balancer can keep a connection to an agent without a network: it is not counted as failed.
            ClientRecord::LongLivedBroken { by, .. } if is_disconnected(by) => {
                return self
                    .event(&format!("long-lived connection: lost with the agent of {by}, opened anew"));
            }
            ClientRecord::LongLivedBroken { by, error } => {
                self.event(&format!("FAILED: long-lived connection to {by}: {error}"))?;
            }
            ClientRecord::Failed { .. }
            | ClientRecord::Answered { .. }
            | ClientRecord::LongLivedAnswered { .. } => {}
        }
        let reopened = self.tally.long_lived.reopened;
        self.tally.add(record, self.now());
        if self.tally.long_lived.reopened > reopened {
            let task = self.tally.long_lived.task.clone().unwrap_or_default();
            self.event(&format!("long-lived connection: closed by its server, now to {task}"))?;
        }
        Ok(())
    }
}
