//! The project's systemd unit, started by systemd itself in the lab's agent.
//!
//! A systemd of its own, as process 1 of a process namespace, knows the unit and nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::daemon::{Daemon, PROGRAM};
use super::host::Host;
use super::lab::{AGENT, AGENT6, BPF, Lab};
use super::state::State;
use super::{await_some, plane};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/l4lbd.service");
const DROP_INS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/drop-ins");
const SYSUSERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/sysusers.d/l4lbd.conf");

/// Where the unit finds its program. Other users may be unable to reach the program's own place.
pub const INSTALLED: &str = "/usr/local/bin/l4lbd";
pub const SOCKET: &str = "/run/l4lbd/l4lbd.sock";
pub const STATE: &str = "/var/lib/l4lbd";
pub const PINS: &str = "/sys/fs/bpf/l4lbd";

pub const CONFIG: &str = "/etc/l4lbd/l4lbd.toml";

/// What systemd knows: the unit, and an empty target in place of everything that it comes after.
const UNITS: &str = "/run/l4lbd-units";

/// Somebody who has an account on the node and nothing to do with us.
const STRANGER: u32 = 64_999;

/// Capabilities by their numbers in `linux/capability.h`.
const CAPABILITIES: &[(&str, u32)] = &[
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// What the unit and its drop-ins say, and the user that was made for it.
pub struct Unit {
    text: String,
    pub user: u32,
    pub group: u32,
}

/// Who runs a command.
pub enum Caller {
    Daemon,
    Member,
    Stranger,
}

impl Unit {
    /// Puts everything in its place in this machine, as systemd/README.md has it.
    pub fn install() -> Result<Self> {
        Self::install_with(&[])
    }

    /// ... with some of the drop-ins.
    pub fn install_with(drop_ins: &[&str]) -> Result<Self> {
        run(&["systemd-sysusers", SYSUSERS])?;
        let mut text = fs::read_to_string(UNIT).context(UNIT)?;
        let directory = Path::new(UNITS).join("l4lbd.service.d");
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        for name in drop_ins {
            let path = Path::new(DROP_INS).join(name);
            text += &fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            fs::copy(path, directory.join(name))?;
        }
        if run(&["stat", "--file-system", "--format=%T", BPF])?.trim() != "bpf_fs" {
            // As systemd does at boot, except in a container.
            run(&["mount", "-t", "bpf", "-o", "mode=0700", "bpf", BPF])?;
        }
        let mut unit = Self { text, user: 0, group: 0 };
        unit.user = run(&["id", "-u", unit.value("User")?])?.trim().parse()?;
        unit.group = run(&["id", "-g", unit.value("User")?])?.trim().parse()?;
        if !Path::new(INSTALLED).exists() {
            fs::write(INSTALLED, "")?;
            run(&["mount", "--bind", PROGRAM, INSTALLED])?;
        }
        fs::copy(UNIT, Path::new(UNITS).join("l4lbd.service"))?;
        fs::write(Path::new(UNITS).join("sysinit.target"), "[Unit]\nDefaultDependencies=no\n")?;
        Ok(unit)
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// A setting that is there exactly once.
    pub fn value(&self, key: &str) -> Result<&str> {
        let mut values = self.values(key);
        let value = values.next().with_context(|| format!("{UNIT} does not have {key}="))?;
        ensure!(values.next().is_none(), "{UNIT} has {key}= more than once");
        Ok(value)
    }

    /// A setting that is a mode, such as `0750`.
    pub fn mode(&self, key: &str) -> Result<u32> {
        Ok(u32::from_str_radix(self.value(key)?, 8)?)
    }

    /// A setting that lists capabilities, as the kernel's bits; drop-ins add to it.
    pub fn capabilities(&self, key: &str) -> Result<u64> {
        self.values(key).flat_map(str::split_whitespace).try_fold(0, |bits, name| {
            let known = CAPABILITIES.iter().find(|(known, _)| *known == name);
            let (_, number) = known.with_context(|| format!("{key} has {name}, which is not needed"))?;
            Ok(bits | 1 << number)
        })
    }

    /// Starts the service on `state`, and returns when systemd calls it active.
    pub fn start<'a>(&self, lab: &'a Lab, state: &State) -> Result<Daemon<'a>> {
        lab.publish(state)?;
        self.configure(lab)?;
        let log = fs::File::create(lab.path("systemd.log"))?;
        let manager = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", lab.agent.name))
            .args(["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--cgroup"])
            // A /run that is mounted already stays as it is.
            .args(["sh", "-c", "mount --rbind /run /run && exec \"$@\"", "sh", "/lib/systemd/systemd"])
            .args(["--system", "--unit=l4lbd.service", "--log-target=console"])
            .env("container", "l4lbd-test")
            .env("SYSTEMD_UNIT_PATH", UNITS)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("systemd")?;
        let daemon = Daemon::of(lab, manager);
        // Asked first, because systemctl takes a second in an emulated machine.
        await_some("the daemon's first pass", || {
            Ok(daemon.status().is_ok_and(|status| !status.vips.is_empty()).then_some(()))
        })?;
        await_some("the service is active", || {
            Ok(systemctl(&["is-active", "l4lbd"]).is_ok_and(|state| state.trim() == "active").then_some(()))
        })?;
        Ok(daemon)
    }

    fn configure(&self, lab: &Lab) -> Result<()> {
        let directory = lab.directory.display();
        fs::create_dir_all("/etc/l4lbd")?;
        fs::write(
            CONFIG,
            format!(
                "dataplane = \"{}\"\n\n[source]\nmasters = [\"file:{directory}/state.json\"]\ninterval = \"250ms\"\n\n\
                 [node]\naddress = \"{AGENT}\"\naddress6 = \"{AGENT6}\"\n\n[ipvs]\naudit = \"1s\"\ndrain = \"3s\"\n",
                plane::current().name()
            ),
        )?;
        chown(CONFIG, None, Some(self.group))?;
        fs::set_permissions(CONFIG, fs::Permissions::from_mode(0o640))?;
        // Nobody keeps a log in here, and a failed test shows its end.
        let log = format!(
            "[Service]\nStandardOutput=append:{directory}/daemon.log\nStandardError=append:{directory}/daemon.log\n"
        );
        fs::write(Path::new(UNITS).join("l4lbd.service.d/log.conf"), log)?;
        for kept in fs::read_dir(STATE)?.collect::<Result<Vec<_>, _>>()? {
            fs::remove_file(kept.path())?;
        }
        Ok(symlink(SOCKET, lab.path("l4lbd.sock"))?)
    }

    /// Asks for the status over the usual socket, and gives what was printed with the exit status.
    pub fn ask_as(&self, caller: &Caller) -> Result<(Option<i32>, String)> {
        let (user, group, others) = match caller {
            Caller::Daemon => (self.user, self.group, "--clear-groups".to_owned()),
            Caller::Member => (STRANGER, STRANGER, format!("--groups={}", self.group)),
            Caller::Stranger => (STRANGER, STRANGER, "--clear-groups".to_owned()),
        };
        let output = Command::new("setpriv")
            .args([format!("--reuid={user}"), format!("--regid={group}"), others])
            .args([INSTALLED, "status", "--socket", SOCKET])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code(), text.into_owned()))
    }
}

/// Asks the systemd that runs the service, which answers only those who see the same processes.
pub fn systemctl(words: &[&str]) -> Result<String> {
    let manager = manager()?;
    let enter = ["nsenter", "--target", manager.trim(), "--mount", "--pid", "--root", "systemctl"];
    run(&[&enter[..], words].concat())
}

/// A process of root's in a host's network, which those see who see systemd's processes.
pub fn inhabit(host: &Host) -> Result<Child> {
    let network = format!("--net=/run/netns/{}", host.name);
    let manager = manager()?;
    let words = ["--target", manager.trim(), "--pid", &network, "sleep", "infinity"];
    Command::new("nsenter").args(words).spawn().context("nsenter")
}

fn manager() -> Result<String> {
    run(&["pgrep", "--newest", "--exact", "systemd"])
}

/// The service's main process, by its id outside of systemd's process namespace.
pub fn process() -> Result<u32> {
    Ok(run(&["pgrep", "--newest", "--exact", "l4lbd"])?.trim().parse()?)
}

fn run(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("no program")?;
    let output = Command::new(program).args(arguments).output().with_context(|| (*program).to_owned())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?} failed: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
