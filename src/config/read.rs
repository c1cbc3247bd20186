//! From the text of a file to the values of its keys.
//!
//! Each key is read as a layer of its own and the layers are merged, so that a wrong value does not hide the next one.

use std::collections::BTreeMap;

use confique::Layer as _;
use toml::de::DeTable;
use toml::{Table, Value};

use super::reference::{self, Key};
use super::renamed::{self, WrittenNames};
use super::{Config, suggest};

/// Values of a file; unset where the file has none.
pub type ConfigLayer = <Config as confique::Config>::Layer;

/// Words of serde's errors, and the words of this file's authors for them.
const PLAIN_WORDS: &[(&str, &str)] = &[
    ("unknown variant", "unknown value"),
    ("invalid type: map,", "wrong kind of value: section,"),
    ("invalid type:", "wrong kind of value:"),
    ("invalid value:", "wrong value:"),
    ("expected u32", "expected a whole number that is not negative"),
    ("expected usize", "expected a whole number that is not negative"),
    ("expected a boolean", "expected true or false"),
    ("expected a sequence", "expected a list"),
    ("expected a string", "expected a text in quotes"),
    ("expected path string", "expected a path in quotes"),
];

/// Values of a file, and everything that is wrong with single keys of it.
pub struct ParsedFile {
    pub layer: ConfigLayer,
    pub written: WrittenNames,
    /// Sections with the values that the file sets, by their present names.
    pub values: Table,
    pub problems: Vec<String>,
}

/// Reads every key of a file.
///
/// # Errors
/// When the text is not TOML.
pub fn read(text: &str) -> Result<ParsedFile, toml::de::Error> {
    let keys = reference::keys();
    let (table, problem) = parse(text)?;
    let mut file = ParsedFile {
        layer: ConfigLayer::empty(),
        written: WrittenNames::default(),
        values: Table::new(),
        problems: Vec::from_iter(problem),
    };
    for (section, content) in table {
        match content {
            // A section without keys has no key that could be called unknown.
            Value::Table(values) if values.is_empty() && !has_section(&keys, &section) => {
                file.problems.push(format!("[{section}]: unknown section"));
            }
            Value::Table(values) => {
                for (name, value) in values {
                    file.take(&keys, &section, &name, value);
                }
            }
            value => file.take_bare(&keys, &section, value),
        }
    }
    Ok(file)
}

impl ParsedFile {
    /// Takes the value of a key in a section.
    fn take(&mut self, keys: &[Key], section: &str, name: &str, value: Value) {
        let path = format!("{section}.{name}");
        if !self.set(keys, &path, value) {
            let suggestion = suggest::suggestion(keys, section, name);
            self.problems.push(format!("{path}: unknown key{suggestion}"));
        }
    }

    /// Takes the value of a key outside of all sections, where only one old key may be.
    fn take_bare(&mut self, keys: &[Key], name: &str, value: Value) {
        if self.set(keys, name, value) {
            return;
        }
        self.problems.push(if has_section(keys, name) {
            format!("{name}: is a section and has no value; write [{name}], and its keys in the lines below")
        } else {
            let suggestion = suggest::suggestion(keys, "", name);
            format!("{name}: unknown key; keys are in sections such as [source]{suggestion}")
        });
    }

    /// Sets the key that a file calls `path`; returns false if there is no such key.
    fn set(&mut self, keys: &[Key], path: &str, value: Value) -> bool {
        let present = renamed::present(path);
        let Some(key) = keys.iter().find(|key| key.path() == present) else { return false };
        self.problems.extend(self.written.insert(present, path).err());
        if let Value::Table(values) = self.values.entry(&key.section).or_insert_with(|| Table::new().into()) {
            values.insert(key.name.clone(), value.clone());
        }
        // A document of this one key, so that serde's error can be about no other.
        let one = Table::from_iter([(key.name.clone(), value)]);
        let layer = Table::from_iter([(key.section.clone(), Value::Table(one))]).try_into::<ConfigLayer>();
        match layer {
            // A layer has no way to be changed, only to be put before another one.
            Ok(layer) => {
                let rest = std::mem::replace(&mut self.layer, ConfigLayer::empty());
                self.layer = layer.with_fallback(rest);
            }
            Err(error) => self.problems.push(format!("{path}: {}", plain(error.message()))),
        }
        true
    }
}

/// Returns the keys and sections of a file, and what is wrong with a key `dataplane` beside a section of that name.
///
/// The old key outside of all sections has the present section's name, which TOML refuses before either is looked
/// at. The file is then read without the old key, to find everything else that is wrong with it.
fn parse(text: &str) -> Result<(Table, Option<String>), toml::de::Error> {
    let error = match toml::from_str(text) {
        Ok(table) => return Ok((table, None)),
        Err(error) => error,
    };
    let is_old = |line: &str| {
        line.trim_start().strip_prefix("dataplane").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let Some(old) = top.position(is_old) else { return Err(error) };
    let rest: Vec<&str> =
        text.lines().enumerate().filter(|(line, _)| *line != old).map(|(_, line)| line).collect();
    match toml::from_str::<Table>(&rest.join("\n")) {
        Ok(table) if table.contains_key("dataplane") => {
            let problem = "dataplane: is the old name of dataplane.kind, and can't be set beside a section \
                           [dataplane]; remove dataplane, and set kind in that section";
            Ok((table, Some(problem.to_owned())))
        }
        _ => Err(error),
    }
}

/// Returns where each section and key begins in a text, by its name there; of a text that is not quite TOML, as much
/// as can be found.
pub fn places(text: &str) -> BTreeMap<String, usize> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut places = BTreeMap::new();
    for (section, content) in table.get_ref() {
        places.insert(section.get_ref().to_string(), section.span().start);
        for (name, _) in content.get_ref().as_table().into_iter().flatten() {
            places.insert(format!("{}.{}", section.get_ref(), name.get_ref()), name.span().start);
        }
    }
    places
}

/// Returns the place of a problem: that of the first key or section in front of its colon.
pub fn place_of(problem: &str, places: &BTreeMap<String, usize>) -> Option<usize> {
    let key = problem.split([':', ',']).next()?.trim_matches(['[', ']']);
    places.get(key).copied()
}

fn has_section(keys: &[Key], section: &str) -> bool {
    keys.iter().any(|key| key.section == section)
}

/// Returns serde's error in the words of people who write configuration files.
fn plain(error: &str) -> String {
    PLAIN_WORDS.iter().fold(error.to_owned(), |text, (word, plain)| text.replace(word, plain))
}
