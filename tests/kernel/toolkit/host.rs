//! A host: a network namespace with a helper in it.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::helper::{self, Outcome, Reply, Request, Transport};
use super::master::Behaviour;

/// How long a connection that cannot come about is waited for, which has to be paid each time.
const UNHEARD: Duration = Duration::from_secs(2);

pub struct Host {
    /// The namespace's name.
    pub name: String,
    helper: Mutex<Helper>,
}

struct Helper {
    process: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

/// A connection that its host keeps open.
pub struct Kept<'a> {
    host: &'a Host,
    number: usize,
    /// Who answered when it was opened.
    pub server: String,
}

/// A command that starts a program in a network namespace, and leaves everything else as it is: with
/// `ip netns exec`, cgroups and the BPF file system would be hidden behind a new /sys.
pub fn inside(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command
}

impl Host {
    /// Starts a helper in a namespace that exists.
    pub fn enter(name: String) -> Result<Self> {
        let mut process = inside(&name)
            .arg(std::env::current_exe()?)
            .arg(helper::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("nsenter")?;
        let requests = process.stdin.take().context("the helper's input")?;
        let replies = BufReader::new(process.stdout.take().context("the helper's output")?);
        Ok(Self { name, helper: Mutex::new(Helper { process, requests, replies }) })
    }

    /// Serves TCP at `at`, answering as `name`.
    pub fn serve(&self, at: &str, name: &str) -> Result<()> {
        self.serve_on(Transport::Tcp, at, name)
    }

    pub fn serve_on(&self, transport: Transport, at: &str, name: &str) -> Result<()> {
        let at = at.parse().with_context(|| format!("{at} is not address:port"))?;
        match self.request(&Request::Serve { transport, at, name: name.into() })? {
            Reply::Serving => Ok(()),
            other => Err(anyhow!("{}: serving at {at}: {other:?}", self.name)),
        }
    }

    /// Opens a TCP connection, reads the answer and closes it.
    pub fn dial(&self, to: SocketAddr) -> Result<Outcome> {
        self.dial_on(Transport::Tcp, to)
    }

    pub fn dial_on(&self, transport: Transport, to: SocketAddr) -> Result<Outcome> {
        self.dial_for(transport, to, helper::SILENCE)
    }

    fn dial_for(&self, transport: Transport, to: SocketAddr, patience: Duration) -> Result<Outcome> {
        match self.request(&Request::Dial { transport, to, keep: false, patience })? {
            Reply::Dialled { outcome, .. } => Ok(outcome),
            other => Err(anyhow!("{}: dialling {to}: {other:?}", self.name)),
        }
    }

    /// Opens TCP connections to all of them at once and reads the answers, in the same order.
    pub fn dial_all(&self, to: Vec<SocketAddr>) -> Result<Vec<Outcome>> {
        match self.request(&Request::DialAll { to })? {
            Reply::DialledAll(outcomes) => Ok(outcomes),
            other => Err(anyhow!("{}: dialling them all: {other:?}", self.name)),
        }
    }

    /// Passes TCP connections to `at` on to `to`, as Docker's proxy does with a published port.
    pub fn relay(&self, at: &str, to: SocketAddr) -> Result<()> {
        let at = at.parse().with_context(|| format!("{at} is not address:port"))?;
        match self.request(&Request::Relay { at, to })? {
            Reply::Serving => Ok(()),
            other => Err(anyhow!("{}: a relay at {at}: {other:?}", self.name)),
        }
    }

    /// Opens a TCP connection that stays.
    pub fn keep(&self, to: SocketAddr) -> Result<Kept<'_>> {
        self.keep_on(Transport::Tcp, to)
    }

    pub fn keep_on(&self, transport: Transport, to: SocketAddr) -> Result<Kept<'_>> {
        match self.request(&Request::Dial { transport, to, keep: true, patience: helper::SILENCE })? {
            Reply::Dialled { outcome: Outcome::Answered { server, .. }, connection: Some(number) } => {
                Ok(Kept { host: self, number, server })
            }
            other => Err(anyhow!("{}: a connection to {to}: {other:?}", self.name)),
        }
    }

    /// Starts clients that connect to `to` again and again.
    pub fn load(&self, to: SocketAddr) -> Result<()> {
        match self.request(&Request::Load { to })? {
            Reply::Serving => Ok(()),
            other => Err(anyhow!("{}: a load on {to}: {other:?}", self.name)),
        }
    }

    /// Ends the clients; gives how many connections they had, and those that failed.
    pub fn end_load(&self) -> Result<(usize, Vec<Outcome>)> {
        match self.request(&Request::EndLoad)? {
            Reply::Loaded { connections, failures } => Ok((connections, failures)),
            other => Err(anyhow!("{}: the end of a load: {other:?}", self.name)),
        }
    }

    /// Runs a Mesos master at `at`, which hangs up until it is told what to do.
    pub fn master(&self, at: &str) -> Result<()> {
        let at = at.parse().with_context(|| format!("{at} is not address:port"))?;
        match self.request(&Request::Master { at })? {
            Reply::Serving => Ok(()),
            other => Err(anyhow!("{}: a master at {at}: {other:?}", self.name)),
        }
    }

    /// Tells the master of this host what to do from now on.
    pub fn behave(&self, behaviour: Behaviour) -> Result<()> {
        match self.request(&Request::Behave(behaviour))? {
            Reply::Set => Ok(()),
            other => Err(anyhow!("{}: the master: {other:?}", self.name)),
        }
    }

    /// Dials and requires an answer of `server`; gives the client's address as seen there.
    #[track_caller]
    pub fn must_reach(&self, transport: Transport, to: SocketAddr, server: &str) -> Result<IpAddr> {
        match self.dial_on(transport, to)? {
            Outcome::Answered { server: other, client } if other == server => Ok(client),
            other => Err(anyhow!("{} dials {transport:?} {to}: wanted {server}, got {other:?}", self.name)),
        }
    }

    /// Dials and requires to be refused at once.
    #[track_caller]
    pub fn must_be_refused(&self, transport: Transport, to: SocketAddr) -> Result<()> {
        let outcome = self.dial_on(transport, to)?;
        ensure!(
            outcome == Outcome::Refused,
            "{} dials {transport:?} {to}: wanted a refusal, got {outcome:?}",
            self.name
        );
        Ok(())
    }

    /// Dials by TCP and requires that nothing comes back, not even a refusal.
    #[track_caller]
    pub fn must_hear_nothing(&self, to: SocketAddr) -> Result<()> {
        let outcome = self.dial_for(Transport::Tcp, to, UNHEARD)?;
        ensure!(outcome == Outcome::Silence, "{} dials {to}: wanted silence, got {outcome:?}", self.name);
        Ok(())
    }

    /// Dials by TCP and requires that the network says that it knows no way there.
    #[track_caller]
    pub fn must_find_no_way(&self, to: SocketAddr) -> Result<()> {
        let outcome = self.dial(to)?;
        let no_way = matches!(&outcome, Outcome::Failed(text) if text.contains("unreachable") || text.contains("No route"));
        ensure!(no_way, "{} dials {to}: wanted no way there, got {outcome:?}", self.name);
        Ok(())
    }

    /// Runs a program in this host and gives what it printed; its failure is an error.
    pub fn run(&self, program: &[&str]) -> Result<String> {
        self.run_with(program, "")
    }

    /// [`Self::run`] for a command whose words have no spaces in them.
    pub fn run_line(&self, command: &str) -> Result<String> {
        self.run(&command.split_whitespace().collect::<Vec<_>>())
    }

    pub fn run_with(&self, program: &[&str], input: &str) -> Result<String> {
        let request = Request::Run {
            program: program.iter().map(|&word| word.to_owned()).collect(),
            input: input.into(),
        };
        match self.request(&request)? {
            Reply::Ran { success: true, output, .. } => Ok(output),
            Reply::Ran { output, errors, .. } => {
                bail!("{}: {program:?} failed: {output}{errors}", self.name)
            }
            other => bail!("{}: {program:?}: {other:?}", self.name),
        }
    }

    /// Sets a kernel parameter of this host.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        match self.request(&Request::Set { path, value: value.into() })? {
            Reply::Set => Ok(()),
            other => bail!("{}: {key}={value}: {other:?}", self.name),
        }
    }

    fn request(&self, request: &Request) -> Result<Reply> {
        let mut helper = self.helper.lock().map_err(|_| anyhow!("an earlier request panicked"))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        helper.requests.write_all(line.as_bytes())?;
        let mut reply = String::new();
        helper.replies.read_line(&mut reply)?;
        serde_json::from_str(&reply).with_context(|| format!("{}: the helper ended: {reply:?}", self.name))
    }
}

impl Kept<'_> {
    /// Asks the server again.
    pub fn ask(&self) -> Result<Outcome> {
        match self.host.request(&Request::Ask { connection: self.number })? {
            Reply::Dialled { outcome, .. } => Ok(outcome),
            other => Err(anyhow!("{}: asking again: {other:?}", self.host.name)),
        }
    }

    pub fn close(self) -> Result<()> {
        match self.host.request(&Request::Close { connection: self.number })? {
            Reply::Closed => Ok(()),
            other => Err(anyhow!("{}: closing a connection: {other:?}", self.host.name)),
        }
    }

    /// Requires that the same server still answers.
    pub fn must_live(&self) -> Result<()> {
        match self.ask()? {
            Outcome::Answered { server, .. } if server == self.server => Ok(()),
            other => bail!("{}: the connection to {} is broken: {other:?}", self.host.name, self.server),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Ok(helper) = self.helper.get_mut() {
            let _ = helper.process.kill();
            let _ = helper.process.wait();
        }
    }
}
