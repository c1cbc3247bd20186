//! Documents with more of everything than memory is worth.

use crate::mesos::items::MAX_TASKS;
use crate::mesos::skip::MAX_SKIPPED;
use crate::mesos::{Format, parse};

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
