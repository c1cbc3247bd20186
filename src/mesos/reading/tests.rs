//! A reader that knows the last document against one that knows nothing.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::mesos::cursor::Pieces;
use crate::mesos::{self, Format};

/// Variants of a task: with a VIP, with other parts that matter and that do not, odd ones, and no tasks.
const TASKS: usize = 21;

/// Some of them have an id in common.
fn task(variant: usize, number: usize) -> String {
    let vip = r#""discovery":{"name":"web","ports":{"ports":[{"number":80,"protocol":"tcp","labels":{"labels":
        [{"key":"VIP_0","value":"/web:80"}]}}]}}"#;
    let origin = format!(r#""id":"t{number}","framework_id":"F","slave_id":"S{}""#, number % 3);
    let running = format!(r#"{origin},"state":"TASK_RUNNING""#);
    match variant {
        0 | 1 => format!("{{{running},{vip}}}"),
        2 => format!(r#"{{{running},"restarts":{number},{vip}}}"#),
        3 => format!(r#"{{{running},"statuses":[{{"state":"TASK_RUNNING","healthy":false}}],{vip}}}"#),
        4 => format!(r#"{{{origin},"state":"TASK_STAGING",{vip}}}"#),
        5 => format!(r#"{{{origin},"state":"TASK_FINISHED",{vip}}}"#),
        6 => format!(r#"{{{origin},"state":"TASK_UNREACHABLE",{vip}}}"#),
        7 | 8 => format!(r#"{{{running},"name":"plain"}}"#),
        9 => format!(r#"{{{running},{}}}"#, vip.replace("80,", "0,")),
        10 => format!(r#"{{{running},"statuses":[7,{{"state":"TASK_RUNNING"}}],{vip}}}"#),
        11 => r#"{"id":7,"state":[]}"#.to_owned(),
        12 => "null".to_owned(),
        13 => "17".to_owned(),
        14 => format!(r#"{{{running},{}}}"#, vip.replace("web:80", "w\u{fffd}\\u00e9:80")),
        15 => format!(r#"{{"id":"{}","state":"TASK_RUNNING"}}"#, "x".repeat(2_000)),
        16 => format!(r#" {{ {running} , {vip} }} "#),
        17 => format!(r#"{{{origin},"state":"TASK_GONE"}}"#),
        18 | 19 => format!(r#"{{{running},"executor_id":"e{}",{vip}}}"#, number % 2),
        _ => format!(r#"{{{running},"executor_id":"e{}",{}}}"#, number % 2, vip.replace("VIP_0", "x")),
    }
}

/// Some of them have an id in common, ports that tasks announce, or no agent.
fn executor(variant: usize, number: usize) -> String {
    let origin = format!(r#""executor_id":"e{}","framework_id":"F""#, number % 2);
    let agent = format!(r#""slave_id":"S{}""#, number % 3);
    let ports = |ports: &str| format!(r#""resources":{{"cpus":1,"ports":"[{ports}]"}}"#);
    match variant % 6 {
        0 => format!("{{{origin},{agent},{}}}", ports("79-81")),
        1 => format!("{{{origin},{}}}", ports("80")),
        2 => format!("{{{origin},{agent},{}}}", ports("31000-31001")),
        3 => format!(r#"{{{origin},{agent},"resources":{{"cpus":{number}}}}}"#),
        4 => format!(
            r#"{{"executor_info":{{"executor_id":{{"value":"e0"}},"framework_id":{{"value":"F"}},"resources":[{{"name":
            "ports","ranges":{{"range":[{{"begin":80,"end":80}}]}}}}]}},"agent_id":{{"value":"S{}"}}}}"#,
            number % 3
        ),
        _ => r#"{"executor_id":[],"resources":7}"#.to_owned(),
    }
}

fn agent(variant: usize, number: usize) -> String {
    match variant % 4 {
        0 => format!(r#"{{"id":"S{number}","hostname":"h","pid":"slave(1)@10.0.0.{number}:5051"}}"#),
        1 => format!(
            r#"{{"id":"S{number}","hostname":"10.0.1.{number}","used_resources":{{"cpus":1.5,"mem":1}}}}"#
        ),
        2 => format!(
            r#"{{"agent_info":{{"id":{{"value":"S{number}"}},"hostname":"h"}},"allocated_resources":[{{}}]}}"#
        ),
        _ => r#"{"id":[]}"#.to_owned(),
    }
}

/// A document in the making.
#[derive(Clone, Debug, Default)]
struct Model {
    agents: Vec<String>,
    recovered: Vec<String>,
    /// Of two frameworks.
    tasks: [Vec<String>; 2],
    completed: Vec<String>,
    unreachable: Vec<String>,
    /// Tasks that old masters list apart from frameworks.
    orphans: Vec<String>,
    executors: Vec<String>,
    name: String,
    registered: u32,
    noise: u32,
}

impl Model {
    fn list(&mut self, number: usize) -> &mut Vec<String> {
        let [first, second] = &mut self.tasks;
        match number % 9 {
            8 => &mut self.executors,
            0 | 1 => first,
            2 => second,
            3 => &mut self.agents,
            4 => &mut self.recovered,
            5 => &mut self.completed,
            6 => &mut self.orphans,
            _ => &mut self.unreachable,
        }
    }

    fn text(&self, format: StateFormat) -> Vec<u8> {
        let Self {
            agents,
            recovered,
            tasks,
            completed,
            unreachable,
            orphans,
            executors,
            name,
            registered,
            noise,
        } = self;
        let list = |items: &Vec<String>| format!("[{}]", items.join(","));
        let [first, second] = tasks;
        let (agents, recovered) = (list(agents), list(recovered));
        let executors = list(executors);
        let (completed, unreachable, orphans) = (list(completed), list(unreachable), list(orphans));
        let text = match format {
            StateFormat::V0 => format!(
                r#"{{"id":"M","pid":"master@10.0.0.9:5050","noise":[{noise},"{noise}"],"slaves":{agents},
                "recovered_slaves":{recovered},"orphan_tasks":{orphans},"frameworks":[{{"id":"F","name":"{name}",
                "registered_time":{registered}.5,"offers":[{{"n":{noise}}}],
                "tasks":{},"completed_tasks":{completed},"unreachable_tasks":{unreachable}}},
                {{"id":"G","name":"other","tasks":{},"executors":{executors}}}]}}"#,
                list(first),
                list(second)
            ),
            StateFormat::V1 => format!(
                r#"{{"type":"GET_STATE","get_state":{{"get_tasks":{{"tasks":{},"orphan_tasks":{orphans},
                "completed_tasks":{completed},"unreachable_tasks":{unreachable}}},"get_agents":{{"agents":{agents},"recovered_agents":{recovered}}},
                "get_executors":{{"executors":{executors}}},"get_frameworks":{{"frameworks":[{{"offers":[{noise}],"framework_info":
                {{"id":{{"value":"F"}},"name":"{name}"}},"registered_time":{{"nanoseconds":{registered}000000000}}}},{{"framework_info":7}},{noise}]}}}}}}"#,
                list(&[first.as_slice(), second.as_slice()].concat())
            ),
        };
        // Not every octet of a document is text.
        text.replace('\u{fffd}', "\u{1}").bytes().map(|octet| if octet == 1 { 0xff } else { octet }).collect()
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Insert { list: usize, at: Index, variant: usize, number: usize },
    Remove { list: usize, at: Index },
    Replace { list: usize, at: Index, variant: usize, number: usize },
    Move { list: usize, from: Index, to: Index },
    Reverse(usize),
    Rename(bool),
    Register(u32),
    Noise(u32),
    Clear(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let item = (0usize..9, any::<Index>(), 0usize..TASKS, 0usize..40);
    prop_oneof![
        5 => item.clone().prop_map(|(list, at, variant, number)| Edit::Insert { list, at, variant, number }),
        3 => (0usize..9, any::<Index>()).prop_map(|(list, at)| Edit::Remove { list, at }),
        4 => item.prop_map(|(list, at, variant, number)| Edit::Replace { list, at, variant, number }),
        2 => (0usize..9, any::<Index>(), any::<Index>()).prop_map(|(list, from, to)| Edit::Move { list, from, to }),
        1 => (0usize..9).prop_map(Edit::Reverse),
        1 => any::<bool>().prop_map(Edit::Rename),
        1 => (0u32..3).prop_map(Edit::Register),
        2 => (0u32..4).prop_map(Edit::Noise),
        1 => (0usize..9).prop_map(Edit::Clear),
    ]
}

fn apply(model: &mut Model, edit: &Edit) {
    let item = |list: usize, variant: usize, number: usize| match list % 9 {
        8 => executor(variant, number),
        3 | 4 => agent(variant, number % 5),
        _ => task(variant, number),
    };
    match *edit {
        Edit::Insert { list, at, variant, number } => {
            let to = model.list(list);
            to.insert(at.index(to.len() + 1), item(list, variant, number));
        }
        Edit::Remove { list, at } => {
            let from = model.list(list);
            if !from.is_empty() {
                from.remove(at.index(from.len()));
            }
        }
        Edit::Replace { list, at, variant, number } => {
            let within = model.list(list);
            if !within.is_empty() {
                let at = at.index(within.len());
                within[at] = item(list, variant, number);
            }
        }
        Edit::Move { list, from, to } => {
            let within = model.list(list);
            if !within.is_empty() {
                let moved = within.remove(from.index(within.len()));
                within.insert(to.index(within.len() + 1), moved);
            }
        }
        Edit::Reverse(list) => model.list(list).reverse(),
        Edit::Rename(other) => model.name = if other { "chronos" } else { "marathon" }.to_owned(),
        Edit::Register(time) => model.registered = time,
        Edit::Noise(noise) => model.noise = noise,
        Edit::Clear(list) => model.list(list).clear(),
    }
}

/// What becomes of a document on its way.
#[derive(Clone, Debug)]
enum Damage {
    None,
    CutOff(Index),
    Octet(Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let octets = prop::sample::select(b"{}[]\",:\\0 n\x01\xff".to_vec());
    prop_oneof![
        6 => Just(Damage::None),
        1 => any::<Index>().prop_map(Damage::CutOff),
        1 => (any::<Index>(), octets).prop_map(|(place, octet)| Damage::Octet(place, octet)),
    ]
}

fn damaged(mut text: Vec<u8>, damage: &Damage) -> Vec<u8> {
    match damage {
        Damage::None => {}
        Damage::CutOff(length) => text.truncate(length.index(text.len())),
        Damage::Octet(place, octet) => {
            let place = place.index(text.len());
            text[place] = *octet;
        }
    }
    text
}

proptest! {
    #![proptest_config(crate::units::cases(192))]

    /// The definition is a reader that knows nothing.
    #[test]
    fn a_reader_that_knows_the_last_document_reads_what_one_without_memory_reads(
        start in prop::collection::vec(edit(), 0..40),
        steps in prop::collection::vec((prop::collection::vec(edit(), 0..4), damage(), 1usize..3_000), 1..12),
        is_v1: bool,
    ) {
        let (format, named) = match is_v1 {
            true => (StateFormat::V1, Format::V1State),
            false => (StateFormat::V0, Format::State),
        };
        let mut model = Model { name: "marathon".to_owned(), ..Model::default() };
        start.iter().for_each(|edit| apply(&mut model, edit));
        let mut reader = DocumentReader::default();
        let mut last: Option<Snapshot> = None;
        for (edits, damage, piece) in &steps {
            edits.iter().for_each(|edit| apply(&mut model, edit));
            let text = damaged(model.text(format), damage);
            let read = reader.read(Pieces(&text, *piece), format, false);
            let expected = mesos::parse(&text, Some(named));
            let shown = String::from_utf8_lossy(&text);
            let (Reading { snapshot, is_same, work }, expected) = match (read, expected) {
                (Ok(read), Ok(expected)) => (read, expected),
                (Err(_), Err(_)) => continue,
                (read, expected) => panic!("{read:?} but {expected:?} of {shown}"),
            };
            prop_assert_eq!(&snapshot, &expected, "{}", shown);
            prop_assert_eq!(is_same, last.as_ref() == Some(&expected), "{}", shown);
            if let Some(last) = &last {
                // What is equal is shared.
                for (key, task) in &snapshot.tasks {
                    let known = last.tasks.get(key).filter(|known| *known == task);
                    prop_assert!(known.is_none_or(|known| Arc::ptr_eq(known, task)), "{}", key.task);
                }
            }
            if edits.is_empty() && last.is_some() && matches!(damage, Damage::None) && work.parsed > 0 {
                // Only what is no item of a list, or exceeds bounds, is read again.
                let again = reader.read(text.as_slice(), format, false).unwrap();
                prop_assert!(again.is_same && again.work.parsed == 0, "{:?}", again.work);
            }
            last = Some(snapshot);
        }
    }
}

fn document(tasks: &[String]) -> String {
    format!(
        r#"{{"slaves":[{}],"frameworks":[{{"id":"F","name":"m","tasks":[{}]}}]}}"#,
        agent(0, 1),
        tasks.join(",")
    )
}

fn read(reader: &mut DocumentReader, document: &str) -> Reading {
    reader.read(document.as_bytes(), StateFormat::V0, true).unwrap()
}

/// Counted, because time depends on the machine.
#[test]
fn a_document_costs_what_changed_in_it() {
    let mut tasks: Vec<String> = (0..2_000).map(|number| task(0, number)).collect();
    let mut reader = DocumentReader::default();
    let all = tasks.len() + 1;
    let first = read(&mut reader, &document(&tasks));
    assert_eq!((first.work.parsed, first.is_same, first.snapshot.tasks.len()), (all, false, tasks.len()));
    let work = |recognised, moved, parsed| Work { recognised, moved, parsed };
    let again = read(&mut reader, &document(&tasks));
    assert_eq!((again.is_same, again.work), (true, work(all, 0, 0)));
    // Something of no interest, in one task and outside of all.
    let same = tasks[1_000].clone();
    tasks[1_000] = task(2, 1_000);
    let noisy = document(&tasks).replacen("{\"slaves\"", "{\"offers\":[{}],\"slaves\"", 1);
    let irrelevant = read(&mut reader, &noisy);
    assert_eq!((irrelevant.is_same, irrelevant.work), (true, work(all - 1, 0, 1)));
    tasks[1_000] = same;
    read(&mut reader, &document(&tasks));
    // One that changes, one that comes, one that goes.
    tasks[500] = task(3, 500);
    tasks.insert(700, task(0, 5_000));
    tasks.remove(1_500);
    let before = again.snapshot;
    let changed = read(&mut reader, &document(&tasks));
    assert_eq!(changed.work.parsed, 2);
    assert_eq!(changed.work.recognised, all - 2);
    assert_eq!(before.tasks.changes(&changed.snapshot.tasks).count(), 3);
    // All in another order: nothing is parsed.
    tasks.reverse();
    let reversed = read(&mut reader, &document(&tasks));
    assert_eq!((reversed.is_same, reversed.work.parsed), (true, 0));
}

#[test]
fn a_document_that_is_cut_off_does_not_cost_what_is_known() {
    let tasks: Vec<String> = (0..100).map(|number| task(0, number)).collect();
    let mut reader = DocumentReader::default();
    let whole = document(&tasks);
    read(&mut reader, &whole);
    assert!(reader.read(&whole.as_bytes()[..whole.len() / 2], StateFormat::V0, true).is_err());
    let again = read(&mut reader, &whole);
    assert_eq!((again.is_same, again.work.parsed), (true, 0));
}

#[test]
fn a_document_that_hides_tasks_is_refused_and_leaves_no_trace() {
    let capture = |name: &str| {
        std::fs::read(format!("{}/tests/fixtures/captures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    for hiding in ["master_state_acl_view_tasks_none.json", "master_state_acl_filtered.json"] {
        let mut reader = DocumentReader::default();
        let known = capture("master_state.json");
        let before = reader.read(known.as_slice(), StateFormat::V0, true).unwrap().snapshot;
        for _ in 0..2 {
            let error = reader.read(capture(hiding).as_slice(), StateFormat::V0, true).unwrap_err();
            assert!(matches!(error, Error::Hidden), "{hiding}: {error}");
        }
        let again = reader.read(known.as_slice(), StateFormat::V0, true).unwrap();
        assert!(again.is_same && again.snapshot == before, "{hiding}");
    }
    for (whole, format) in [
        ("master_state.json", StateFormat::V0),
        ("master_state_after_failover.json", StateFormat::V0),
        ("agent_state.json", StateFormat::V0),
        ("v1_master_get_state.json", StateFormat::V1),
    ] {
        DocumentReader::default().read(capture(whole).as_slice(), format, true).unwrap();
    }
}

#[test]
fn an_idle_cluster_and_idle_executors_hide_nothing() {
    let is_hidden = |document: &str, format| {
        let read = DocumentReader::default().read(document.as_bytes(), format, true);
        matches!(read, Err(Error::Hidden))
    };
    let v0 = |cpus: &str, frameworks: &str| {
        let slave = format!(r#"{{"id":"S","used_resources":{{"cpus":{cpus},"mem":0.0}}}}"#);
        is_hidden(&format!(r#"{{"slaves":[{slave}],"frameworks":[{frameworks}]}}"#), StateFormat::V0)
    };
    assert!(!v0("0.0", "") && v0("1.0", ""));
    assert!(!v0("1.0", r#"{"tasks":[],"executors":[{}]}"#) && !v0("1.0", r#"{"tasks":[{}]}"#));
    let v1 = |tasks: &str, allocated: &str| {
        let agent =
            format!(r#"{{"agent_info":{{"id":{{"value":"S"}}}},"allocated_resources":[{allocated}]}}"#);
        is_hidden(
            &format!(r#"{{"get_state":{{"get_tasks":{{{tasks}}},"get_agents":{{"agents":[{agent}]}}}}}}"#),
            StateFormat::V1,
        )
    };
    assert!(v1("", "{}") && !v1("", "") && !v1(r#""pending_tasks":[{}]"#, "{}"));
}

/// As if a tenant had written them.
#[test]
fn more_records_than_are_kept_are_those_of_a_reader_without_memory() {
    let odd = |number: usize| {
        let labels = vec!["7"; 100].join(",");
        format!(
            r#"{{"id":"t{number}","framework_id":"F","slave_id":"S","state":"TASK_RUNNING","discovery":{{"ports":
            {{"ports":[{{"number":80,"protocol":"tcp","labels":{{"labels":[{labels}]}}}}]}}}}}}"#
        )
    };
    let mut tasks: Vec<String> = (0..240).map(odd).collect();
    let mut reader = DocumentReader::default();
    for _ in 0..4 {
        let text = document(&tasks);
        let expected = mesos::parse(text.as_bytes(), Some(Format::State)).unwrap();
        assert_eq!(read(&mut reader, &text).snapshot, expected);
        assert!(reader.known.iter().map(|item| item.facts.skipped().len()).sum::<usize>() <= MAX_SKIPPED);
        tasks.drain(..30);
        tasks.insert(20, odd(1_000 + tasks.len()));
    }
}

#[test]
fn a_hostile_item_costs_itself() {
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(ITEM.length));
    let many = format!(r#"{{"statuses":[{}0]}}"#, "0,".repeat(ITEM.values + 1));
    let mut reader = DocumentReader::default();
    for _ in 0..2 {
        let read =
            read(&mut reader, &document(&[task(0, 1), long.clone(), task(0, 2), many.clone(), task(0, 3)]));
        assert_eq!(read.snapshot.tasks.len(), 3);
        let reasons: Vec<&str> =
            read.snapshot.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
        assert!(
            reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("which is left out")),
            "{reasons:?}"
        );
    }
}
