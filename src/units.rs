//! Values as people write them in the configuration: times such as `2s` or `10m`, rates such as `50MB` or
//! `512kB`, addresses and networks. [`steady`] is the clock of deadlines, and [`program`] runs programs of the node.
//!
//! Every error repeats the value and shows a valid one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

pub mod program;
pub mod steady;

/// Cases of a property that takes long: a quarter of `all` in the fast loop, and all of them with `L4LBD_CASES=all`.
#[cfg(test)]
pub(crate) fn cases(all: u32) -> proptest::test_runner::Config {
    let is_whole = std::env::var("L4LBD_CASES").is_ok_and(|cases| cases == "all");
    proptest::test_runner::Config::with_cases(if is_whole { all } else { all / 4 })
}

/// A length of time, written like `2s`, `10m` or `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns whole seconds, rounded down.
    pub fn as_seconds(self) -> u32 {
        u32::try_from(self.0.as_secs()).unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_string(Text("a time in quotes, such as \"2s\""))?;
        let span: SignedDuration = text
            .parse()
            .map_err(|_| D::Error::custom(format!("{text:?} is not a time such as 2s, 10m or 24h")))?;
        let negative =
            |_| D::Error::custom(format!("{text:?} is negative; write a time such as 2s, 10m or 24h"));
        Duration::try_from(span).map(Self).map_err(negative)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX))
    }
}

/// Bytes per second, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// Units of a rate or a size. Powers of ten, as for line rates.
const UNITS: &[(&str, u64)] = &[("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = bytes(text.trim().strip_suffix("/s").unwrap_or(text.trim()));
        rate.map(Self)
            .ok_or_else(|| format!("{text:?} is not a number of bytes per second such as 50MB or 512kB"))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_string(Text("a rate in quotes, such as \"50MB\""))?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Size(self.0))
    }
}

/// A number of bytes, written like `2MB` or `512kB`; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = bytes(text.trim());
        size.map(Self).ok_or_else(|| format!("{text:?} is not a number of bytes such as 2MB or 512kB"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_string(Text("a size in quotes, such as \"2MB\""))?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Reads a positive number of bytes with its unit.
fn bytes(text: &str) -> Option<u64> {
    let read = |&(unit, factor): &(&str, u64)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0)
    };
    UNITS.iter().find_map(read)
}

/// Visitor of a text. A value of another kind is answered with what was expected.
struct Text(&'static str);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// Reads an IP address. The standard library's error does not repeat the text.
///
/// # Errors
/// With the text and an example.
pub fn ip_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    parse(&String::deserialize(deserializer)?, "an IP address such as 192.0.2.10 or 2001:db8::10")
}

/// Reads an address with a port.
///
/// # Errors
/// With the wrong text and an example.
pub fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse(
        &String::deserialize(deserializer)?,
        "an address with a port such as 127.0.0.1:62080 or [::1]:62080",
    )
}

/// Reads a list of addresses with ports.
///
/// # Errors
/// With the first wrong text and an example.
pub fn socket_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    parse_all(deserializer, "an address with a port such as 198.51.100.1:53 or [2001:db8::10]:53")
}

/// Reads a list of networks.
///
/// # Errors
/// With the first wrong text and an example.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    parse_all(deserializer, "a network such as 10.64.0.0/16 or 2001:db8::/32")
}

fn parse_all<'de, D: Deserializer<'de>, T: FromStr>(
    deserializer: D,
    expected: &str,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse(text, expected)).collect()
}

fn parse<T: FromStr, E: Error>(text: &str, expected: &str) -> Result<T, E> {
    text.parse().map_err(|_| E::custom(format!("{text:?} is not {expected}")))
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    #[test]
    fn rate_has_a_unit_and_is_not_zero() {
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

    #[test]
    fn span_is_shown_as_it_is_written() {
        let read = |text: &'static str| {
            let text: StrDeserializer<'_, Error> = text.into_deserializer();
            Span::deserialize(text).map_err(|error| error.to_string())
        };
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("10m", 600_000), ("24h", 86_400_000)] {
            assert_eq!(read(text), Ok(Span(Duration::from_millis(millis))), "{text}");
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("fast").unwrap_err(), "\"fast\" is not a time such as 2s, 10m or 24h");
        assert!(read("-2s").unwrap_err().starts_with("\"-2s\" is negative"));
    }

    #[test]
    fn addresses_that_are_none_are_repeated_in_the_error() {
        let text: StrDeserializer<'_, Error> = "node-1".into_deserializer();
        let error = ip_address(text).unwrap_err().to_string();
        assert!(error.starts_with("\"node-1\" is not an IP address such as "), "{error}");
        let list = || serde_json::json!(["10.0.0.1"]);
        let error = networks(list()).unwrap_err().to_string();
        assert!(error.starts_with("\"10.0.0.1\" is not a network such as "), "{error}");
        let error = socket_addresses(list()).unwrap_err().to_string();
        assert!(error.starts_with("\"10.0.0.1\" is not an address with a port such as "), "{error}");
    }
}
