//! The names that are published, and what a pass changes in them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::{OpError, ServiceKey};
use crate::dns::zones::vips::NamedService;
use crate::plan::desired::{Desired, Programmed};
use crate::status::build::{held_services, named_service};

/// Names of the services in the zone that was published last.
#[derive(Debug, Default)]
pub struct PublishedNames {
    services: BTreeMap<ServiceKey, NamedService>,
    /// Names of which only the address is known, before the first document.
    addresses: BTreeSet<NamedService>,
}

/// Difference between two sets of names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NameChanges {
    pub removed: Vec<NamedService>,
    pub added: Vec<NamedService>,
}

impl NameChanges {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

impl PublishedNames {
    /// Goes on to the services of a desired state that the kernel holds, where `errors` say what it refused.
    /// The result is that of [`held_names`](crate::status::build::held_names), but only what has changed is
    /// copied.
    pub fn follow(&mut self, desired: &Desired, errors: &[OpError]) -> NameChanges {
        // A name known by its address alone comes back with its port, if the kernel holds its service.
        let mut changes = NameChanges {
            removed: std::mem::take(&mut self.addresses).into_iter().collect(),
            added: Vec::new(),
        };
        // Both are in the same order, so that one walk over them finds the differences.
        let mut known = self.services.iter().peekable();
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for (name, key, programmed) in held_services(desired, errors) {
            while let Some((before, _)) = known.next_if(|(before, _)| *before < key) {
                gone.push(*before);
            }
            match known.next_if(|(before, _)| *before == key) {
                Some((_, service)) if is_same(service, name, programmed) => {}
                other => {
                    gone.extend(other.map(|(before, _)| *before));
                    new.push((*key, named_service(name, key, programmed)));
                }
            }
        }
        gone.extend(known.map(|(before, _)| *before));
        // In this order: a service that has changed is both gone and new, under one key.
        changes.removed.extend(gone.iter().filter_map(|key| self.services.remove(key)));
        for (key, service) in new {
            changes.added.push(service.clone());
            self.services.insert(key, service);
        }
        changes
    }

    /// Returns the name of a service.
    pub fn name_of(&self, service: &ServiceKey) -> Option<&str> {
        self.services.get(service).map(|named| named.name.as_str())
    }

    /// Goes on to names of which only the address is known.
    pub fn follow_addresses(&mut self, names: BTreeSet<NamedService>) -> NameChanges {
        let mut removed: Vec<NamedService> = std::mem::take(&mut self.services).into_values().collect();
        removed.extend(self.addresses.difference(&names).cloned());
        let added = names.difference(&self.addresses).cloned().collect();
        self.addresses = names;
        NameChanges { removed, added }
    }
}

fn is_same(service: &NamedService, name: &str, programmed: &Programmed) -> bool {
    service.name == name && service.port.as_ref().is_some_and(|port| port.names == programmed.port_names)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::{Protocol, SharedMap};
    use crate::dataplane::{Op, Scheduling};
    use crate::status::build::held_names;
    use crate::vip::{Host, VipKey};

    fn scheduling() -> Scheduling {
        Scheduling { scheduler: "wlc".to_owned(), flags: 0 }
    }

    /// Desired services by port: name, or a literal, and the name of the task port.
    fn desired(services: &BTreeMap<u16, (Option<u8>, u8)>) -> Desired {
        let service = |(port, (name, port_name)): (&u16, &(Option<u8>, u8))| {
            let address = [11, 0, 0, 1].into();
            let key = ServiceKey { protocol: Protocol::Tcp, address, port: *port };
            let host = name.map_or(Host::Literal(address), |name| Host::Named(format!("n{name}")));
            let programmed = Programmed {
                vip: VipKey { host, protocol: Protocol::Tcp, port: *port },
                scheduling: scheduling(),
                servers: SharedMap::default(),
                port_names: Arc::new([format!("p{port_name}")].into()),
                weights: None,
            };
            (key, programmed.into())
        };
        Desired { services: services.iter().map(service).collect(), ..Desired::default() }
    }

    proptest! {
        #[test]
        fn published_names_are_those_that_the_kernel_holds(
            steps in prop::collection::vec(
                (
                    prop::collection::btree_map(0u16..12, (prop::option::of(0u8..4), 0u8..2), 0..10),
                    prop::collection::btree_set(0u16..12, 0..3),
                ),
                1..8,
            ),
        ) {
            let mut published = PublishedNames::default();
            let first: BTreeSet<NamedService> =
                [NamedService { name: "n0".into(), address: [11, 0, 0, 1].into(), port: None }].into();
            let mut names = BTreeSet::new();
            let take = |names: &mut BTreeSet<NamedService>, changes: NameChanges| {
                for gone in &changes.removed {
                    assert!(names.remove(gone), "{gone:?} was not there");
                }
                for new in changes.added {
                    assert!(names.insert(new), "it was there");
                }
            };
            take(&mut names, published.follow_addresses(first.clone()));
            prop_assert_eq!(&names, &first);
            for (services, refused) in steps {
                let desired = desired(&services);
                let error = |port: u16| {
                    let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port };
                    OpError { op: Op::AddService(key, scheduling()), error: String::new() }
                };
                let errors: Vec<OpError> = refused.into_iter().map(error).collect();
                take(&mut names, published.follow(&desired, &errors));
                prop_assert_eq!(&names, &held_names(&desired, &errors));
                prop_assert!(published.follow(&desired, &errors).is_empty());
            }
        }
    }
}
