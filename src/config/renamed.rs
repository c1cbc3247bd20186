//! Names that keys had before, which go on working.

use std::collections::BTreeMap;

/// Old names of keys, each with the present one.
const RENAMED: &[(&str, &str)] = &[
    ("dataplane", "dataplane.kind"),
    ("ipvs.link", "dataplane.link"),
    ("ipvs.audit", "dataplane.audit"),
    ("ipvs.drain", "dataplane.drain"),
    ("ipvs.udp_timeout", "dataplane.udp_timeout"),
];

/// Returns the present name of a key.
pub fn present(path: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == path).map_or(path, |(_, new)| *new)
}

/// Keys that a file sets, with the names that it has for them.
#[derive(Debug, Default)]
pub struct WrittenNames {
    /// Names in the file, by present names.
    names: BTreeMap<String, String>,
}

impl WrittenNames {
    /// Notes that a file sets the key `present` under the name `written`.
    ///
    /// # Errors
    /// If the file has the key already, under another name.
    pub fn insert(&mut self, present: &str, written: &str) -> Result<(), String> {
        let Some(other) = self.names.insert(present.to_owned(), written.to_owned()) else { return Ok(()) };
        let old = if written == present { &other } else { written };
        Err(format!("{old}: is the old name of {present}, and both are set; remove {old}"))
    }

    /// Returns the name that the file has for the key `present`.
    pub fn name<'a>(&'a self, present: &'a str) -> &'a str {
        self.names.get(present).map_or(present, String::as_str)
    }

    /// Returns a sentence for each key that the file has under an old name.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.names.iter().filter(|(present, written)| present != written).map(|(present, written)| {
            let (section, name) = present.split_once('.').unwrap_or(("", present));
            format!(
                "{written} is called {present} now: write it as {name} in section [{section}]; the old name still \
                 works"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference;

    #[test]
    fn renamed_keys_exist_under_their_present_name_only() {
        let paths: Vec<String> = reference::keys().iter().map(reference::Key::path).collect();
        for (old, new) in RENAMED {
            assert!(paths.iter().any(|path| path == new), "{new}");
            assert!(!paths.iter().any(|path| path == old), "{old}");
        }
    }
}
