//! Values that a running daemon takes over from a changed file.
//!
//! For example, a file in which `source.interval` and `dns.listen` have changed gives a configuration with the new
//! interval and the old addresses, and the list of `dns.listen` alone as what needs a restart.

use confique::{Config as _, Layer as _};
use toml::{Table, Value};

use super::read::ConfigLayer;
use super::reference::{self, Key};
use super::{Config, DaemonSettings, Loaded};
use crate::dataplane::settings::{DataPlaneSettings, IpvsSettings};
use crate::dns::settings::DnsSettings;
use crate::vip::settings::VipSettings;

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
            if config == running.config {
                continue;
            }
            if taken_over(&running.config, &config) == config {
                set(&mut values, &key, value);
                applied.push(key.path());
            } else {
                pending.push(key.path());
            }
        }
        // Of the whole files, and not key by key: a test shows that both come to the same.
        let config = taken_over(&running.config, &newer.config);
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

/// Returns the configuration of a daemon that runs with `running` and takes over what it can of `newer`.
fn taken_over(running: &Config, newer: &Config) -> Config {
    let Config { source, marathon, vips, dataplane, ipvs, dns, daemon, .. } = newer.clone();
    let old = running.clone();
    Config {
        source,
        marathon,
        // The ranges decide about the address of every name, and about zones for addresses.
        vips: VipSettings {
            range4: old.vips.range4,
            range6: old.vips.range6,
            literals_in_range: old.vips.literals_in_range,
            ..vips
        },
        dataplane: DataPlaneSettings { audit: dataplane.audit, drain: dataplane.drain, ..old.dataplane },
        ipvs: IpvsSettings { scheduler: ipvs.scheduler, denied: ipvs.denied, ..old.ipvs },
        dns: DnsSettings { clients: dns.clients, forward: dns.forward, ..old.dns },
        daemon: DaemonSettings { log: daemon.log, ..old.daemon },
        ..old
    }
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
