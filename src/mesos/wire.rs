//! The parts of Mesos' JSON that matter here, as they are on the wire.
//!
//! One set of types serves v0 and v1: they differ in a few names and wrappers (`"id": "x"` and
//! `"task_id": {"value": "x"}`). Every list item is a [`Lenient`], so that a value of an unexpected
//! type costs that item alone.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A value, or the reason why it can't be read.
#[derive(Clone, Debug)]
pub enum Lenient<T> {
    Read(T),
    Unreadable { error: String, json: String },
}

/// A list that may also be missing or `null`.
pub type List<T> = Option<Vec<Lenient<T>>>;

/// A task; also the object that `completed_tasks` holds.
#[derive(Clone, Debug, Deserialize)]
pub struct Task<'a> {
    #[serde(borrow, alias = "task_id")]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub framework_id: Option<Text<'a>>,
    #[serde(borrow, alias = "agent_id")]
    pub slave_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    #[serde(borrow)]
    pub statuses: List<Status<'a>>,
    #[serde(borrow)]
    pub discovery: Option<Discovery<'a>>,
    #[serde(borrow)]
    pub container: Option<Container<'a>>,
    #[serde(default, deserialize_with = "present")]
    pub health_check: bool,
    #[serde(borrow)]
    pub labels: Option<Labels<'a>>,
    #[serde(default)]
    pub resources: PortResources,
}

/// The identity of a task that has ended.
#[derive(Debug, Deserialize)]
pub struct EndedTask<'a> {
    #[serde(borrow, alias = "task_id")]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub framework_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub state: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Status<'a> {
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    /// Seconds since the epoch.
    pub timestamp: Option<f64>,
    pub healthy: Option<bool>,
    #[serde(borrow)]
    pub container_status: Option<ContainerStatus<'a>>,
    /// Only in v1.
    #[serde(borrow)]
    pub task_id: Option<Text<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ContainerStatus<'a> {
    #[serde(borrow)]
    pub network_infos: List<NetworkInfo<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct NetworkInfo<'a> {
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ip_addresses: List<IpAddress<'a>>,
    /// How Mesos before 0.27 gave the address.
    #[serde(borrow)]
    pub ip_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub port_mappings: List<PortMapping<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct IpAddress<'a> {
    #[serde(borrow)]
    pub ip_address: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PortMapping<'a> {
    pub host_port: u64,
    pub container_port: u64,
    #[serde(borrow)]
    pub protocol: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Container<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub docker: Option<Docker<'a>>,
    #[serde(borrow)]
    pub network_infos: List<NetworkInfo<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Docker<'a> {
    #[serde(borrow)]
    pub port_mappings: List<PortMapping<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Discovery<'a> {
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ports: Option<DiscoveryPorts<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DiscoveryPorts<'a> {
    #[serde(borrow)]
    pub ports: List<DiscoveryPort<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DiscoveryPort<'a> {
    pub number: Option<u64>,
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub protocol: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub labels: Option<Labels<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Label<'a> {
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(borrow)]
    pub value: Option<Cow<'a, str>>,
}

/// An agent of v0 `slaves`, of v1 `agents`, or the bare `AgentInfo` of v1 `recovered_agents`.
#[derive(Debug, Deserialize)]
pub struct Agent<'a> {
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    #[serde(borrow)]
    pub hostname: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub pid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub agent_info: Option<Box<Agent<'a>>>,
}

/// A v1 framework.
#[derive(Debug, Deserialize)]
pub struct Framework<'a> {
    #[serde(borrow)]
    pub framework_info: FrameworkInfo<'a>,
}

#[derive(Debug, Deserialize)]
pub struct FrameworkInfo<'a> {
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub hostname: Option<Cow<'a, str>>,
}

/// A string, either bare or as `{"value": ...}`.
#[derive(Clone, Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

/// Labels, either as a bare list or as `{"labels": [...]}`.
#[derive(Clone, Debug, Default)]
pub struct Labels<'a>(pub Vec<Lenient<Label<'a>>>);

/// The `ports` resource: inclusive ranges in the order in which they are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortResources(pub Vec<(u64, u64)>);

impl<T> Lenient<T> {
    /// The value, where it could be read.
    pub fn as_read(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            Self::Unreadable { .. } => None,
        }
    }
}

impl PortResources {
    /// Reads v0's `"[31000-31002, 31005-31005]"`. Ranges that make no sense hold no ports.
    pub fn parse(text: &str) -> Self {
        let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
        Self(inner.split(',').filter_map(range).collect())
    }

    /// The port at `index` when the ranges are written out one after the other.
    pub fn nth(&self, index: u64) -> Option<u64> {
        let mut rest = index;
        for &(begin, end) in self.0.iter().filter(|(begin, end)| begin <= end) {
            if rest <= end - begin {
                return Some(begin + rest);
            }
            rest -= end - begin + 1;
        }
        None
    }
}

/// Whether a member is there and not `null`, whatever it holds.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (begin, end) = text.trim().split_once('-').unwrap_or((text.trim(), text.trim()));
    Some((begin.trim().parse().ok()?, end.trim().parse().ok()?))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Ok(match serde_json::from_str(raw.get()) {
            Ok(value) => Self::Read(value),
            Err(error) => {
                Self::Unreadable { error: error.to_string(), json: raw.get().chars().take(120).collect() }
            }
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object with a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
                let mut text = None;
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "value" {
                        text = Some(Text(map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                text.ok_or_else(|| serde::de::Error::missing_field("value"))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;

        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of labels")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Labels<'de>, A::Error> {
                let mut labels = Vec::new();
                while let Some(label) = seq.next_element()? {
                    labels.push(label);
                }
                Ok(Labels(labels))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels<'de>, A::Error> {
                let mut labels = Labels::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "labels" {
                        labels.0 = map.next_value::<List<Label<'de>>>()?.unwrap_or_default();
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(labels)
            }
        }

        deserializer.deserialize_any(LabelsVisitor)
    }
}

impl<'de> Deserialize<'de> for PortResources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// One resource of v1's list.
        #[derive(Deserialize)]
        struct Resource<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
            ranges: Option<Ranges>,
            scalar: Option<Scalar>,
        }

        #[derive(Deserialize)]
        struct Ranges {
            range: List<Range>,
        }

        #[derive(Deserialize)]
        struct Range {
            begin: u64,
            end: u64,
        }

        #[derive(Deserialize)]
        struct Scalar {
            value: f64,
        }

        struct ResourcesVisitor;

        impl<'de> Visitor<'de> for ResourcesVisitor {
            type Value = PortResources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("resources as an object or a list")
            }

            fn visit_unit<E>(self) -> Result<PortResources, E> {
                Ok(PortResources::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PortResources, A::Error> {
                let mut ports = PortResources::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "ports" {
                        if let Lenient::Read(text) = map.next_value::<Lenient<Cow<'de, str>>>()? {
                            ports = PortResources::parse(&text);
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(ports)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PortResources, A::Error> {
                let mut ports = PortResources::default();
                while let Some(resource) = seq.next_element::<Lenient<Resource<'de>>>()? {
                    let Lenient::Read(Resource { name, ranges, scalar }) = resource else { continue };
                    if name != "ports" {
                        continue;
                    }
                    let ranges = ranges.and_then(|ranges| ranges.range).into_iter().flatten();
                    ports.0.extend(ranges.filter_map(|range| match range {
                        Lenient::Read(Range { begin, end }) => Some((begin, end)),
                        Lenient::Unreadable { .. } => None,
                    }));
                    // A single port may come as a number; the cast saturates, and 0 is no port.
                    ports.0.extend(scalar.map(|scalar| (scalar.value as u64, scalar.value as u64)));
                }
                Ok(ports)
            }
        }

        deserializer.deserialize_any(ResourcesVisitor)
    }
}
