//! Documentation of all keys, from their declarations: for `--help`, the sample file and the manual page.

use std::fmt::Write;

use confique::Config as _;
use confique::meta::{Expr, Field, FieldKind, LeafKind};

use super::Config;

/// Characters of the longest line of the sample file.
const SAMPLE_WIDTH: usize = 110;

/// Characters of the longest line of a help text in a terminal.
const HELP_WIDTH: usize = 80;

/// Paragraphs at the start of the sample file.
const PREFACE: &[&str] = &[
    "Configuration of l4lbd. Its place is /etc/l4lbd/l4lbd.toml, where members of the group l4lbd can read it, so \
     keep passwords in files of their own, by source.basic and such keys. Every key is here with its default, or with an example if it has no default, so that an empty file means the \
     same. Times are written like 500ms, 2s, 10m or 24h. After a change:",
    "l4lbd reload",
];

/// Start of the paragraph of a doc comment that has an example.
const EXAMPLE: &str = "Example: ";

/// A key of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub section: String,
    pub name: String,
    /// Default in TOML; `None` if the key is not set by default.
    pub default: Option<String>,
    /// Value in TOML that a key without a default could have.
    pub example: Option<String>,
    /// One paragraph of plain text.
    pub help: String,
}

impl Key {
    /// Returns section and name, such as `dns.ttl`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    fn new(section: &Field, key: &Field) -> Self {
        let default = match key.kind {
            FieldKind::Leaf { kind: LeafKind::Required { default }, .. } => {
                default.as_ref().and_then(toml_text)
            }
            FieldKind::Leaf { .. } | FieldKind::Nested { .. } => None,
        };
        let text = plain(key.doc);
        let (help, example) = match text.split_once(EXAMPLE) {
            Some((help, example)) => (help.trim_end(), Some(example.to_owned())),
            None => (text.as_str(), None),
        };
        Self {
            section: section.name.to_owned(),
            name: key.name.to_owned(),
            default,
            example,
            help: help.to_owned(),
        }
    }
}

/// Returns all keys, in the order of the sample file.
pub fn keys() -> Vec<Key> {
    sections().flat_map(|(section, keys)| keys.iter().map(|key| Key::new(section, key))).collect()
}

/// Returns the reference of all keys, for `--help`.
pub fn text() -> String {
    let mut text = String::from("Configuration keys (section.key = default):\n");
    for key in keys() {
        let value = match (&key.default, &key.example) {
            (Some(default), _) => default.clone(),
            (None, Some(example)) => format!("(not set; for example {example})"),
            (None, None) => "(not set)".to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n  {} = {value}", key.path());
        push_wrapped(&mut text, "      ", HELP_WIDTH, &key.help);
    }
    text
}

/// Returns the sample file: every key as a comment, below its help.
pub fn sample() -> String {
    let mut text = String::new();
    for paragraph in PREFACE {
        push_wrapped(&mut text, "# ", SAMPLE_WIDTH, paragraph);
    }
    for (section, keys) in sections() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n[{}]", section.name);
        push_wrapped(&mut text, "# ", SAMPLE_WIDTH, &plain(section.doc));
        for key in keys.iter().map(|key| Key::new(section, key)) {
            text.push('\n');
            push_wrapped(&mut text, "# ", SAMPLE_WIDTH, &key.help);
            let value = key.default.or(key.example).unwrap_or_default();
            let _ = writeln!(text, "#{} = {value}", key.name);
        }
    }
    text
}

/// Returns every section with its keys, as they are declared.
fn sections() -> impl Iterator<Item = (&'static Field, &'static [Field])> {
    Config::META.fields.iter().filter_map(|section| match section.kind {
        FieldKind::Nested { meta } => Some((section, meta.fields)),
        // All keys are in sections.
        FieldKind::Leaf { .. } => None,
    })
}

/// Returns a doc comment as one line, without the marks that rustdoc needs.
fn plain(doc: &[&str]) -> String {
    let words: Vec<&str> = doc.iter().flat_map(|line| line.split_whitespace()).collect();
    words.join(" ").replace('`', "")
}

fn toml_text(value: &Expr) -> Option<String> {
    toml::Value::try_from(value).ok().map(|value| value.to_string())
}

/// Adds a text in lines of at most `width` characters that all start with `indent`.
fn push_wrapped(text: &mut String, indent: &str, width: usize, paragraph: &str) {
    let mut length = 0;
    for word in paragraph.split_whitespace() {
        let needed = word.chars().count() + 1;
        if length == 0 || length + needed > width {
            if length > 0 {
                text.push('\n');
            }
            text.push_str(indent);
            length = indent.chars().count();
        } else {
            text.push(' ');
        }
        text.push_str(word);
        length += needed;
    }
    text.push('\n');
}
