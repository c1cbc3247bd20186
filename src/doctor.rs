//! `l4lbd doctor`: what is wrong with this node, and the command that mends it.
//!
//! What belongs here: [`gather`] reads the node into [`facts`] and changes nothing; [`judge`] makes [`finding`]s of
//! them and is pure; [`connect`] walks the path of one connection. [`place`] enters network namespaces, [`files`]
//! opens what tenants write, and [`resolver`] knows what resolvers of libc make of answers. Settings come from the
//! configuration by `daemon::wiring`.

pub mod connect;
pub mod facts;
pub mod files;
pub mod finding;
pub mod gather;
pub mod judge;
pub mod place;
pub mod resolver;
pub mod settings;

use facts::ConfigFacts;
use finding::Finding;
use settings::DoctorSettings;

/// Makes every check.
pub async fn examine(settings: &DoctorSettings, config: ConfigFacts) -> Vec<Finding> {
    let facts = gather::facts(settings, config).await;
    judge::findings(settings, &facts)
}
