use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::cluster::Snapshot;
use crate::cluster::belief::Belief;
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::Actual;
use crate::demo::document::document;
use crate::mesos;
use crate::plan::Planner;
use crate::store::Persisted;
use crate::vip::{Condition, LabelPolicy, Vip, VipTable};

fn snapshot(cluster: &ClusterModel) -> Snapshot {
    mesos::parse(document(cluster).to_string().as_bytes(), None).unwrap()
}

/// The VIP that a document gives, as `l4lbd explain` finds it.
fn vip(cluster: &ClusterModel) -> Vip {
    let table = VipTable::new(&snapshot(cluster), &LabelPolicy::default());
    assert_eq!(table.skipped, [], "{cluster:?}");
    let (key, vip) = table.vips.iter().next().unwrap();
    assert_eq!((key.to_string().as_str(), table.vips.len()), ("tcp web.marathon:80", 1));
    Vip::clone(vip)
}

/// The cluster after so many steps.
fn cluster_after(steps: usize) -> ClusterModel {
    let mut cluster = ClusterModel::default();
    for (_, step) in STEPS.iter().take(steps) {
        cluster.apply(*step);
    }
    cluster
}

fn serving(cluster: &ClusterModel) -> BTreeSet<String> {
    vip(cluster).backends.values().filter(|b| b.weight() > 0).map(|b| b.task.to_string()).collect()
}

fn names(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<String> {
    numbers.into_iter().map(|number| InstanceId(number).to_string()).collect()
}

fn condition(cluster: &ClusterModel, instance: InstanceId) -> Option<Condition> {
    let address = SocketAddr::from((instance.agent().address(), instance.port()));
    vip(cluster).backends.get(&address).map(|backend| backend.condition)
}

/// The cluster after the last step of a phase.
fn end_of(phase: Phase) -> ClusterModel {
    let next = Phase::ALL.get(phase.number()).copied();
    let steps = STEPS.iter().position(|(_, step)| next.is_some_and(|next| *step == Step::Begin(next)));
    cluster_after(steps.unwrap_or(STEPS.len()))
}

/// The cluster after the first step of this kind.
fn after(step: Step) -> ClusterModel {
    let number = STEPS.iter().position(|(_, other)| *other == step).unwrap();
    cluster_after(number + 1)
}

#[test]
fn every_moment_has_the_healthy_instances_as_backends_and_never_none() {
    for steps in 0..=STEPS.len() {
        let cluster = cluster_after(steps);
        let wanted: BTreeSet<String> = cluster.healthy().map(|instance| instance.to_string()).collect();
        assert_eq!(serving(&cluster), wanted, "after {steps} steps");
        assert!(wanted.len() >= 2, "after {steps} steps only {wanted:?}");
    }
}

#[test]
fn phases_end_with_the_backends_that_they_announce() {
    assert_eq!(serving(&end_of(Phase::Opening)), names([1, 2]));
    assert_eq!(serving(&end_of(Phase::ScaleUp)), names(1..=4));
    assert_eq!(serving(&end_of(Phase::DaemonRestart)), names(1..=4));
    assert_eq!(serving(&end_of(Phase::Upgrade)), names(5..=8));
    assert_eq!(serving(&end_of(Phase::Closing)), names([6, 7, 9, 10]));
    let agents: BTreeSet<AgentId> = end_of(Phase::Closing).healthy().map(InstanceId::agent).collect();
    assert_eq!(agents, [AgentId(1), AgentId(3)].into());
}

#[test]
fn a_backend_without_connections_has_the_reason() {
    assert_eq!(condition(&after(Step::Start(InstanceId(3))), InstanceId(3)), None);
    assert_eq!(
        condition(&after(Step::BecomeUnhealthy(InstanceId(2))), InstanceId(2)),
        Some(Condition::Unhealthy)
    );
    assert_eq!(condition(&after(Step::Stop(InstanceId(1))), InstanceId(1)), Some(Condition::Stopping));
    assert_eq!(condition(&after(Step::End(InstanceId(1))), InstanceId(1)), None);
    assert_eq!(serving(&after(Step::BecomeUnhealthy(InstanceId(2)))), names([1, 3, 4]));
    assert_eq!(serving(&after(Step::Lose(AgentId(2)))), names([6, 7]));
    assert_eq!(condition(&after(Step::Lose(AgentId(2))), InstanceId(5)), None);
}

#[test]
fn an_upgrade_never_has_less_than_before() {
    let begin = STEPS.iter().position(|(_, step)| *step == Step::Begin(Phase::Upgrade)).unwrap();
    let end = STEPS.iter().position(|(_, step)| *step == Step::Begin(Phase::AgentLoss)).unwrap();
    for steps in begin..=end {
        assert!(cluster_after(steps).healthy().count() >= 4, "after {steps} steps");
    }
}

/// Instances end after they were told to, and none is told twice.
#[test]
fn every_instance_goes_through_its_states_in_order() {
    let mut cluster = ClusterModel::default();
    for (_, step) in STEPS {
        let state = |instance: &InstanceId| cluster.instances.get(instance).copied();
        match step {
            Step::Start(instance) => assert_eq!(state(instance), None, "{step}"),
            Step::BecomeHealthy(instance) => {
                assert!(
                    matches!(state(instance), Some(InstanceState::Starting | InstanceState::Unhealthy)),
                    "{step}"
                );
            }
            Step::BecomeUnhealthy(instance) | Step::Stop(instance) => {
                assert_eq!(state(instance), Some(InstanceState::Healthy), "{step}");
            }
            Step::End(instance) => assert_eq!(state(instance), Some(InstanceState::Stopping), "{step}"),
            Step::Disconnect(agent) => assert!(cluster.lost.contains(agent), "{step}"),
            Step::Begin(_) | Step::Lose(_) | Step::KillDaemon | Step::StartDaemon => {}
        }
        cluster.apply(*step);
    }
}

#[test]
fn a_short_scenario_has_all_steps_in_order_and_a_long_one_no_long_downtime() {
    for duration in [SHORTEST, DEFAULT_DURATION, Duration::from_secs(3600)] {
        let scenario = Scenario { duration };
        let times: Vec<Duration> = (0..).map_while(|number| Some(scenario.step(number)?.0)).collect();
        assert_eq!(times.len(), STEPS.len());
        assert!(times.is_sorted());
        assert!(times.last().is_some_and(|last| *last < duration));
        assert!(scenario.downtime() <= Duration::from_secs(2));
    }
}

/// The daemon's own planner holds nothing back: no loss of the scenario looks like a fault of the master.
#[test]
fn the_planner_believes_every_document() {
    let text = "[source]\nmasters = [\"file:/run/state.json\"]\n[node]\naddress = \"10.77.0.1\"\n";
    let config = Config::parse("l4lbd.toml".as_ref(), text).unwrap();
    let mut planner = Planner::new(wiring::planner(&config), Persisted::default());
    let mut belief = Belief::default();
    for steps in 0..=STEPS.len() {
        let cluster = cluster_after(steps);
        let document = Arc::new(snapshot(&cluster));
        let accepted = belief.take(document, Timestamp::UNIX_EPOCH, wiring::patience(&config));
        assert!(!accepted.is_holding && accepted.held.is_empty(), "after {steps} steps");
        planner.learn(&accepted);
        let plan = planner.plan(&Actual::default(), Timestamp::UNIX_EPOCH).unwrap();
        let service = plan.state.services.values().next().unwrap();
        let weighted: BTreeSet<SocketAddr> =
            service.servers.iter().filter(|(_, server)| server.weight > 0).map(|(at, _)| *at).collect();
        let wanted: BTreeSet<SocketAddr> =
            cluster.healthy().map(|i| SocketAddr::from((i.agent().address(), i.port()))).collect();
        assert_eq!(weighted, wanted, "after {steps} steps");
    }
}

/// With the time before an event and the phase's number.
#[test]
fn every_event_fits_in_80_columns() {
    for (_, step) in STEPS {
        let text = match step {
            Step::Begin(phase) => format!("59:59  [{}/{}] {phase}", phase.number(), Phase::ALL.len()),
            step => format!("59:59  {step}"),
        };
        assert!(text.len() <= 80, "{text}");
    }
}

#[test]
fn an_instance_is_found_by_its_task_and_other_tasks_are_none() {
    assert_eq!(InstanceId::of_task("web-v2.10"), Some(InstanceId(10)));
    assert_eq!(InstanceId::of_task("web-v1.10"), None);
    assert_eq!(InstanceId::of_task("web"), None);
}
