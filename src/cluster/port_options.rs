//! Labels beside `VIP_N` on the same port, which say how its VIPs are served.
//!
//! Their keys start with `L4LB_`, so that Minuteman, which takes any key that starts with `VIP` for a
//! VIP, passes them over.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Prefix of the labels' keys.
pub const PREFIX: &str = "L4LB_";

/// Schedulers that Linux has (`net/netfilter/ipvs/ip_vs_*.c`).
pub const SCHEDULERS: &[&str] =
    &["rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"];

/// Longest time for which a tenant can keep a server that has gone in the kernel.
const MAX_DRAIN: Duration = Duration::from_secs(60 * 60);

/// Longest time for which a tenant can keep a backend warming up.
const MAX_SLOW_START: Duration = Duration::from_secs(60 * 60);

/// Largest weight that a label can ask for.
pub const MAX_WEIGHT: u16 = 1000;

/// Keys of all options, for those who wrote another one.
const KEYS: &str =
    "L4LB_SCHEDULER, L4LB_STICKY_IDLE, L4LB_DRAIN, L4LB_WEIGHT, L4LB_EJECT, L4LB_SLOW_START, L4LB_LOCALITY";

/// The place whose backends are preferred to all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locality {
    /// No place is preferred.
    #[default]
    Any,
    /// The client's own node.
    Node,
    /// The zone of the client's node.
    Zone,
    /// The region of the client's node.
    Region,
}

impl Locality {
    /// All of them, as they are written.
    const NAMES: [(&'static str, Self); 4] =
        [("any", Self::Any), ("node", Self::Node), ("zone", Self::Zone), ("region", Self::Region)];

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, locality)| *locality).ok_or_else(|| "none of any, node, zone and region".to_owned())
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(_, locality)| locality == self);
        f.write_str(found.map_or("any", |(name, _)| name))
    }
}

/// Options that labels of a port ask for; absent ones are as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortOptions {
    /// Kernel name of the scheduler (`L4LB_SCHEDULER`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Connections survive any idle time (`L4LB_STICKY_IDLE`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sticky_idle: bool,
    /// Longest time that connections are kept to a server that has gone (`L4LB_DRAIN`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// Share of new connections among the tasks of its framework (`L4LB_WEIGHT`); 0 takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Backends that fail are not ejected (`L4LB_EJECT=false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_ejection: bool,
    /// Time for which the share of a new backend rises (`L4LB_SLOW_START`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// Place whose backends are preferred (`L4LB_LOCALITY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

impl PortOptions {
    /// Takes in one label.
    ///
    /// # Errors
    /// When there is no such option, or not with such a value; the options stay as they are.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.strip_prefix(PREFIX).unwrap_or(key) {
            "SCHEDULER" if SCHEDULERS.contains(&value) => self.scheduler = Some(value.to_owned()),
            "SCHEDULER" => {
                return Err(format!("no such scheduler; there are {}", SCHEDULERS.join(", ")));
            }
            "STICKY_IDLE" => {
                self.sticky_idle = value.parse().map_err(|_| "neither true nor false".to_owned())?;
            }
            "DRAIN" => self.drain = Some(span(value, MAX_DRAIN)?),
            "WEIGHT" => self.weight = Some(weight(value)?),
            "EJECT" => {
                let ejects: bool = value.parse().map_err(|_| "neither true nor false".to_owned())?;
                self.no_ejection = !ejects;
            }
            "SLOW_START" => self.slow_start = Some(span(value, MAX_SLOW_START)?),
            "LOCALITY" => self.locality = Some(Locality::parse(value)?),
            _ => return Err(format!("no such option; there are {KEYS}")),
        }
        Ok(())
    }

    /// Returns true if an option is set that holds for all backends of a VIP, be they of other tasks.
    pub fn concerns_all(&self) -> bool {
        self.scheduler.is_some() || self.sticky_idle || self.no_ejection || self.locality.is_some()
    }

    /// Returns the options as a port keeps them: most ports have none.
    pub fn of_port(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// Reads a time of at most `limit`, because a tenant must not keep anything in every node's kernel for days.
fn span(text: &str, limit: Duration) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "not a time such as 30s or 5m".to_owned())?;
    let span = Duration::try_from(span).map_err(|_| "a time can't be negative".to_owned())?;
    let longest = limit.as_secs() / (60 * 60);
    if span <= limit { Ok(span) } else { Err(format!("longer than {longest}h")) }
}

fn weight(text: &str) -> Result<u16, String> {
    // A sign is no digit, though the number would be read with one.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let weight = text.parse().ok().filter(|weight| is_number && *weight <= MAX_WEIGHT);
    weight.ok_or_else(|| format!("no whole number from 0 to {MAX_WEIGHT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_leaves_the_rest_as_it_is() {
        let mut options = PortOptions::default();
        options.set("L4LB_SCHEDULER", "rr").unwrap();
        options.set("L4LB_STICKY_IDLE", "true").unwrap();
        options.set("L4LB_DRAIN", "5m").unwrap();
        options.set("L4LB_WEIGHT", "1000").unwrap();
        options.set("L4LB_EJECT", "false").unwrap();
        options.set("L4LB_SLOW_START", "1h").unwrap();
        options.set("L4LB_LOCALITY", "zone").unwrap();
        let before = options.clone();
        for (key, value) in [
            ("L4LB_SCHEDULER", "wlc; rm -rf /"),
            ("L4LB_STICKY_IDLE", "yes"),
            ("L4LB_DRAIN", "2h"),
            ("L4LB_DRAIN", "-1s"),
            ("L4LB_WEIGHT", "1001"),
            ("L4LB_WEIGHT", "-1"),
            ("L4LB_WEIGHT", "+1"),
            ("L4LB_WEIGHT", "0.5"),
            ("L4LB_WEIGHT", ""),
            ("L4LB_EJECT", "no"),
            ("L4LB_SLOW_START", "61m"),
            ("L4LB_SLOW_START", "soon"),
            ("L4LB_LOCALITY", "rack"),
            ("L4LB_COLOUR", "red"),
        ] {
            assert!(options.set(key, value).is_err(), "{key}={value}");
        }
        assert_eq!(options, before);
        assert_eq!(options.drain, Some(Duration::from_secs(300)));
        assert_eq!((options.weight, options.no_ejection), (Some(1000), true));
        assert_eq!(options.slow_start, Some(Duration::from_secs(3600)));
        assert_eq!(options.locality.map(|locality| locality.to_string()).as_deref(), Some("zone"));
    }
}
