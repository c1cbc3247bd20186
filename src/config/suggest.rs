//! Keys that a misspelt one may have been meant to be.

use super::reference::Key;

/// Most keys that are suggested for one that does not exist.
const MOST: usize = 3;

/// Fewest letters of a name that is found as a part of another one.
const FEWEST: usize = 4;

/// Returns a question for the end of an error, such as `; did you mean dns.ttl?`; empty if no key is like
/// `name` in `section`, which is empty for a key outside of all sections.
///
/// For example `source.intervall` is answered by the same section's `source.interval`, and `vips.audit` by the
/// key of that name in another section, `dataplane.audit`.
pub fn suggestion(keys: &[Key], section: &str, name: &str) -> String {
    let in_section = |key: &&Key| distance(&key.section, section).is_some();
    // A slip of the pen is likelier than a wrong section, and a wrong section likelier than both.
    let found = nearest(keys.iter().filter(in_section), name)
        .or_else(|| nearest(keys.iter().filter(|key| key.name == name), name))
        .or_else(|| nearest(keys.iter(), name))
        .unwrap_or_default();
    let paths: Vec<String> = found.iter().take(MOST).map(|key| key.path()).collect();
    match paths.split_last() {
        None => String::new(),
        Some((last, [])) => format!("; did you mean {last}?"),
        Some((last, first)) => format!("; did you mean {} or {last}?", first.join(", ")),
    }
}

/// Returns the keys whose names are nearest to `name`; `None` if no name is like it.
fn nearest<'a>(keys: impl Iterator<Item = &'a Key>, name: &str) -> Option<Vec<&'a Key>> {
    let near: Vec<(usize, &Key)> =
        keys.filter_map(|key| distance(&key.name, name).map(|distance| (distance, key))).collect();
    // Equally near ones are all told: which was meant is for the author to say.
    let least = near.iter().map(|(distance, _)| *distance).min()?;
    Some(near.into_iter().filter(|(distance, _)| *distance == least).map(|(_, key)| key).collect())
}

/// Returns how many letters differ; `None` if the words are not alike.
fn distance(word: &str, written: &str) -> Option<usize> {
    let distance = strsim::osa_distance(word, written);
    let is_part = written.len() >= FEWEST && word.contains(written);
    (is_part || distance <= written.chars().count() / 3).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::keys;

    #[test]
    fn suggestion_is_the_key_that_was_meant() {
        for (section, name, meant) in [
            ("source", "intervall", "source.interval"),
            ("source", "intreval", "source.interval"),
            ("source", "hold", "source.failover_hold"),
            ("sorce", "masters", "source.masters"),
            ("marathon", "url", "marathon.urls"),
            ("vips", "audit", "dataplane.audit"),
            ("ipvs", "drains", "dataplane.drain"),
            ("logging", "socket", "daemon.socket"),
            ("", "masters", "source.masters"),
            ("", "ttl", "dns.ttl"),
        ] {
            let suggested = suggestion(&keys(), section, name);
            assert_eq!(suggested, format!("; did you mean {meant}?"), "{section}.{name}");
        }
    }

    #[test]
    fn suggestion_names_every_section_that_has_the_key() {
        let suggested = suggestion(&keys(), "vips", "interval");
        assert_eq!(suggested, "; did you mean source.interval or marathon.interval?");
    }

    #[test]
    fn suggestion_is_empty_for_a_name_like_no_other() {
        for (section, name) in [("source", "colour"), ("", "typo"), ("", ""), ("source", "")] {
            assert_eq!(suggestion(&keys(), section, name), "", "{section}.{name}");
        }
    }
}
