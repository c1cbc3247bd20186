//! The daemon as a process in the lab's agent.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::host::inside;
use super::lab::{AGENT, AGENT6, Lab};
use super::state::{State, Task};
use super::status::{Status, Vip};
use super::{PATIENCE, await_some, plane};
use crate::guest;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_l4lbd");

/// Killed when dropped, unless it ended before.
pub struct Daemon<'a> {
    lab: &'a Lab,
    process: Child,
}

impl Lab {
    /// Writes the document that the daemon reads, in one step.
    pub fn publish(&self, state: &State) -> Result<()> {
        let mut known = self.known.lock().map_err(|_| anyhow!("an earlier document panicked"))?;
        known.retain(|task| !state.knows(task));
        let ended: Vec<Task> = known.iter().cloned().map(Task::ended).collect();
        known.extend_from_slice(state.tasks());
        let draft = self.path("state.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(&state.document(&ended))?)?;
        fs::rename(draft, self.path("state.json"))?;
        Ok(())
    }

    /// Writes the configuration; `more` is appended and may have the tables that are not here, or begins
    /// with further keys of `[ipvs]` before the first table.
    pub fn configure_daemon(&self, more: &str) -> Result<()> {
        let (ipvs, more) = more.split_at(more.find('[').unwrap_or(more.len()));
        let (directory, source, audit) = (self.directory.display(), &self.source, self.audit);
        let polls = self.mass_loss_polls;
        let (plane, pins) = (plane::current().name(), self.pins.display().to_string());
        let cgroup = guest::cgroup().map(|group| format!("cgroup = \"{}\"\n", group.display()));
        let cgroup = cgroup.unwrap_or_default();
        let text = format!(
            "dataplane = \"{plane}\"\n\n[ebpf]\npins = \"{pins}\"\n{cgroup}\n[source]\nmasters = [\"{source}\"]\ninterval = \"250ms\"\nmax_backoff = \"1s\"\ntimeout = \"5s\"\n\
             mass_loss_polls = {polls}\n\n\
             [node]\naddress = \"{AGENT}\"\naddress6 = \"{AGENT6}\"\n\n\
             [ipvs]\naudit = \"{audit}\"\n{ipvs}\n\
             [daemon]\nstate_dir = \"{directory}/state\"\nsocket = \"{directory}/l4lbd.sock\"\n\n{more}\n"
        );
        Ok(fs::write(self.path("l4lbd.toml"), text)?)
    }

    /// Runs the daemon on `state` and returns when it says that it is ready.
    pub fn start(&self, state: &State) -> Result<Daemon<'_>> {
        self.start_with(state, "")
    }

    pub fn start_with(&self, state: &State, more: &str) -> Result<Daemon<'_>> {
        self.publish(state)?;
        self.configure_daemon(more)?;
        self.start_again()
    }

    /// Runs the daemon on what is there.
    pub fn start_again(&self) -> Result<Daemon<'_>> {
        let (mut daemon, notifications) = self.spawn()?;
        daemon.await_ready(&notifications)?;
        Ok(daemon)
    }

    /// Runs the daemon on what is there, and returns the socket of its notifications as well.
    pub fn start_told(&self) -> Result<(Daemon<'_>, UnixDatagram)> {
        self.spawn()
    }

    /// Runs the daemon on what is there, which may never make it ready.
    pub fn start_unready(&self) -> Result<Daemon<'_>> {
        Ok(self.spawn()?.0)
    }

    fn spawn(&self) -> Result<(Daemon<'_>, UnixDatagram)> {
        let path = self.path("notify.sock");
        let _ = fs::remove_file(&path);
        let notifications = UnixDatagram::bind(&path)?;
        notifications.set_read_timeout(Some(Duration::from_millis(100)))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log"))?;
        let mut command = inside(&self.agent.name);
        if let Some(programs) = &self.programs {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", programs.display()));
        }
        let process = command
            .args([PROGRAM, "run", "--config"])
            .arg(self.path("l4lbd.toml"))
            .env("NOTIFY_SOCKET", &path)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the daemon")?;
        Ok((Daemon { lab: self, process }, notifications))
    }

    /// Runs a command of the program that reads the configuration, in the agent, to its end.
    pub fn l4lbd(&self, command: &[&str]) -> Result<String> {
        let config = self.path("l4lbd.toml");
        let mut program = vec![PROGRAM];
        program.extend(command);
        program.extend(["--config", config.to_str().context("a path in UTF-8")?]);
        self.agent.run(&program)
    }
}

impl<'a> Daemon<'a> {
    /// A daemon that lives and dies with `process`, and has its socket in the lab's directory.
    pub fn of(lab: &'a Lab, process: Child) -> Self {
        Self { lab, process }
    }
}

impl Daemon<'_> {
    fn await_ready(&mut self, notifications: &UnixDatagram) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            match notifications.recv(&mut buffer) {
                Ok(length)
                    if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") =>
                {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if let Some(status) = self.process.try_wait()? {
                        bail!("the daemon ended before it was ready: {status}");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the daemon was not ready in {} s", PATIENCE.as_secs())
    }

    /// The status, asked of the daemon as its own command does.
    pub fn status(&self) -> Result<Status> {
        let mut stream = UnixStream::connect(self.lab.path("l4lbd.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /status HTTP/1.0\r\nHost: l4lbd\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) =
            answer.split_once("\r\n\r\n").with_context(|| format!("strange answer {answer:?}"))?;
        ensure!(head.contains(" 200 "), "the daemon answers {answer:?}");
        let mut status: Status =
            serde_json::from_str(body).with_context(|| format!("strange status {body}"))?;
        status.text = body.to_owned();
        Ok(status)
    }

    /// What the command prints, and its exit status.
    pub fn status_command(&self, arguments: &[&str]) -> Result<(String, Option<i32>)> {
        let output = Command::new(PROGRAM)
            .arg("status")
            .args(arguments)
            .arg("--socket")
            .arg(self.lab.path("l4lbd.sock"))
            .env("NO_COLOR", "1")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok((text.into_owned(), output.status.code()))
    }

    /// Waits until names are answered, which may begin a little after the daemon is ready.
    pub fn await_dns(&self) -> Result<()> {
        self.await_status("the DNS server", |status| !status.dns.addresses.is_empty()).map(drop)
    }

    /// Waits until the status is as wanted.
    pub fn await_status(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let mut last = String::new();
        await_some(what, || {
            let status = self.status()?;
            last.clone_from(&status.text);
            Ok(wanted(&status).then_some(status))
        })
        .map_err(|error| error.context(format!("the last status was {last}")))
    }

    /// Waits until the kernel has as many TCP services as wanted.
    pub fn await_kernel(&self, what: &str, wanted: impl Fn(usize) -> bool) -> Result<()> {
        await_some(what, || {
            let services = self.lab.services()?;
            Ok(wanted(services.iter().filter(|service| service.starts_with("tcp ")).count()).then_some(()))
        })
    }

    /// The VIP of this name and port.
    pub fn vip(&self, name: &str, port: u16) -> Result<Vip> {
        let status = self.status()?;
        status.vip(name, port).cloned().ok_or_else(|| anyhow!("no VIP {name}:{port} in {}", status.text))
    }

    /// Where clients dial it.
    pub fn socket_of(&self, name: &str, port: u16) -> Result<SocketAddr> {
        Ok(self.vip(name, port)?.socket())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as systemd does.
    pub fn terminate(mut self) -> Result<()> {
        let ended = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        ensure!(ended.success(), "the daemon was gone already");
        let status = await_some("the daemon ends after SIGTERM", || Ok(self.process.try_wait()?))?;
        ensure!(status.success(), "the daemon ended with {status} after SIGTERM");
        Ok(())
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
