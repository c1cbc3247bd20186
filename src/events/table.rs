//! What a pass did to the table: VIPs, drains, repairs, and what the kernel refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use jiff::Timestamp;

use super::event::{EventKind, Happening, MOST};
use crate::dataplane::{Actual, Op, ServerKey, ServiceKey, State};
use crate::plan::Plan;
use crate::plan::shares::divide;
use crate::status::pass::PassReport;
use crate::store::KeptDrain;
use crate::vip::{Host, Tenant, Tenants, VipKey, summarize};

/// Findings of a repair that are told of one VIP.
const MOST_FINDINGS: usize = 4;

/// A server that is leaving, as far as its end has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedDrain {
    vip: Option<VipKey>,
    tenant: Option<Tenant>,
    task: String,
    agent: String,
}

/// Everything that a pass is told from.
#[derive(Clone, Copy)]
pub struct PassView<'a> {
    pub report: &'a PassReport,
    pub plan: &'a Plan,
    /// The kernel as it was before the operations.
    pub actual: &'a Actual,
    /// Readings of the steady and of the system's clock at one moment.
    pub clocks: (Timestamp, Timestamp),
}

impl PassView<'_> {
    /// Returns what the operations did, where the servers of `drained` had their time. `name_of` knows the names of
    /// services that the plan no longer has.
    pub fn operations(
        &self,
        drained: &BTreeSet<ServerKey>,
        name_of: &dyn Fn(&ServiceKey) -> Option<String>,
    ) -> Vec<Happening> {
        // One event for a service, however many operations concern it: an operator thinks in VIPs.
        let mut of_services: BTreeMap<&ServiceKey, Vec<&Op>> = BTreeMap::new();
        let mut beside = Vec::new();
        for op in &self.report.operations {
            match op.service() {
                Some(key) => of_services.entry(key).or_default().push(op),
                None => beside.push(op),
            }
        }
        let mut happened: Vec<Happening> = self.beside(&beside).into_iter().collect();
        // A deployment of one app may change thousands of VIPs at once.
        let tenants: Vec<Tenants> = of_services.keys().map(|key| self.tenants(key)).collect();
        let admitted = divide(&tenants.iter().collect::<Vec<_>>(), MOST).admitted;
        let left_out = admitted.iter().filter(|admitted| !**admitted).count();
        for ((key, ops), _) in of_services.iter().zip(admitted).filter(|(_, admitted)| *admitted) {
            // Before what became of the VIP, because cut connections are what clients notice.
            happened.extend(self.cut(ops, drained).map(|(server, text)| Happening {
                backend: Some(server),
                ..self.about(key, EventKind::DrainEnded, text, name_of)
            }));
            let (kind, text) = match self.report.is_repair {
                true => (EventKind::DriftRepaired, self.findings(ops)),
                false => match self.turn(key) {
                    Some((kind, text)) => (kind, text.to_owned()),
                    None => continue,
                },
            };
            happened.push(self.about(key, kind, text, name_of));
        }
        happened.extend(Happening::left_out(left_out, "VIPs changed"));
        happened
    }

    /// Returns the servers that were deleted at once although they had connections.
    fn cut(&self, ops: &[&Op], drained: &BTreeSet<ServerKey>) -> impl Iterator<Item = (SocketAddr, String)> {
        let deleted = ops.iter().filter_map(|op| match op {
            Op::DelServer(key, server) if !drained.contains(&(*key, *server)) => Some((*key, *server)),
            _ => None,
        });
        // What another program added had no connections by our doing.
        let deleted = deleted.filter(|_| !self.report.is_repair);
        let cut = deleted.filter_map(|key| Some((key.1, self.active(&key))).filter(|(_, count)| *count > 0));
        cut.map(|(server, count)| (server, format!("{server} is deleted at once: {}", cut_text(count))))
    }

    fn cause(&self) -> String {
        format!("because {}", self.report.cause)
    }

    fn tenants(&self, key: &ServiceKey) -> Tenants {
        let programmed = self.plan.desired.services.get(key);
        // Of the first backend alone: the app that has the VIP answers for its events.
        let first = programmed.and_then(|programmed| programmed.servers.values().next());
        first.map(|member| member.tenants.clone()).unwrap_or_default()
    }

    fn about(
        &self,
        key: &ServiceKey,
        kind: EventKind,
        text: String,
        name_of: &dyn Fn(&ServiceKey) -> Option<String>,
    ) -> Happening {
        // A VIP that has just gone is known by the names that were published.
        let planned = self.plan.desired.services.get(key).map(|programmed| programmed.vip.clone());
        let vip = planned.unwrap_or_else(|| VipKey {
            host: name_of(key).map_or(Host::Literal(key.address), Host::Named),
            protocol: key.protocol,
            port: key.port,
        });
        let mut what = Happening::new(kind, text).of_tenant(self.tenants(key).iter().next());
        what.vips = vec![vip];
        what.service = Some(SocketAddr::new(key.address, key.port));
        what.cause = self.cause();
        what
    }

    /// Returns how a service has begun, ended, or changed in whether it takes connections.
    fn turn(&self, key: &ServiceKey) -> Option<(EventKind, &'static str)> {
        // By weights, and not by conditions: they decide what a client meets.
        let takes = |state: &State| {
            let service = state.services.get(key)?;
            Some(service.servers.values().any(|server| server.weight > 0))
        };
        Some(match (takes(&self.actual.state), takes(&self.plan.state)) {
            (None, Some(true)) => (EventKind::VipAdded, "the VIP is new on this node, and takes connections"),
            (None, Some(false)) => (
                EventKind::VipAdded,
                "the VIP is new on this node, and refuses connections: no backend is ready",
            ),
            (Some(_), None) => (EventKind::VipRemoved, "the VIP is no longer on this node"),
            (Some(true), Some(false)) => {
                (EventKind::VipDead, "no backend takes new connections any more: they are refused")
            }
            (Some(false), Some(true)) => (EventKind::VipAlive, "a backend takes new connections again"),
            _ => return None,
        })
    }

    /// Returns what was done beside services.
    fn beside(&self, ops: &[&Op]) -> Option<Happening> {
        if ops.is_empty() {
            return None;
        }
        let (kind, text) = match self.report.is_repair {
            true => (EventKind::DriftRepaired, "another program changed what l4lbd keeps, repaired by"),
            false => (EventKind::NodeChanged, "links, routes, rules or settings were brought up to date by"),
        };
        let text = format!("{text}: {}", summarize(ops));
        Some(Happening { cause: self.cause(), ..Happening::new(kind, text) })
    }

    /// Returns what another program had made of a service.
    fn findings(&self, ops: &[&Op]) -> String {
        // A flush of a large service would fill the line with one word.
        let shown: Vec<String> =
            ops.iter().take(MOST_FINDINGS).map(|op| found(op, &self.actual.state)).collect();
        let more = match ops.len().saturating_sub(MOST_FINDINGS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("another program changed the VIP, repaired: {}{more}", shown.join(", "))
    }

    /// Returns which drains began and ended, and follows them in `known`.
    pub fn drains(
        &self,
        known: &mut BTreeMap<ServerKey, NotedDrain>,
        now: Vec<KeptDrain>,
        name_of: &dyn Fn(&ServiceKey) -> Option<String>,
    ) -> Vec<Happening> {
        let mut happened = Vec::new();
        let leaving: BTreeSet<ServerKey> = now.iter().map(|drain| (drain.service, drain.server)).collect();
        // Ended ones first: a server may leave again in the same pass.
        let gone: Vec<ServerKey> = known.keys().filter(|key| !leaving.contains(key)).copied().collect();
        for key in gone {
            if let Some(noted) = known.remove(&key) {
                happened.push(self.ended(&key, noted, name_of));
            }
        }
        for drain in now {
            let key = (drain.service, drain.server);
            if let std::collections::btree_map::Entry::Vacant(place) = known.entry(key) {
                let (noted, what) = self.begun(&drain, name_of);
                place.insert(noted);
                happened.push(what);
            }
        }
        fair(happened, "drains began or ended")
    }

    fn begun(
        &self,
        drain: &KeptDrain,
        name_of: &dyn Fn(&ServiceKey) -> Option<String>,
    ) -> (NotedDrain, Happening) {
        // Deadlines are on the steady clock, and people read the system's.
        let (steady, now) = self.clocks;
        let until = crate::units::steady::shown(drain.until, steady, now);
        let count = self.active(&(drain.service, drain.server));
        let text = match count {
            0 => format!("{} has gone, and has no connections", drain.server),
            count => {
                format!("{} has gone and keeps its {} until {until:.0}", drain.server, connections(count))
            }
        };
        let mut what = self.about(&drain.service, EventKind::DrainBegun, text, name_of);
        let member = self.plan.desired.services.get(&drain.service);
        let member = member.and_then(|programmed| programmed.servers.get(&drain.server));
        let tenant = member.and_then(|member| member.tenants.iter().next()).cloned();
        what = what.of_tenant(tenant.as_ref());
        what.backend = Some(drain.server);
        (what.task, what.agent) = (drain.task.clone(), drain.agent.clone());
        let noted = NotedDrain {
            vip: what.vips.first().cloned(),
            tenant,
            task: drain.task.clone(),
            agent: drain.agent.clone(),
        };
        (noted, what)
    }

    fn ended(
        &self,
        (service, server): &ServerKey,
        noted: NotedDrain,
        name_of: &dyn Fn(&ServiceKey) -> Option<String>,
    ) -> Happening {
        let programmed = self.plan.desired.services.get(service);
        let is_back = programmed.is_some_and(|programmed| programmed.servers.contains_key(server));
        let (kind, text) = if is_back {
            (EventKind::DrainCalledOff, format!("{server} is a backend again"))
        } else {
            let text = cut_text(self.active(&(*service, *server)));
            (EventKind::DrainEnded, format!("{server} is deleted: {text}"))
        };
        let mut what = self.about(service, kind, text, name_of).of_tenant(noted.tenant.as_ref());
        what.vips = noted.vip.map(|vip| vec![vip]).unwrap_or(what.vips);
        what.backend = Some(*server);
        (what.task, what.agent) = (noted.task, noted.agent);
        what
    }

    fn active(&self, server: &ServerKey) -> u32 {
        self.actual.connections.get(server).map(|count| count.active).unwrap_or_default()
    }
}

/// Returns as many events as are listed, in fair shares.
fn fair(happened: Vec<Happening>, things: &str) -> Vec<Happening> {
    if happened.len() <= MOST {
        return happened;
    }
    // By the words of the events themselves, since the tasks may be unknown by now.
    let tenants = happened.iter().map(|what| {
        let (framework, app) = (what.framework.as_str().into(), what.app.as_str().into());
        Tenants::from(Tenant { framework, name: String::new(), app })
    });
    let tenants: Vec<Tenants> = tenants.collect();
    let admitted = divide(&tenants.iter().collect::<Vec<_>>(), MOST).admitted;
    let left_out = Happening::left_out(happened.len() - MOST, things);
    let listed = happened.into_iter().zip(admitted).filter(|(_, admitted)| *admitted);
    listed.map(|(what, _)| what).chain(left_out).collect()
}

fn cut_text(count: u32) -> String {
    match count {
        0 => "its connections had ended".to_owned(),
        1 => "1 connection was cut".to_owned(),
        count => format!("{count} connections were cut"),
    }
}

fn connections(count: u32) -> String {
    match count {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    }
}

impl NotedDrain {
    /// A drain that an earlier run began.
    pub fn resumed(drain: &KeptDrain) -> (ServerKey, Self) {
        let noted = Self { vip: None, tenant: None, task: drain.task.clone(), agent: drain.agent.clone() };
        ((drain.service, drain.server), noted)
    }
}

/// Returns what was found where an operation repairs a service.
fn found(op: &Op, actual: &State) -> String {
    let service = |key| actual.services.get(key);
    match op {
        Op::AddService(..) => "the virtual service was missing".to_owned(),
        Op::SetService(key, wanted) => {
            let scheduler = service(key).map(|found| found.scheduling.scheduler.as_str());
            match scheduler.filter(|found| !found.is_empty() && *found != wanted.scheduler) {
                Some(found) => format!("the scheduler was {found} instead of {}", wanted.scheduler),
                None => "it had another scheduler, or other flags of it".to_owned(),
            }
        }
        Op::DelService(_) => "a virtual service was there that should not be".to_owned(),
        Op::AddServer(_, server, _) => format!("server {server} was missing"),
        Op::SetServer(key, server, wanted) => {
            let weight = service(key).and_then(|found| found.servers.get(server)).map(|found| found.weight);
            match weight.filter(|weight| *weight != wanted.weight) {
                Some(weight) => format!("server {server} had weight {weight} instead of {}", wanted.weight),
                None => format!("server {server} had another way of forwarding, or a limit"),
            }
        }
        Op::DelServer(_, server) => format!("server {server} was there that should not be"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
