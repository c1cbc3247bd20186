//! Tenants: whose tasks are behind a VIP or a backend.

use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::cluster::{SharedSet, shortened};

/// An app of a framework. Under Marathon all tasks are of one framework.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenant {
    /// Id of the framework; empty if it is not known.
    pub framework: Arc<str>,
    /// Name of the framework.
    pub name: String,
    pub app: Arc<str>,
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.framework.is_empty() {
            return f.write_str("tasks that are not known");
        }
        let [app, name, id] =
            [&self.app, &*self.name, &self.framework].map(|text| shortened(text.to_owned()));
        write!(f, "the app {app:?} of the framework {name:?} ({id})")
    }
}

/// The tenants of one thing, mostly one; at least one, which may be unknown. Shared, because the tasks of an app
/// have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenants(SharedSet<Tenant>);

impl Default for Tenants {
    fn default() -> Self {
        static UNKNOWN: LazyLock<Tenants> = LazyLock::new(|| Tenants::from(Tenant::default()));
        UNKNOWN.clone()
    }
}

impl From<Tenant> for Tenants {
    fn from(tenant: Tenant) -> Self {
        Self(std::iter::once(tenant).collect())
    }
}

impl Tenants {
    /// Iterates over the tenants in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.0.iter()
    }

    /// Adds the tenants of another thing.
    pub fn join(&mut self, other: &Self) {
        // The usual case copies nothing.
        if self.0.is_copy(&other.0) {
            return;
        }
        self.0.extend(other.iter().cloned());
    }
}
