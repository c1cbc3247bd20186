//! The configuration file: one TOML document, every key optional.
//!
//! What belongs here: the sections put together, reading a file (`read`), names that keys had before (`renamed`),
//! suggestions for misspelt ones (`suggest`), dcos-net's configuration ([`dcos`]),
//! values that a running daemon takes over ([`reload`]), the socket by a broken file ([`socket`]), checks of keys against each
//! other (`check`), and the documentation of all keys ([`mod@reference`]).
//!
//! A section is a struct whose fields are its keys: the doc comment of a field is the help of the key, the attribute
//! beside it the default. A section that belongs to one module is declared there, in its `settings`. Modules below
//! never see a [`Config`]; `daemon::wiring` makes their settings from it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use confique::Config as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::api::settings::HttpSettings;
use crate::dataplane::settings::{BalanceSettings, DataPlaneSettings, EbpfSettings, IpvsSettings};
use crate::dns::settings::DnsSettings;
use crate::source::settings::{Marathon, Source};
use crate::units::{self, Size};
use crate::vip::settings::VipSettings;

mod check;
pub mod dcos;
mod read;
pub mod reference;
pub mod reload;
mod renamed;
pub mod socket;
mod suggest;

/// Path of the configuration file unless another one is given; the file need not exist.
pub const DEFAULT_PATH: &str = "/etc/l4lbd/l4lbd.toml";

/// A valid configuration, by sections in the order of the sample file, where the comment of each is as well.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct Config {
    /// State of the cluster, from Mesos masters or from this node's agent.
    #[config(nested)]
    pub source: Source,

    /// State of tasks from Marathon, beside or instead of Mesos.
    #[config(nested)]
    pub marathon: Marathon,

    /// Addresses of this node.
    #[config(nested)]
    pub node: NodeSettings,

    /// Addresses of VIPs, and the addresses that labels may request.
    #[config(nested)]
    pub vips: VipSettings,

    /// Settings of both data planes, which lead connections from VIPs to backends.
    #[config(nested)]
    pub dataplane: DataPlaneSettings,

    /// Choice of backends.
    #[config(nested)]
    pub balance: BalanceSettings,

    /// Settings of the data plane ipvs.
    #[config(nested)]
    pub ipvs: IpvsSettings,

    /// Settings of the data plane ebpf.
    #[config(nested)]
    pub ebpf: EbpfSettings,

    /// DNS server for names of VIPs and tasks.
    #[config(nested)]
    pub dns: DnsSettings,

    /// HTTP server for programs that watch this node.
    #[config(nested)]
    pub http: HttpSettings,

    /// Files of the daemon.
    #[config(nested)]
    pub daemon: DaemonSettings,
}

/// Section `node`.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct NodeSettings {
    /// IPv4 address of this node, from which the node's own clients reach VIPs. If not set, it is the address
    /// under which Mesos knows the node, else the one that the kernel prefers.
    ///
    /// Example: `"192.0.2.10"`
    #[config(deserialize_with = units::ip_address)]
    pub address: Option<IpAddr>,

    /// IPv6 address of this node, from which the node's own clients reach VIPs. If not set, it is the address
    /// under which Mesos knows the node, else the one that the kernel prefers.
    ///
    /// Example: `"2001:db8::10"`
    #[config(deserialize_with = units::ip_address)]
    pub address6: Option<IpAddr>,
}

/// Section `daemon`.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct DaemonSettings {
    /// Directory of what must survive a restart: the addresses of named VIPs, the last state of the cluster, deadlines,
    /// Marathon's verdicts, and events.
    #[config(default = "/var/lib/l4lbd")]
    pub state_dir: PathBuf,

    /// Unix socket on which l4lbd status and other commands reach the daemon.
    #[config(default = "/run/l4lbd/l4lbd.sock")]
    pub socket: PathBuf,

    /// Largest size of the file of events, which l4lbd events shows, from 64kB to 64MB. Half of it is kept in memory
    /// as well. When it is used up, each app has a fair share.
    #[config(default = "2MB")]
    pub events: Size,

    /// What is logged: off, error, warn, info, debug or trace, also by module, such as "info,l4lbd::dns=debug". The
    /// environment variable L4LBD_LOG has precedence.
    #[config(default = "info")]
    pub log: LogFilter,
}

/// Levels of the log, by module.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(pub String);

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match levels(&text) {
            Some(_) => Ok(Self(text)),
            None => {
                Err(format!("{text:?} is no list of levels such as \"info\" or \"info,l4lbd::dns=debug\""))
            }
        }
    }
}

/// Reads levels of the log by module; `None` where the text has none.
pub fn levels(text: &str) -> Option<Targets> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    // A bare module means all of its levels, so that a misspelt level would be taken for one.
    let is_known = |part: &&str| {
        let is_module = part.contains('=') || part.contains("::");
        // Spans in brackets are taken for names of modules, which no module has.
        !part.contains('[') && (is_module || LevelFilter::from_str(part).is_ok())
    };
    let is_sound = !parts.is_empty() && parts.iter().all(is_known);
    is_sound.then(|| parts.join(",").parse().ok()).flatten()
}

/// A configuration with remarks for its author.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// One sentence each; none is an error.
    pub remarks: Vec<String>,
    /// Sections with the values that the file sets.
    values: toml::Table,
}

/// Everything that is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration file {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path} is not TOML: {error}")]
    Syntax { path: PathBuf, error: Box<toml::de::Error> },
    #[error("{}", ProblemLines(path, problems))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

/// One problem a line, each with the file it is in.
struct ProblemLines<'a>(&'a Path, &'a [String]);

impl fmt::Display for ProblemLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {problem}", self.0.display())?;
        }
        Ok(())
    }
}

impl Loaded {
    /// Reads the file at `path`; without a path the default file, if there is one.
    ///
    /// # Errors
    /// With every problem of the file at once.
    pub fn read(path: Option<&Path>) -> Result<Self, Error> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        // Only the default file may be missing: a path that was given and does not exist is a mistake.
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::Read { path: file.to_owned(), error }),
        };
        Self::parse(file, &text)
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// With every problem of the text at once.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let syntax = |error| Error::Syntax { path: path.to_owned(), error: Box::new(error) };
        let read::ParsedFile { layer, written, values, mut problems } = read::read(text).map_err(syntax)?;
        let invalid = |problems| Error::Invalid { path: path.to_owned(), problems };
        let layer = confique::Layer::with_fallback(layer, confique::Layer::default_values());
        let config = Config::from_layer(layer).map_err(|error| invalid(vec![error.to_string()]))?;
        // Where a key could not be read its default stands in, so that all other keys are checked as well.
        problems.extend(check::problems(&config, &written));
        if !problems.is_empty() {
            let places = read::places(text);
            // Those of keys that the file does not have are last.
            problems.sort_by_key(|problem| read::place_of(problem, &places).unwrap_or(usize::MAX));
            return Err(invalid(problems));
        }
        let remarks = written.remarks().chain(config.remarks()).collect();
        Ok(Self { config, remarks, values })
    }
}

impl Config {
    /// Reads the file at `path` without its remarks, see [`Loaded::read`].
    ///
    /// # Errors
    /// With every problem of the file at once.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        Loaded::read(path).map(|loaded| loaded.config)
    }

    /// Reads the text of the file at `path` without its remarks, see [`Loaded::parse`].
    ///
    /// # Errors
    /// With every problem of the text at once.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        Loaded::parse(path, text).map(|loaded| loaded.config)
    }

    /// Returns the configuration of an empty file.
    ///
    /// # Errors
    /// Never, which a test shows.
    pub fn defaults() -> Result<Self, Error> {
        Self::parse(Path::new(DEFAULT_PATH), "")
    }
}

#[cfg(test)]
mod tests;
