//! Quantities as people write them: times such as `2s` or `10m`, rates such as `50MB` or `512kB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A length of time, written like `2s`, `10m` or `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub fn as_seconds(self) -> u32 {
        u32::try_from(self.0.as_secs()).unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span: jiff::SignedDuration = text.parse().map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is not a time such as 2s, 10m or 24h"))
        })?;
        Duration::try_from(span).map(Self).map_err(|_| serde::de::Error::custom("a time can't be negative"))
    }
}

/// Bytes per second, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(pub u64);

/// Powers of ten, as for line rates.
const UNITS: &[(&str, u64)] = &[("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.trim().strip_suffix("/s").unwrap_or(text.trim());
        let read = |&(unit, factor): &(&str, u64)| {
            let number: u64 = bare.strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(factor).filter(|rate| *rate > 0)
        };
        let rate = UNITS.iter().find_map(read);
        rate.map(Self)
            .ok_or_else(|| format!("{text:?} is not a number of bytes per second such as 50MB or 512kB"))
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}/s", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let read = |text: &str| text.parse::<Rate>().map(|rate| rate.0);
        assert_eq!(read("50MB"), Ok(50_000_000));
        assert_eq!(read("512 kB/s"), Ok(512_000));
        assert_eq!(read("1GB"), Ok(1_000_000_000));
        for text in ["", "50", "0B", "-1MB", "MB", "99999999999999GB"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(Rate(50_000_000).to_string(), "50MB/s");
        assert_eq!(Rate(1_500).to_string(), "1500B/s");
    }
}
