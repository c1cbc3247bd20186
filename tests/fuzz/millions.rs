//! Documents with more of everything than memory is worth, as a short compressed answer may be. They take seconds,
//! which the fast tests of a module must not.

use l4lbd::marathon::{MarathonInfo, MarathonView};
use l4lbd::mesos::{Format, MAX_TASKS, parse};

/// Records of skipped items that a snapshot has at most.
const MAX_SKIPPED: usize = 10_000;

/// A list of so many empty objects.
fn empty(count: usize) -> String {
    let mut list = "{},".repeat(count);
    list.pop();
    list
}

#[test]
fn a_document_stops_at_a_million_tasks_and_keeps_few_records() {
    // The bound counts the lists of all frameworks together.
    let half = empty(MAX_TASKS / 2);
    let framework = |more: &str| format!(r#"{{"id":"F","tasks":[{half}{more}]}}"#);
    let document = |more: &str| format!(r#"{{"frameworks":[{},{}]}}"#, framework(""), framework(more));
    let snapshot = parse(document("").as_bytes(), Some(Format::State)).unwrap();
    assert_eq!(snapshot.skipped.len(), MAX_SKIPPED);
    let error = parse(document(",{}").as_bytes(), Some(Format::State)).unwrap_err().to_string();
    assert!(error.contains("more than 1000000 tasks"), "{error}");
    let answer =
        format!(r#"{{"get_state":{{"get_tasks":{{"tasks":[{half}],"completed_tasks":[{half},{{}}]}}}}}}"#);
    let error = parse(answer.as_bytes(), Some(Format::V1State)).unwrap_err().to_string();
    assert!(error.contains("more than 1000000 tasks"), "{error}");
}

#[test]
fn a_document_stops_at_a_million_agents() {
    let document = format!(r#"{{"slaves":[{}],"frameworks":[]}}"#, empty(1_000_001));
    let error = parse(document.as_bytes(), Some(Format::State)).unwrap_err().to_string();
    assert!(error.contains("more than 1000000 agents"), "{error}");
}

#[test]
fn answers_of_marathon_stop_at_a_million() {
    let info = MarathonInfo::parse(br#"{"name":"marathon","version":"1.11.24","frameworkId":"F"}"#).unwrap();
    let error =
        |apps: String| MarathonView::read(&info, apps.as_bytes(), None::<&[u8]>).unwrap_err().to_string();
    let many = error(format!(r#"{{"apps":[{}]}}"#, empty(1_000_001)));
    assert!(many.contains("more than 1000000 apps, pods or tasks"), "{many}");
    let app = format!(r#"{{"id":"/a","tasks":[{}]}}"#, empty(100_000));
    let tasks = error(format!(r#"{{"apps":[{}]}}"#, vec![app; 11].join(",")));
    assert!(tasks.contains("more than 1000000"), "{tasks}");
}
