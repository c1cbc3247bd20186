//! Runs the demonstration: starts the processes, takes each step of the scenario once the node has followed the one
//! before, and stops everything again.
//!
//! What belongs here: the course of one demonstration. How it looks is left to `output`.
//!
//! Connections to an agent that dies without a warning are lost with any load balancer of this kind. That is not shown:
//! the scenario's agent is reported as lost before it goes off the network.

mod agents;
mod daemon;
mod event;
mod journal;
mod playback;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use self::agents::AgentFleet;
use self::daemon::DaemonProcess;
use self::event::{EventSender, RunnerEvent};
use self::journal::ClientJournal;
use self::playback::{Due, NodeState, Playback};
use super::agent::{AgentCommand, AgentReport};
use super::daemon::config;
use super::document::document;
use super::error::{Error, setup};
use super::output::Output;
use super::process::{ChildOutput, ChildProcess, Role};
use super::sandbox::{self, Sandbox};
use super::scenario::{AgentId, Phase, Scenario, Step};
use super::text::result;
use super::view::ViewState;
use crate::dataplane::PlaneKind;
use crate::store::directory::replace;
use crate::terminal::{UserRequest, UserRequests};

/// Longest time between two looks at the scenario.
const TICK: Duration = Duration::from_millis(50);

/// Longest wait for a process to become ready.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Result of a demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoOutcome {
    pub connections: u64,
    pub failed: u64,
}

/// Runs the whole scenario in the sandbox.
///
/// # Errors
/// When a process fails, or the user quits before the client's first connection. All processes have ended then.
pub async fn run(sandbox: Sandbox, scenario: Scenario, plane: PlaneKind) -> Result<DemoOutcome, Error> {
    let mut runner = Runner::new(sandbox, scenario, plane)?;
    let played = runner.play().await;
    let elapsed = runner.journal.now();
    runner.stop().await;
    let ClientJournal { output, tally, .. } = runner.journal;
    match played {
        // A user who quits early gets the result so far, if there is one.
        Err(Error::Interrupted) if tally.made > 0 => {}
        played => played?,
    }
    output.finish(&result(&tally, elapsed))?;
    Ok(DemoOutcome { connections: tally.made, failed: tally.failed })
}

struct Runner {
    sandbox: Sandbox,
    plane: PlaneKind,
    playback: Playback,
    agents: AgentFleet,
    daemon: DaemonProcess,
    client: Option<ChildProcess>,
    journal: ClientJournal,
    requests: UserRequests,
    sender: EventSender,
    events: mpsc::UnboundedReceiver<RunnerEvent>,
}

impl Runner {
    fn new(sandbox: Sandbox, scenario: Scenario, plane: PlaneKind) -> Result<Self, Error> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut requests = UserRequests::from_signals().map_err(|error| setup("receive signals", error))?;
        let output = Output::open()?;
        if let Some(screen) = output.screen() {
            requests.add_keys(screen);
        }
        Ok(Self {
            sandbox,
            plane,
            playback: Playback::new(scenario),
            agents: AgentFleet::default(),
            daemon: DaemonProcess::default(),
            client: None,
            journal: ClientJournal::new(output),
            requests,
            sender,
            events,
        })
    }

    async fn play(&mut self) -> Result<(), Error> {
        self.journal.event(&format!("data plane: {}; setting up", self.plane))?;
        self.set_up().await?;
        while !self.playback.is_over(self.journal.now()) {
            self.turn().await?;
            self.take_steps().await?;
        }
        self.show()
    }

    /// Starts the agents with their first instances, the daemon, and then the client.
    async fn set_up(&mut self) -> Result<(), Error> {
        for agent in AgentId::ALL {
            let cgroup = self.sandbox.cgroup.as_deref();
            self.agents.start(agent, cgroup, self.sender.clone())?;
            // The link can be moved to the agent's namespace only once that exists.
            self.await_report(agent, AgentReport::Entered).await?;
            self.agents.connect(agent)?;
            self.agents.send(agent, &AgentCommand::Address(agent.address())).await?;
            self.await_report(agent, AgentReport::Reachable).await?;
        }
        for instance in self.playback.model.healthy().collect::<Vec<_>>() {
            self.agents.send(instance.agent(), &AgentCommand::Start(instance)).await?;
            self.await_report(instance.agent(), AgentReport::Listening(instance)).await?;
        }
        // The daemon reads its configuration and the document when it starts.
        self.publish()?;
        replace(&self.sandbox.config, config(&self.sandbox, self.plane).as_bytes())
            .map_err(|error| setup("write the daemon's configuration", error))?;
        self.daemon.start(&self.sandbox)?;
        tokio::spawn(daemon::poll_status(self.sandbox.socket.clone(), self.sender.clone()));
        self.wait_until(
            |runner| runner.daemon.is_ready,
            |runner| daemon::failure(&runner.sandbox, "the daemon does not get ready within 60 s".to_owned()),
        )
        .await?;
        // Its first connection is the beginning of what is counted and shown.
        self.client = Some(self.start_client()?);
        self.journal.restart_clock();
        Ok(())
    }

    fn start_client(&self) -> Result<ChildProcess, Error> {
        let cgroup = self.sandbox.cgroup.as_deref();
        ChildProcess::start(&Role::Client, cgroup, self.sender.clone(), |output| match output {
            ChildOutput::Line(record) => RunnerEvent::Client(record),
            ChildOutput::Closed => RunnerEvent::Closed("the client".to_owned()),
        })
        .map_err(|error| setup("start the client", error))
    }

    async fn await_report(&mut self, agent: AgentId, report: AgentReport) -> Result<(), Error> {
        self.wait_until(|runner| runner.agents.has_reported(agent, &report), |_| agents::lost(agent)).await
    }

    /// Handles events until `is_done`, or fails with `error` when that takes too long.
    async fn wait_until(
        &mut self,
        is_done: impl Fn(&Self) -> bool,
        error: impl Fn(&Self) -> Error,
    ) -> Result<(), Error> {
        let began = self.journal.now();
        while !is_done(self) {
            if self.journal.now().saturating_sub(began) > SETUP_TIMEOUT {
                return Err(error(self));
            }
            self.turn().await?;
        }
        Ok(())
    }

    /// Handles the next event or request, if one comes within a tick.
    async fn turn(&mut self) -> Result<(), Error> {
        tokio::select! {
            Some(event) = self.events.recv() => self.handle(event)?,
            request = self.requests.next() => self.obey(request)?,
            () = sleep(TICK) => {}
        }
        self.daemon.check(&self.sandbox)?;
        if self.journal.is_show_due() {
            self.show()?;
        }
        Ok(())
    }

    fn handle(&mut self, event: RunnerEvent) -> Result<(), Error> {
        match event {
            RunnerEvent::Agent(agent, report) => self.agents.take_report(agent, report)?,
            RunnerEvent::Client(record) => self.journal.record(record, &self.playback.model)?,
            RunnerEvent::Status(status) => self.daemon.take_status(*status),
            RunnerEvent::Closed(name) => return Err(Error::ProcessLost(name)),
        }
        Ok(())
    }

    fn obey(&mut self, request: UserRequest) -> Result<(), Error> {
        match request {
            UserRequest::Quit => {
                self.journal.event("interrupted, stopping")?;
                self.show()?;
                return Err(Error::Interrupted);
            }
            UserRequest::Suspend => self.journal.suspend()?,
            UserRequest::Redraw => {}
        }
        self.show()
    }

    fn show(&mut self) -> Result<(), Error> {
        let elapsed = self.journal.now();
        let ClientJournal { output, tally, .. } = &mut self.journal;
        output.show(&ViewState {
            phase: self.playback.phase,
            elapsed,
            duration: self.playback.scenario.duration,
            plane: self.plane,
            status: self.daemon.status.as_ref(),
            daemon_runs: self.daemon.is_running(),
            tally,
        })?;
        Ok(())
    }

    /// Takes all steps whose time has come.
    async fn take_steps(&mut self) -> Result<(), Error> {
        loop {
            let node = NodeState {
                serving: self.daemon.serving.clone(),
                is_current: self.daemon.is_ready,
                listening: self.agents.listening.clone(),
                down_since: self.daemon.down_since,
            };
            match self.playback.next(self.journal.now(), &node) {
                Due::Nothing => return Ok(()),
                Due::Overdue(step) => {
                    let problem = format!(
                        "the daemon has not followed the cluster for 60 s, so this step cannot come: {step}"
                    );
                    return Err(daemon::failure(&self.sandbox, problem));
                }
                Due::Now { step, changes_document } => {
                    self.take(step).await?;
                    if changes_document {
                        self.publish()?;
                    }
                }
            }
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), Error> {
        let agent = match step {
            Step::Begin(phase) => {
                let text = format!("[{}/{}] {phase}", phase.number(), Phase::ALL.len());
                return Ok(self.journal.event(&text)?);
            }
            Step::Start(instance) => Some((instance.agent(), AgentCommand::Start(instance))),
            Step::Stop(instance) => Some((instance.agent(), AgentCommand::Stop(instance))),
            Step::End(instance) => Some((instance.agent(), AgentCommand::End(instance))),
            Step::Disconnect(agent) => {
                sandbox::disconnect(agent).map_err(|error| setup("cut an agent off the network", error))?;
                None
            }
            Step::KillDaemon => {
                self.daemon.kill(self.journal.now()).await;
                None
            }
            Step::StartDaemon => {
                self.daemon.start(&self.sandbox)?;
                None
            }
            // Only the master's document changes.
            Step::BecomeHealthy(_) | Step::BecomeUnhealthy(_) | Step::Lose(_) => None,
        };
        if let Some((agent, command)) = agent {
            self.agents.send(agent, &command).await?;
        }
        Ok(self.journal.event(&step.to_string())?)
    }

    /// Writes the master's document for the daemon.
    fn publish(&self) -> Result<(), Error> {
        let text = document(&self.playback.model).to_string();
        replace(&self.sandbox.state, text.as_bytes())
            .map_err(|error| setup("write the state document", error))
    }

    /// Ends all processes.
    async fn stop(&mut self) {
        // The client goes first, so that no connection fails because of the end.
        if let Some(client) = self.client.take() {
            client.finish().await;
            while let Ok(event) = self.events.try_recv() {
                if let RunnerEvent::Client(record) = event {
                    // The counts matter even if standard output is closed.
                    let _ = self.journal.record(record, &self.playback.model);
                }
            }
        }
        self.daemon.kill(self.journal.now()).await;
        self.agents.kill().await;
    }
}
