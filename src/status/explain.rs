//! Explanation: what a node would make of a document, by the same planner that its daemon uses.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::Vip;
use super::build::{held_names, table_reasons, unnamed_warnings};
use super::document::View;
use crate::cluster::belief::{Accepted, SyncState};
use crate::cluster::{Skipped, Snapshot};
use crate::dataplane::memory::SimulatedKernel;
use crate::dataplane::{Node, State};
use crate::dns::zones::vips::Zone;
use crate::plan::shares::SharedUse;
use crate::plan::{Planner, PlannerSettings};
use crate::store::Persisted;

/// Table that follows from one document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    pub vips: Vec<Vip>,
    pub skipped: Vec<Skipped>,
    /// Remarks on VIPs that work, but not as their users may expect.
    pub warnings: Vec<String>,
    /// Reasons for which the node's status would be degraded.
    pub reasons: Vec<String>,
}

/// Circumstances of the node that a document is explained for.
#[derive(Clone, Debug)]
pub struct Situation {
    pub settings: PlannerSettings,
    /// Addresses that the node has given before.
    pub persisted: Persisted,
    pub node: Node,
    /// Zone of the VIPs' names, without records, and its name.
    pub zone: Zone,
    pub origin: String,
}

/// Plans for `document` on a kernel that holds nothing yet.
pub fn explain(document: Snapshot, situation: Situation, now: Timestamp) -> Explanation {
    let Situation { settings, persisted, node, zone, origin } = situation;
    let mut planner = Planner::new(settings, persisted);
    // As a confirmed picture: there is no earlier one that could hold something back.
    let accepted = Accepted { snapshot: Arc::new(document), sync: SyncState::Synced, ..Accepted::default() };
    planner.learn(&accepted);
    let actual = SimulatedKernel::new(State::default(), node).read_now();
    let Some(plan) = planner.plan(&actual, now) else { return Explanation::default() };
    let view = View {
        plan: &plan,
        planner: &planner,
        figures: None,
        origin: &origin,
        own_scheduler: actual.node.capabilities.own_scheduler,
        clocks: (now, now),
    };
    let vips = view.vips();
    let (_, left_out) = zone.with_services(0, &held_names(&plan.desired, &[]));
    let mut warnings = plan.desired.warnings.clone();
    warnings.extend(unnamed_warnings(left_out));
    warnings.extend(plan.uses.iter().filter_map(SharedUse::warning));
    Explanation {
        vips,
        skipped: plan.desired.skipped.clone(),
        warnings,
        reasons: table_reasons(Some(&plan), planner.cluster()),
    }
}
