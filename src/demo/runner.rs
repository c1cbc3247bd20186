//! Makes the story happen: takes each cue at its time, once the node has followed the one before.
//!
//! A real cluster gives tasks time: a kill has its grace period, an agent is given up after minutes. The story
//! is shorter, so that instances end and machines go off the network when the daemon's status says that they
//! get no connections any more. Of a machine that dies without a warning the connections are lost, with any
//! balancer of this kind; that is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};

use super::agent::{Order, Report};
use super::client::Record;
use super::daemon::{self, is_ready, takes_connections, vip};
use super::document::document;
use super::process::{self, Hand, Note, Notes, Part};
use super::sandbox::{self, Stage};
use super::scenario::{Agent, Cast, Chapter, Cue, Instance, Story};
use super::tally::Tally;
use super::view::{Screen, View, verdict};
use super::{Error, Outcome, step};
use crate::dataplane::PlaneKind;
use crate::status::Status;

/// How often cues are looked for.
const TICK: Duration = Duration::from_millis(50);

/// How often the daemon is asked, and a terminal redrawn.
const FRAME: Duration = Duration::from_millis(250);

/// Time between two summaries where there is no terminal.
const SUMMARY: Duration = Duration::from_secs(2);

/// Shortest time after the last cue, where somebody was late.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Longest wait for somebody to get ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many failed connections are shown one by one.
const FAILURES: u64 = 10;

/// How long nobody has got a connection any more before he goes: what is under way ends meanwhile.
const SETTLING: Duration = Duration::from_millis(500);

/// Tells the whole story on the stage.
///
/// # Errors
/// When somebody does not play his part, or it is interrupted before the client's first connection; everybody has
/// been sent away then.
pub async fn perform(stage: Stage, story: Story, plane: PlaneKind) -> Result<Outcome, Error> {
    let (sender, notes) = mpsc::unbounded_channel();
    let mut director = Director {
        stage,
        story,
        plane,
        screen: Screen::open()?,
        sender,
        notes,
        agents: BTreeMap::new(),
        client: None,
        daemon: None,
        listening: BTreeSet::new(),
        cast: Cast::default(),
        chapter: Chapter::Opening,
        cues: 0,
        taken: Instant::now(),
        blocked: None,
        open: None,
        killed: None,
        began: Instant::now(),
        status: None,
        follows: false,
        tally: Tally::default(),
    };
    let mut interruption = Interruption::new()?;
    if director.screen.is_live() {
        // Ctrl-Z would stop this process alone, with the shell on the alternate screen without a cursor, while
        // everybody else goes on. Who listens is not stopped, and need not do anything.
        drop(signal(SignalKind::from_raw(libc::SIGTSTP))?);
    }
    let (told, interrupted) = tokio::select! {
        told = director.tell() => (told, false),
        () = interruption.comes() => (director.event("interrupted").map_err(Error::from), true),
    };
    let elapsed = director.elapsed();
    director.dismiss().await;
    director.screen.close();
    told?;
    if interrupted && director.tally.made == 0 {
        return Err(Error::Interrupted);
    }
    for line in verdict(&director.tally, elapsed) {
        director.screen.line(&line)?;
    }
    Ok(Outcome { connections: director.tally.made, failed: director.tally.failed })
}

struct Director {
    stage: Stage,
    story: Story,
    plane: PlaneKind,
    screen: Screen,
    sender: Notes,
    notes: mpsc::UnboundedReceiver<Note>,
    agents: BTreeMap<Agent, Hand>,
    client: Option<Hand>,
    daemon: Option<Child>,
    /// Instances that serve.
    listening: BTreeSet<Instance>,
    cast: Cast,
    chapter: Chapter,
    /// How many have been taken.
    cues: usize,
    /// When the last one was.
    taken: Instant,
    /// Since when the next cue is waited with, and since when it need not be.
    blocked: Option<Instant>,
    open: Option<Instant>,
    killed: Option<Instant>,
    /// When the client began.
    began: Instant,
    status: Option<Status>,
    /// Whether that is of the daemon which runs now, and it has taken over.
    follows: bool,
    tally: Tally,
}

impl Director {
    async fn tell(&mut self) -> Result<(), Error> {
        self.event(&format!("data plane: {}; setting up", self.plane))?;
        self.set_up().await?;
        let mut tick = interval(TICK);
        let mut frame = interval_at(Instant::now() + self.pace(), self.pace());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() {
            tokio::select! {
                note = self.notes.recv() => if let Some(note) = note { self.hear(note)? },
                _ = tick.tick() => {
                    self.check_on_daemon()?;
                    self.take_cues().await?;
                }
                _ = frame.tick() => self.show()?,
            }
        }
        self.show()?;
        Ok(())
    }

    /// Whether everything has been told, and could be seen.
    fn is_over(&self) -> bool {
        self.story.cue(self.cues).is_none()
            && self.elapsed() >= self.story.duration
            && self.taken.elapsed() >= LAST_LOOK
    }

    fn pace(&self) -> Duration {
        if self.screen.is_live() { FRAME } else { SUMMARY }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn event(&mut self, text: &str) -> std::io::Result<()> {
        self.screen.event(self.elapsed(), text)
    }

    fn show(&mut self) -> std::io::Result<()> {
        self.screen.show(&View {
            chapter: self.chapter,
            elapsed: self.began.elapsed(),
            duration: self.story.duration,
            plane: self.plane,
            status: self.status.as_ref(),
            daemon_runs: self.daemon.is_some(),
            tally: &self.tally,
        })
    }

    /// Agents with their first instances, the daemon, and then the client.
    async fn set_up(&mut self) -> Result<(), Error> {
        for agent in Agent::ALL {
            let hand = Hand::start(
                &Part::Agent,
                self.stage.cgroup.as_deref(),
                agent.to_string(),
                self.sender.clone(),
                move |report| Note::Agent(agent, report),
            )
            .map_err(|error| step("start an agent", error))?;
            let process = hand.id().ok_or_else(|| Error::Ended(agent.to_string()))?;
            self.agents.insert(agent, hand);
            self.await_report(agent, &Report::Entered).await?;
            sandbox::connect(agent, process).map_err(|error| step("connect an agent", error))?;
            self.order(agent, &Order::Address(agent.address())).await?;
            self.await_report(agent, &Report::Reachable).await?;
        }
        for instance in self.cast.healthy().collect::<Vec<_>>() {
            self.order(instance.agent(), &Order::Start(instance.0)).await?;
            self.await_report(instance.agent(), &Report::Listening(instance.0)).await?;
            self.listening.insert(instance);
        }
        self.publish()?;
        Stage::replace(&self.stage.config, daemon::config(&self.stage, self.plane).as_bytes())?;
        self.start_daemon()?;
        tokio::spawn(ask_again_and_again(self.stage.socket.clone(), self.sender.clone()));
        let waits = Instant::now();
        while !self.follows {
            if waits.elapsed() > PATIENCE {
                return Err(self.daemon_failed("the daemon does not get ready"));
            }
            if let Ok(Some(note)) = timeout(TICK, self.notes.recv()).await {
                self.hear(note)?;
            }
            self.check_on_daemon()?;
        }
        let client = Hand::start(
            &Part::Client,
            self.stage.cgroup.as_deref(),
            "the client".to_owned(),
            self.sender.clone(),
            Note::Client,
        );
        self.client = Some(client.map_err(|error| step("start the client", error))?);
        self.began = Instant::now();
        Ok(())
    }

    async fn await_report(&mut self, agent: Agent, wanted: &Report) -> Result<(), Error> {
        let silent = || Error::Ended(agent.to_string());
        loop {
            let note = timeout(PATIENCE, self.notes.recv()).await.map_err(|_| silent())?;
            match note.ok_or_else(silent)? {
                Note::Agent(from, report) if from == agent && report == *wanted => return Ok(()),
                note => self.hear(note)?,
            }
        }
    }

    async fn order(&mut self, agent: Agent, order: &Order) -> Result<(), Error> {
        let gone = || Error::Ended(agent.to_string());
        self.agents.get_mut(&agent).ok_or_else(gone)?.order(order).await.map_err(|_| gone())
    }

    fn hear(&mut self, note: Note) -> Result<(), Error> {
        match note {
            Note::Agent(_, Report::Listening(number)) => {
                self.listening.insert(Instance(number));
            }
            Note::Agent(agent, Report::Failed(error)) => {
                return Err(Error::Refused(format!("{agent}: {error}")));
            }
            Note::Agent(_, Report::Entered | Report::Reachable) => {}
            Note::Client(record) => self.count(record)?,
            Note::Status(status) => {
                if self.daemon.is_some() {
                    self.follows |= is_ready(&status);
                    self.status = Some(*status);
                }
            }
            Note::Silent(name) => return Err(Error::Ended(name)),
        }
        Ok(())
    }

    fn count(&mut self, record: Record) -> Result<(), Error> {
        match &record {
            Record::Failed { error } if self.tally.failed < FAILURES => {
                self.event(&format!("FAILED: {error}"))?;
            }
            Record::Broken { by, .. } if self.is_cut(by) => {
                let text =
                    format!("the kept connection to {by} is gone with its machine; a new one is opened");
                self.event(&text)?;
                return Ok(());
            }
            Record::Broken { by, error } => {
                self.event(&format!("FAILED: the kept connection to {by}: {error}"))?;
            }
            Record::Failed { .. } | Record::Answered { .. } | Record::Kept { .. } => {}
        }
        let moves = self.tally.kept.moves;
        self.tally.take(record, self.began.elapsed());
        if self.tally.kept.moves > moves {
            let with = self.tally.kept.with.clone().unwrap_or_default();
            self.event(&format!("the kept connection was ended by its server, and is with {with} now"))?;
        }
        Ok(())
    }

    /// Whether the task was on a machine that is off the network.
    fn is_cut(&self, task: &str) -> bool {
        Instance::of_task(task).is_some_and(|instance| self.cast.cut.contains(&instance.agent()))
    }

    async fn take_cues(&mut self) -> Result<(), Error> {
        while let Some((at, cue)) = self.story.cue(self.cues) {
            if self.elapsed() < at {
                return Ok(());
            }
            if !self.may_come(cue) {
                let since = *self.blocked.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(self.daemon_failed(&format!("the daemon does not follow, before: {cue}")));
                }
                return Ok(());
            }
            (self.blocked, self.open) = (None, None);
            self.taken = Instant::now();
            self.cues += 1;
            self.take(cue).await?;
        }
        Ok(())
    }

    /// Whether the node is ready for it.
    fn may_come(&mut self, cue: Cue) -> bool {
        let serves = |wanted: &dyn Fn(Instance) -> bool| {
            self.status.as_ref().and_then(vip).is_none_or(|vip| {
                vip.backends.iter().any(|backend| {
                    takes_connections(backend) && Instance::of_task(&backend.task).is_some_and(wanted)
                })
            })
        };
        let serves = match cue {
            Cue::Begin(_) => return true,
            Cue::StartDaemon => {
                return self.killed.is_some_and(|killed| killed.elapsed() >= self.story.absence());
            }
            Cue::Start(_) | Cue::Fail(_) | Cue::Stop(_) | Cue::Lose(_) | Cue::KillDaemon => {
                return self.has_followed();
            }
            Cue::Pass(instance) => return self.has_followed() && self.listening.contains(&instance),
            Cue::End(instance) => serves(&|other| other == instance),
            Cue::Cut(agent) => serves(&|other| other.agent() == agent),
        };
        if serves || !self.follows {
            self.open = None;
            return false;
        }
        self.open.get_or_insert_with(Instant::now).elapsed() >= SETTLING
    }

    /// Whether those get connections that should.
    fn has_followed(&self) -> bool {
        let Some(vip) = self.status.as_ref().and_then(vip).filter(|_| self.follows) else { return false };
        let serving = vip.backends.iter().filter(|backend| takes_connections(backend));
        let serving: BTreeSet<Option<Instance>> =
            serving.map(|backend| Instance::of_task(&backend.task)).collect();
        serving == self.cast.healthy().map(Some).collect()
    }

    async fn take(&mut self, cue: Cue) -> Result<(), Error> {
        match cue {
            Cue::Begin(chapter) => {
                self.chapter = chapter;
                return Ok(self.event(&format!(
                    "[{}/{}] {chapter}",
                    chapter.number(),
                    Chapter::ALL.len()
                ))?);
            }
            Cue::Start(instance) => self.order(instance.agent(), &Order::Start(instance.0)).await?,
            Cue::Stop(instance) => self.order(instance.agent(), &Order::Stop(instance.0)).await?,
            Cue::End(instance) => self.order(instance.agent(), &Order::End(instance.0)).await?,
            Cue::Cut(agent) => {
                sandbox::disconnect(agent).map_err(|error| step("take an agent off the network", error))?;
            }
            Cue::KillDaemon => {
                if let Some(mut daemon) = self.daemon.take() {
                    daemon.kill().await?;
                }
                self.killed = Some(Instant::now());
                self.follows = false;
            }
            Cue::StartDaemon => self.start_daemon()?,
            Cue::Pass(_) | Cue::Fail(_) | Cue::Lose(_) => {}
        }
        if self.cast.perform(cue) {
            self.publish()?;
        }
        Ok(self.event(&cue.to_string())?)
    }

    fn publish(&self) -> Result<(), Error> {
        let text = document(&self.cast).to_string();
        Stage::replace(&self.stage.state, text.as_bytes())
            .map_err(|error| step("write the state document", error))
    }

    fn start_daemon(&mut self) -> Result<(), Error> {
        let started = || {
            let log = File::options().create(true).append(true).open(&self.stage.log)?;
            let part = Part::Daemon { config: self.stage.config.clone() };
            let mut command = Command::from(process::command_of_ours(&part, self.stage.cgroup.as_deref()));
            command.env("L4LBD_LOG", "info").stderr(log).kill_on_drop(true).spawn()
        };
        self.daemon = Some(started().map_err(|error| step("start the daemon", error))?);
        Ok(())
    }

    fn check_on_daemon(&mut self) -> Result<(), Error> {
        match self.daemon.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(self.daemon_failed(&format!("the daemon has ended: {status}"))),
            _ => Ok(()),
        }
    }

    fn daemon_failed(&self, what: &str) -> Error {
        Error::Daemon { what: what.to_owned(), log: self.stage.last_words() }
    }

    /// Sends everybody away, the client first: nobody is to be let down at the end.
    async fn dismiss(&mut self) {
        if let Some(client) = self.client.take() {
            client.dismiss().await;
            while let Ok(note) = self.notes.try_recv() {
                if let Note::Client(record) = note {
                    // Whoever can't be told is told the sum.
                    let _ = self.count(record);
                }
            }
        }
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended before.
            let _ = daemon.kill().await;
        }
        for (_, agent) in std::mem::take(&mut self.agents) {
            agent.end().await;
        }
    }
}

/// Tells how the daemon is, for as long as anybody wants to know.
async fn ask_again_and_again(socket: PathBuf, notes: Notes) {
    loop {
        // It is killed in the course of events.
        if let Some(status) = daemon::status(&socket).await
            && notes.send(Note::Status(Box::new(status))).is_err()
        {
            return;
        }
        sleep(FRAME).await;
    }
}

/// Whoever wants this to end.
struct Interruption([Signal; 4]);

impl Interruption {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn comes(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
