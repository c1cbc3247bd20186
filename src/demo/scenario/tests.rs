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

fn snapshot(cast: &Cast) -> Snapshot {
    mesos::parse(document(cast).to_string().as_bytes(), None).unwrap()
}

/// The VIP that a document gives, as `l4lbd explain` finds it.
fn vip(cast: &Cast) -> Vip {
    let table = VipTable::new(&snapshot(cast), &LabelPolicy::default());
    assert_eq!(table.skipped, [], "{cast:?}");
    let mut vips: Vec<_> = table.vips.into_iter().collect();
    let (key, vip) = vips.pop().unwrap();
    assert_eq!((key.to_string().as_str(), vips.len()), ("tcp web.marathon:80", 0));
    vip
}

fn serving(cast: &Cast) -> BTreeSet<String> {
    vip(cast).backends.values().filter(|b| b.weight() > 0).map(|b| b.task.clone()).collect()
}

fn names(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<String> {
    numbers.into_iter().map(|number| Instance(number).to_string()).collect()
}

fn condition(cast: &Cast, instance: Instance) -> Option<Condition> {
    let address = SocketAddr::from((instance.agent().address(), instance.port()));
    vip(cast).backends.get(&address).map(|backend| backend.condition)
}

/// After the last cue of a chapter.
fn end_of(chapter: Chapter) -> Cast {
    let next = Chapter::ALL.get(chapter.number()).copied();
    let cues = SCRIPT.iter().position(|(_, cue)| next.is_some_and(|next| *cue == Cue::Begin(next)));
    Story { duration: USUAL }.cast_after(cues.unwrap_or(SCRIPT.len()))
}

/// After the first cue of this kind.
fn after(cue: Cue) -> Cast {
    let number = SCRIPT.iter().position(|(_, other)| *other == cue).unwrap();
    Story { duration: USUAL }.cast_after(number + 1)
}

#[test]
fn every_moment_has_the_backends_that_it_should_and_never_none() {
    for cues in 0..=SCRIPT.len() {
        let cast = Story { duration: USUAL }.cast_after(cues);
        let wanted: BTreeSet<String> = cast.healthy().map(|instance| instance.to_string()).collect();
        assert_eq!(serving(&cast), wanted, "after {cues} cues");
        assert!(wanted.len() >= 2, "after {cues} cues only {wanted:?}");
    }
}

#[test]
fn chapters_give_what_they_say() {
    assert_eq!(serving(&end_of(Chapter::Opening)), names([1, 2]));
    assert_eq!(serving(&end_of(Chapter::ScaleUp)), names(1..=4));
    assert_eq!(serving(&end_of(Chapter::Absence)), names(1..=4));
    assert_eq!(serving(&end_of(Chapter::Upgrade)), names(5..=8));
    assert_eq!(serving(&end_of(Chapter::Rest)), names([6, 7, 9, 10]));
    let agents: BTreeSet<Agent> = end_of(Chapter::Rest).healthy().map(Instance::agent).collect();
    assert_eq!(agents, [Agent(1), Agent(3)].into());
}

#[test]
fn who_gets_no_connections_is_seen_with_the_reason() {
    assert_eq!(condition(&after(Cue::Start(Instance(3))), Instance(3)), None);
    assert_eq!(condition(&after(Cue::Fail(Instance(2))), Instance(2)), Some(Condition::Unhealthy));
    assert_eq!(condition(&after(Cue::Stop(Instance(1))), Instance(1)), Some(Condition::Stopping));
    assert_eq!(condition(&after(Cue::End(Instance(1))), Instance(1)), None);
    assert_eq!(serving(&after(Cue::Fail(Instance(2)))), names([1, 3, 4]));
    assert_eq!(serving(&after(Cue::Lose(Agent(2)))), names([6, 7]));
    assert_eq!(condition(&after(Cue::Lose(Agent(2))), Instance(5)), None);
}

#[test]
fn an_upgrade_never_has_less_than_before() {
    let begin = SCRIPT.iter().position(|(_, cue)| *cue == Cue::Begin(Chapter::Upgrade)).unwrap();
    let end = SCRIPT.iter().position(|(_, cue)| *cue == Cue::Begin(Chapter::Loss)).unwrap();
    for cues in begin..=end {
        assert!(Story { duration: USUAL }.cast_after(cues).healthy().count() >= 4, "after {cues} cues");
    }
}

/// Instances end when they were told to, and nobody is told twice.
#[test]
fn every_life_is_in_order() {
    let mut cast = Cast::default();
    for (_, cue) in SCRIPT {
        let live = |instance: &Instance| cast.instances.get(instance).copied();
        match cue {
            Cue::Start(instance) => assert_eq!(live(instance), None, "{cue}"),
            Cue::Pass(instance) => {
                assert!(matches!(live(instance), Some(Life::Starting | Life::Unhealthy)), "{cue}");
            }
            Cue::Fail(instance) | Cue::Stop(instance) => {
                assert_eq!(live(instance), Some(Life::Healthy), "{cue}");
            }
            Cue::End(instance) => assert_eq!(live(instance), Some(Life::Stopping), "{cue}"),
            Cue::Cut(agent) => assert!(cast.lost.contains(agent), "{cue}"),
            Cue::Begin(_) | Cue::Lose(_) | Cue::KillDaemon | Cue::StartDaemon => {}
        }
        cast.perform(*cue);
    }
}

#[test]
fn a_short_story_has_all_cues_in_order_and_a_long_one_no_long_absence() {
    for duration in [SHORTEST, USUAL, Duration::from_secs(3600)] {
        let story = Story { duration };
        let times: Vec<Duration> = (0..).map_while(|number| Some(story.cue(number)?.0)).collect();
        assert_eq!(times.len(), SCRIPT.len());
        assert!(times.is_sorted());
        assert!(times.last().is_some_and(|last| *last < duration));
        assert!(story.absence() <= Duration::from_secs(2));
    }
}

/// The daemon's own planner holds nothing of the story back: no loss looks like a fault of the master.
#[test]
fn the_planner_believes_every_document() {
    let text = "[source]\nmasters = [\"file:/run/state.json\"]\n[node]\naddress = \"10.77.0.1\"\n";
    let config = Config::parse("l4lbd.toml".as_ref(), text).unwrap();
    let mut planner = Planner::new(wiring::planner(&config), Persisted::default());
    let mut belief = Belief::default();
    for cues in 0..=SCRIPT.len() {
        let cast = Story { duration: USUAL }.cast_after(cues);
        let document = Arc::new(snapshot(&cast));
        let accepted = belief.take(document, Timestamp::UNIX_EPOCH, wiring::patience(&config));
        assert!(!accepted.is_holding && accepted.held.is_empty(), "after {cues} cues");
        planner.learn(&accepted);
        let plan = planner.plan(&Actual::default(), Timestamp::UNIX_EPOCH).unwrap();
        let service = plan.state.services.values().next().unwrap();
        let weighted: BTreeSet<SocketAddr> =
            service.servers.iter().filter(|(_, server)| server.weight > 0).map(|(at, _)| *at).collect();
        let wanted: BTreeSet<SocketAddr> =
            cast.healthy().map(|i| SocketAddr::from((i.agent().address(), i.port()))).collect();
        assert_eq!(weighted, wanted, "after {cues} cues");
    }
}
