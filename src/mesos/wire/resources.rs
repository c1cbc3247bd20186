//! The `ports` resource of a task: v0 writes ranges as text, v1 as a list of resources.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::lenient::{Lenient, LenientList, readable};

/// Ranges that are read of a text, which is one value however long it is. An agent offers a few.
const MAX_RANGES: usize = 16_384;

/// Port resources as inclusive ranges, in the order in which they are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortResources(pub Vec<(u64, u64)>);

impl PortResources {
    /// Reads v0's `"[31000-31002, 31005-31005]"`. A part that is no range is left out.
    pub fn parse(text: &str) -> Self {
        let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
        Self(inner.split(',').filter_map(range).take(MAX_RANGES).collect())
    }

    /// Returns the port at `index` of the written-out ranges, counted from 0.
    ///
    /// For example, index 3 of `[31000-31002, 31005-31005]` is 31005.
    pub fn nth(&self, index: u64) -> Option<u64> {
        let mut rest = index;
        // A range whose end is before its begin holds no ports.
        for &(begin, end) in self.0.iter().filter(|(begin, end)| begin <= end) {
            // Computed from the ends: ranges are a tenant's choice, and may have any length.
            if rest <= end - begin {
                return Some(begin + rest);
            }
            rest -= end - begin + 1;
        }
        None
    }
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (begin, end) = text.trim().split_once('-').unwrap_or((text.trim(), text.trim()));
    Some((begin.trim().parse().ok()?, end.trim().parse().ok()?))
}

/// One entry of v1's list of resources.
#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    ranges: Option<RangeList>,
    scalar: Option<Scalar>,
}

#[derive(Deserialize)]
struct RangeList {
    range: LenientList<PortRange>,
}

#[derive(Deserialize)]
struct PortRange {
    begin: u64,
    end: u64,
}

#[derive(Deserialize)]
struct Scalar {
    value: f64,
}

struct ResourcesVisitor;

impl<'de> Deserialize<'de> for PortResources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ResourcesVisitor)
    }
}

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
                // A value of another type holds no ports, and costs nothing else.
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
            // Such as cpus and mem.
            if name != "ports" {
                continue;
            }
            let ranges = ranges.and_then(|ranges| ranges.range);
            ports.0.extend(readable(&ranges).map(|range| (range.begin, range.end)));
            // A single port may come as a number; the cast saturates, and 0 is no port.
            ports.0.extend(scalar.map(|scalar| (scalar.value as u64, scalar.value as u64)));
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_from_v0_and_v1() {
        let read = |text: &str| serde_json::from_str::<PortResources>(text).unwrap().0;
        assert_eq!(read(r#"{"cpus":0.1,"ports":"[31000-31002, 31005]"}"#), [(31000, 31002), (31005, 31005)]);
        assert_eq!(
            read(
                r#"[{"name":"cpus","scalar":{"value":0.1}},{"name":"ports","ranges":{"range":
                [{"begin":1,"end":2},7,{"begin":9,"end":9}]}},{"name":"ports","scalar":{"value":80.0}}]"#
            ),
            [(1, 2), (9, 9), (80, 80)]
        );
        assert_eq!(read(r#"{"ports":7}"#), []);
        let many = format!(r#"{{"ports":"[{}1]"}}"#, "1,".repeat(1_000_000));
        assert_eq!(read(&many).len(), MAX_RANGES);
        assert_eq!(read("null"), []);
    }
}
