//! Writer of families with very many samples.
//!
//! 10,000 VIPs have 95,000 samples, those of backends among them. The library writes each name, label and value in
//! pieces, which takes some 0.5 µs for a sample; here the labels of a VIP are text that is made once, and all of it
//! takes some 0.1 µs for a sample. A test compares the two byte by byte.

use super::family::{Family, Format, Kind};

/// Text of the labels of a sample, without braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelText(String);

impl LabelText {
    /// Makes the text of labels with these names.
    pub fn new<const N: usize>(labels: [(&str, &str); N]) -> Self {
        let mut text = String::new();
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(&mut text, value);
            text.push('"');
        }
        Self(text)
    }

    /// Returns the same with another label.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let more = Self::new([(name, value)]);
        Self(format!("{},{}", self.0, more.0))
    }
}

/// Adds a value of a label as both forms escape it.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Text that families are added to.
#[derive(Debug)]
pub struct Bulk {
    text: String,
    format: Format,
}

impl Bulk {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Writes a family with its samples.
    pub(super) fn family<'l>(&mut self, family: Family, samples: impl Iterator<Item = (&'l LabelText, u64)>) {
        let exposed = family.exposed();
        // OpenMetrics declares a counter by its name without the suffix.
        let (declared, unit) = match self.format {
            Format::Prometheus => (exposed.as_str(), None),
            Format::OpenMetrics => (family.name, family.parts().1),
        };
        let kind = if family.kind == Kind::Counter { "counter" } else { "gauge" };
        self.text += &format!("# HELP {declared} {}.\n# TYPE {declared} {kind}\n", family.help);
        if let Some(unit) = unit {
            self.text += &format!("# UNIT {declared} {}\n", unit.as_str());
        }
        let mut number = itoa::Buffer::new();
        for (LabelText(labels), value) in samples {
            self.text.push_str(&exposed);
            self.text.push('{');
            self.text.push_str(labels);
            self.text.push_str("} ");
            self.text.push_str(number.format(value));
            self.text.push('\n');
        }
    }
}
