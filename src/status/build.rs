//! What a pass tells: the reasons for which an operator is needed, the numbers of VIPs, and the names that may
//! be served. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::pass::PassReport;
use super::text::age;
use super::{Counts, Status};
use crate::dataplane::firewall::{Firewall, Passage};
use crate::dataplane::{Actual, Connections, Node, Op, OpError, ServiceKey};
use crate::dns::zones::vips::{NameError, NamedService, ServicePort};
use crate::plan::desired::{Desired, Programmed};
use crate::plan::{ClusterView, Plan};
use crate::vip::{Host, summarize};

/// Errors that a status lists; all are counted.
const SHOWN_ERRORS: usize = 20;

/// Connections above which the kernel's smallest connection table gets slow, and its buckets.
const MANY_CONNECTIONS: u64 = 20_000;
const FEW_BUCKETS: u32 = 1 << 12;

/// Lists what needs an operator, the worst first.
pub fn reasons(
    status: &Status,
    plan: Option<&Plan>,
    cluster: Option<&ClusterView>,
    report: &PassReport,
    store_error: Option<&str>,
    now: Timestamp,
) -> Vec<String> {
    let mut reasons = Vec::new();
    // First, because all else may be as old as the last state.
    if let Some(failure) = &status.source.failure {
        let age = match status.source.good_at {
            Some(good) => format!("the state is {} old", age(good, now)),
            None => "there was no state since the start".to_owned(),
        };
        reasons.push(format!("source: {age}: {}", failure.error));
    } else if let Some(good) = status.source.good_at {
        // A request that hangs is no failure before its timeout.
        let overdue = status.source.overdue.iter();
        reasons.extend(overdue.map(|late| format!("source: the state is {} old: {late}", age(good, now))));
    } else {
        reasons.push("source: waiting for the first state".to_owned());
    }
    if let Some(error) = status.pass.errors.first() {
        // One line for all errors, which mostly have one cause; the JSON has the first of them.
        let more = report.error_count().saturating_sub(1);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        reasons.push(format!("kernel: {error}{more}"));
    }
    reasons.extend(status.source.held.iter().map(|held| format!("held: {held}")));
    reasons.extend(table_reasons(plan, cluster));
    let pressing = status.dns.usage.iter().filter(|usage| usage.is_pressing());
    reasons.extend(pressing.map(|usage| {
        format!("dns: nearly full, clients beyond their share are refused or closed then: {usage}")
    }));
    reasons.extend(status.dns.error.as_ref().map(|error| format!("dns: {error}")));
    reasons.extend(status.http.error.as_ref().map(|error| format!("http: {error}")));
    reasons.extend(store_error.map(|error| format!("store: {error}")));
    reasons
}

/// Lists what of the table needs an operator: it follows from the cluster, the configuration and the
/// node, whatever happened in the pass.
pub fn table_reasons(plan: Option<&Plan>, cluster: Option<&ClusterView>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(lost) = cluster.map(ClusterView::unreachable).filter(|lost| !lost.is_empty()) {
        reasons.push(format!(
            "unreachable: the master has lost the agents of all backends of {} VIPs that take connections; the \
             backends stay in use until another one is ready; check those agents: {}",
            lost.len(),
            summarize(lost)
        ));
    }
    if let Some(beyond) = plan.map(|plan| plan.beyond).filter(|beyond| *beyond > 0) {
        reasons.push(format!(
            "vips: {beyond} VIPs are left out, because there are more than vips.max; raise it"
        ));
    }
    if let Some(left_out) = plan.map(|plan| plan.left_out).filter(|left_out| *left_out > 0) {
        reasons.push(format!(
            "backends: {left_out} are left out, because the data plane holds no more; l4lbd status lists the apps \
             under SKIPPED"
        ));
    }
    if let Some(blocked) = plan.map(|plan| &plan.desired.blocked).filter(|blocked| !blocked.is_empty()) {
        reasons.push(format!(
            "blocked: virtual services of other programs have the addresses of {} VIPs, which are not served; remove \
             those services (l4lbd status lists them) or change the labels: {}",
            blocked.len(),
            summarize(blocked)
        ));
    }
    if let Some(unplaced) = plan.map(|plan| plan.unplaced).filter(|unplaced| *unplaced > 0) {
        reasons.push(format!(
            "addresses: {unplaced} names are not served, because no address is free for them; enlarge vips.range4 \
             or vips.range6 on all nodes"
        ));
    }
    reasons
}

/// Returns a warning for each name that DNS can't carry, with the reason.
pub fn unnamed_warnings(left_out: impl IntoIterator<Item = (String, NameError)>) -> Vec<String> {
    let warning = |(name, reason)| format!("{name} can only be reached by its address: the name {reason}");
    left_out.into_iter().map(warning).collect()
}

/// Lists the named services that the kernel holds, where `errors` say what it refused: name, key and service.
pub fn held_services<'d>(
    desired: &'d Desired,
    errors: &[OpError],
) -> impl Iterator<Item = (&'d str, &'d ServiceKey, &'d Programmed)> {
    // An existing service that could not be changed is in the kernel all the same, so only additions count.
    let refused: BTreeSet<ServiceKey> = errors
        .iter()
        .filter_map(|error| match &error.op {
            Op::AddService(key, _) => Some(*key),
            _ => None,
        })
        .collect();
    let held = desired.services.iter().filter(move |(key, _)| !refused.contains(key));
    held.filter_map(|(key, programmed)| match &programmed.vip.host {
        Host::Named(name) => Some((name.as_str(), key, &**programmed)),
        Host::Literal(_) => None,
    })
}

/// Returns a named service as DNS has it.
pub fn named_service(name: &str, key: &ServiceKey, programmed: &Programmed) -> NamedService {
    let names = Arc::clone(&programmed.port_names);
    let port = Some(ServicePort { protocol: key.protocol, number: key.port, names });
    NamedService { name: name.to_owned(), address: key.address, port }
}

/// The names whose services the kernel holds.
pub fn held_names(desired: &Desired, errors: &[OpError]) -> BTreeSet<NamedService> {
    held_services(desired, errors)
        .map(|(name, key, programmed)| named_service(name, key, programmed))
        .collect()
}

/// Counts the VIPs of a plan, and those of which no backend takes new connections.
pub fn counts(desired: &Desired) -> Counts {
    let is_dead =
        |programmed: &&Arc<Programmed>| programmed.servers.values().all(|backend| backend.weight() == 0);
    let dead = desired.services.values().filter(is_dead).count();
    Counts { vips: desired.services.len(), dead }
}

/// Returns a warning if the kernel's connection table is too small for its connections. That makes every packet
/// slow, and the table can't be enlarged at run time.
pub fn conntab_warning(actual: &Actual) -> Option<String> {
    conntab_text(actual.connections.values(), actual.node.connection_buckets)
}

/// Returns the same for these connections, and a table of so many buckets.
pub fn conntab_text<'c>(
    counted: impl Iterator<Item = &'c Connections>,
    buckets: Option<u32>,
) -> Option<String> {
    let connections: u64 = counted.map(|count| u64::from(count.active) + u64::from(count.inactive)).sum();
    // A plane without a table of fixed size has none to warn of.
    let buckets = buckets.filter(|buckets| *buckets <= FEW_BUCKETS)?;
    (connections > MANY_CONNECTIONS).then(|| {
        format!(
            "the kernel's table of {connections} connections has only {buckets} buckets, which makes every packet \
             slow: load ip_vs with conn_tab_bits=20"
        )
    })
}

/// Words of a warning that a firewall drops packets of containers.
pub const DROPPED: &str = "drops what containers send to";

/// Packets of containers that a firewall drops get no answer, and nothing else shows it.
pub fn dropped_warning(plan: &Plan, actual: &Actual) -> Option<String> {
    let dropped = actual.dropped.as_ref()?;
    let what = match (dropped.vips, dropped.dns) {
        (true, false) => "VIPs",
        (false, true) => "the DNS server",
        _ => "VIPs and to the DNS server",
    };
    let state = &plan.state;
    let destinations: Vec<IpNet> = state
        .routes
        .iter()
        .map(|route| route.destination)
        .chain(state.addresses.iter().copied().map(IpNet::from))
        .collect();
    Some(match passage_text(&dropped.firewalls, &actual.node, &destinations) {
        Some((names, commands)) => format!(
            "the firewall of this node ({names}) {DROPPED} {what}, so that they get no answer; \
             to let it pass: {commands}; see FIREWALLS in l4lbd-networks(7)"
        ),
        None => format!(
            "this node {DROPPED} {what}, so that they get no answer; see FIREWALLS in \
             l4lbd-networks(7)"
        ),
    })
}

/// Returns the names of firewalls, and the commands that let containers send to `destinations`; `None` without
/// a firewall or a command.
pub fn passage_text(firewalls: &[Firewall], node: &Node, destinations: &[IpNet]) -> Option<(String, String)> {
    let (links, sources) = (node.container_links(), node.container_networks());
    let passage = Passage { links: &links, sources: &sources, destinations };
    let commands: Vec<String> = firewalls.iter().flat_map(|firewall| firewall.commands(passage)).collect();
    let names: Vec<String> = firewalls.iter().map(Firewall::to_string).collect();
    (!commands.is_empty()).then(|| (names.join("; "), commands.join(" && ")))
}

/// Returns the first errors in words, as many as a status lists.
pub fn first_errors(errors: &[OpError]) -> Vec<String> {
    errors.iter().take(SHOWN_ERRORS).map(OpError::to_string).collect()
}

#[cfg(test)]
mod tests;
