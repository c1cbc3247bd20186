//! Values that a running daemon takes over from a changed file.
//!
//! For example, a file in which `source.interval` and `dns.listen` have changed gives a configuration with the new
//! interval and the old addresses, and the list of `dns.listen` alone as what needs a restart.

use confique::{Config as _, Layer as _};
use toml::{Table, Value};

use super::read::ConfigLayer;
use super::reference::{self, Key};
use super::{Config, Loaded};

/// A changed file beside the configuration with which a daemon runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    /// What the daemon runs with from now on: what it had, with the values that it takes over.
    pub running: Loaded,
    /// Keys whose values it takes over.
    pub applied: Vec<String>,
    /// Keys whose new values need a restart.
    pub pending: Vec<String>,
}

impl Reloaded {
    /// Compares what a daemon runs with with a file that was read anew.
    pub fn new(running: &Loaded, newer: &Loaded) -> Self {
        let mut values = running.values.clone();
        let (mut applied, mut pending) = (Vec::new(), Vec::new());
        for key in reference::keys() {
            // The key alone on top of what runs, so that no other change answers for it.
            let value = newer.values.get(&key.section).and_then(|section| section.get(&key.name));
            let mut single = running.values.clone();
            set(&mut single, &key, value);
            let Some(config) = Config::of(single) else { continue };
            // Another way to write the same value is no change.
            if config == running.config {
                continue;
            }
            if is_at_once(&key.section, &key.name) {
                set(&mut values, &key, value);
                applied.push(key.path());
            } else {
                pending.push(key.path());
            }
        }
        // Each value was read on its own, so that all of them together can be.
        let config = Config::of(values.clone()).unwrap_or_else(|| running.config.clone());
        Self { running: Loaded { config, remarks: newer.remarks.clone(), values }, applied, pending }
    }
}

/// Sets a key of a file, or removes it.
fn set(values: &mut Table, key: &Key, value: Option<&Value>) {
    let section = values.entry(&key.section).or_insert_with(|| Table::new().into());
    let Some(section) = section.as_table_mut() else { return };
    match value {
        Some(value) => section.insert(key.name.clone(), value.clone()),
        None => section.remove(&key.name),
    };
}

impl Config {
    /// Reads sections with values that were read before.
    fn of(values: Table) -> Option<Self> {
        let layer = values.try_into::<ConfigLayer>().ok()?;
        Self::from_layer(layer.with_fallback(confique::Layer::default_values())).ok()
    }
}

/// Keys of a section that a running daemon takes over.
enum AtOnce {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

/// Sections with keys that a running daemon takes over; of all others nothing.
const AT_ONCE: &[(&str, AtOnce)] = &[
    ("source", AtOnce::AllBut(&[])),
    ("marathon", AtOnce::AllBut(&[])),
    // The ranges decide about the address of every name, and about zones for addresses.
    ("vips", AtOnce::AllBut(&["range4", "range6", "literals_in_range"])),
    ("dataplane", AtOnce::Only(&["audit", "drain"])),
    ("ipvs", AtOnce::Only(&["scheduler", "denied"])),
    ("dns", AtOnce::Only(&["clients", "forward"])),
    ("daemon", AtOnce::Only(&["log"])),
];

/// Returns true if a running daemon takes over a key.
fn is_at_once(section: &str, name: &str) -> bool {
    AT_ONCE.iter().any(|(known, keys)| {
        *known == section
            && match keys {
                AtOnce::Only(keys) => keys.contains(&name),
                AtOnce::AllBut(keys) => !keys.contains(&name),
            }
    })
}

/// Returns the keys that a running daemon takes over, for the manual: `source.*` for all of a section.
pub fn at_once() -> Vec<String> {
    let keys = reference::keys();
    let mut listed: Vec<String> = Vec::new();
    for key in &keys {
        let of_section = || keys.iter().filter(|other| other.section == key.section);
        if of_section().all(|key| is_at_once(&key.section, &key.name)) {
            let all = format!("{}.*", key.section);
            if listed.last() != Some(&all) {
                listed.push(all);
            }
        } else if is_at_once(&key.section, &key.name) {
            listed.push(key.path());
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Loaded {
        Loaded::parse(Path::new("l4lbd.toml"), text).unwrap()
    }

    #[test]
    fn what_can_change_at_once_does_and_the_rest_is_named() {
        let before = read(
            "[source]\ninterval = \"5s\"\n[dns]\nlisten = [\"127.0.0.1:53\"]\nforward = \"system\"\n[vips]\nmax = 7\n",
        );
        let after = read(
            "[source]\ninterval = \"1s\"\n[vips]\nmax = 7\n[dataplane]\nlink = \"vips\"\naudit = \"5s\"\n[ebpf]\n",
        );
        let Reloaded { running, applied, pending } = Reloaded::new(&before, &after);
        assert_eq!(applied, ["source.interval", "dataplane.audit", "dns.forward"]);
        assert_eq!(pending, ["dataplane.link", "dns.listen"]);
        let config = &running.config;
        assert_eq!((config.dataplane.audit.0.as_secs(), config.dataplane.link.as_str()), (5, "minuteman"));
        assert_eq!(config.dns.listen, ["127.0.0.1:53".parse().unwrap()]);
        // What runs is what its values say.
        assert_eq!(Config::of(running.values.clone()).as_ref(), Some(config));
    }

    #[test]
    fn what_counts_at_once_are_keys_that_exist() {
        for (section, keys) in AT_ONCE {
            let (AtOnce::Only(names) | AtOnce::AllBut(names)) = keys;
            for name in *names {
                let is_key = |key: &Key| key.section == *section && key.name == *name;
                assert!(reference::keys().iter().any(is_key), "{section}.{name}");
            }
        }
        let listed = at_once();
        for known in ["source.*", "marathon.*", "vips.max", "daemon.log"] {
            assert!(listed.iter().any(|key| key == known), "{known} is not in {listed:?}");
        }
        assert!(!listed.iter().any(|key| key == "vips.range4"), "{listed:?}");
    }

    #[test]
    fn another_way_to_write_a_value_is_no_change() {
        let after = read("[dataplane]\naudit = \"1m\"\n[source]\ninterval = \"2s\"\n");
        let same = Reloaded::new(&read("[ipvs]\naudit = \"60s\"\n"), &after);
        assert_eq!((same.applied.len(), same.pending.len()), (0, 0));
    }

    #[test]
    fn later_reloads_count_from_what_runs() {
        let start = read("");
        let changed = read("[vips]\nmax = 9\nrange4 = \"11.0.0.0-11.0.0.255\"\n");
        let once = Reloaded::new(&start, &changed);
        assert_eq!(
            (&*once.applied, &*once.pending),
            (&["vips.max".to_owned()][..], &["vips.range4".to_owned()][..])
        );
        let again = Reloaded::new(&once.running, &changed);
        // What was taken over is no news, and what needs a restart still does.
        assert_eq!((again.applied.len(), &*again.pending), (0, &*once.pending));
        let back = Reloaded::new(&again.running, &start);
        assert_eq!((&*back.applied, back.pending.len()), (&["vips.max".to_owned()][..], 0));
        assert_eq!(back.running.config, start.config);
    }
}
