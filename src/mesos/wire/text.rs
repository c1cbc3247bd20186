//! Strings and labels, which v1 wraps into objects.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::lenient::{Lenient, LenientList};

/// A string, either bare (v0) or as `{"value": ...}` (v1).
#[derive(Clone, Debug)]
pub struct WrappedText<'a>(pub Cow<'a, str>);

/// A label of a task or of a discovery port, as written.
#[derive(Clone, Debug, Deserialize)]
pub struct MesosLabel<'a> {
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(borrow)]
    pub value: Option<Cow<'a, str>>,
}

/// Labels, either as a bare list (v0 tasks) or as `{"labels": [...]}` (v1, and all discovery ports).
#[derive(Clone, Debug, Default)]
pub struct Labels<'a>(pub Vec<Lenient<MesosLabel<'a>>>);

impl<'a> Labels<'a> {
    /// Iterates over the labels that could be read.
    pub fn readable(&self) -> impl Iterator<Item = &MesosLabel<'a>> {
        self.0.iter().filter_map(Lenient::as_read)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for WrappedText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = WrappedText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object with a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<WrappedText<'de>, E> {
                Ok(WrappedText(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<WrappedText<'de>, E> {
                Ok(WrappedText(Cow::Owned(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WrappedText<'de>, A::Error> {
                let mut text = None;
                // Later versions of Mesos may add members.
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "value" {
                        text = Some(WrappedText(map.next_value()?));
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
                        labels.0 = map.next_value::<LenientList<MesosLabel<'de>>>()?.unwrap_or_default();
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
