//! Values of `dns.forward` and `dns.mesos`: a word, or a list of upstreams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `dns.forward`: the treatment of names in none of our zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Forward {
    /// They are refused.
    #[default]
    Off,
    /// They go to the node's own upstreams, from its `resolv.conf`.
    System,
    /// They go to these servers.
    Upstreams(Vec<Upstream>),
}

/// `dns.mesos`: the treatment of the zone `mesos`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Mesos {
    /// It is none of our zones.
    Off,
    /// It is answered from the cluster's state.
    #[default]
    State,
    /// It goes to these servers of mesos-dns.
    Upstreams(Vec<Upstream>),
}

/// Address of an upstream, written as `10.0.0.2` or `10.0.0.2:5353`; the port is 53 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Upstream(pub SocketAddr);

/// Value as it is written: a word, or a list of upstreams.
enum Written {
    Word(String),
    List(Vec<Upstream>),
}

// Not derived as an untagged enum, which would not tell the entry of a list that is wrong.
impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as \"off\" or a list of addresses such as [\"10.0.0.2\"]")
            }

            fn visit_str<E>(self, word: &str) -> Result<Written, E> {
                Ok(Written::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Written, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Written::List)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl TryFrom<Written> for Forward {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) if word == "off" => Ok(Self::Off),
            Written::Word(word) if word == "system" => Ok(Self::System),
            Written::Word(word) => Err(unknown(&word, "off, system")),
            Written::List(list) if list.is_empty() => Ok(Self::Off),
            Written::List(list) => Ok(Self::Upstreams(list)),
        }
    }
}

impl TryFrom<Written> for Mesos {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) if word == "off" => Ok(Self::Off),
            Written::Word(word) if word == "state" => Ok(Self::State),
            Written::Word(word) => Err(unknown(&word, "off, state")),
            Written::List(list) if list.is_empty() => Ok(Self::Off),
            Written::List(list) => Ok(Self::Upstreams(list)),
        }
    }
}

fn unknown(word: &str, known: &str) -> String {
    format!("{word:?} is neither {known} nor a list of addresses such as [\"10.0.0.2\"]")
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        address.map(Self).map_err(|_| format!("{text:?} is not an address such as 10.0.0.2 or 10.0.0.2:5353"))
    }
}

impl TryFrom<String> for Upstream {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        #[derive(Debug, Deserialize)]
        struct Settings {
            forward: Forward,
            mesos: Mesos,
        }
        let read = |text: &str| toml::from_str::<Settings>(text);
        let settings = read("forward = ['10.0.0.2', '[2001:db8::53]:5353']\nmesos = 'state'").unwrap();
        let expected = ["10.0.0.2:53", "[2001:db8::53]:5353"].map(|text| Upstream(text.parse().unwrap()));
        assert_eq!(settings.forward, Forward::Upstreams(expected.to_vec()));
        assert_eq!(settings.mesos, Mesos::State);
        let settings = read("forward = 'system'\nmesos = []").unwrap();
        assert_eq!((settings.forward, settings.mesos), (Forward::System, Mesos::Off));
        let error = read("forward = 'on'\nmesos = 'state'").unwrap_err();
        assert!(error.message().contains("neither off, system nor a list"), "{error}");
    }
}
