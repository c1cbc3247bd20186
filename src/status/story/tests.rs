//! The story of a VIP, from a planner.

use super::*;
use crate::status::document::tests::Planned;

fn stories(planned: &Planned, wanted: &str) -> Stories {
    let warnings =
        ["web.marathon is odd", "web.marathon2 is odd", "other.web.marathon is odd"].map(str::to_owned);
    let skipped = Skipped { reason: "web.marathon: no place".to_owned(), ..Skipped::default() };
    planned.view().stories(wanted, (&warnings, &[skipped]), None)
}

#[test]
fn a_story_has_tasks_labels_remarks_and_what_a_connection_would_do() {
    let planned = Planned::new(&["/web:80".to_owned(), "/web:80".to_owned(), "/web:81".to_owned()]);
    for wanted in ["web.marathon:80", "web.mar*:80", "web.marathon.l4lb.example:80"] {
        let Stories { vips, total: 1, .. } = stories(&planned, wanted) else { panic!("{wanted}") };
        let [story] = vips.as_slice() else { panic!("{vips:?}") };
        assert_eq!(story.tasks_total, 2);
        let task = &story.tasks[0];
        assert_eq!(
            (task.task.as_str(), task.framework.as_str(), task.state.as_str(), task.health_by.as_str()),
            ("t\"0", "marathon", "running", "no check")
        );
        assert_eq!(task.labels, ["VIP_0=/web:80 on port default 1000/tcp"]);
        assert_eq!(story.warnings, ["web.marathon is odd"]);
        assert!(
            story.connection.starts_with("goes to one of 2 backends, chosen by wlc: 10.0.0.2:1000"),
            "{}",
            story.connection
        );
    }
    for wanted in ["web.marathon", "web.marathon.l4lb.example:80"] {
        assert_eq!(stories(&planned, wanted).skipped.len(), 1, "{wanted}");
    }
}

#[test]
fn a_task_finds_its_vips_and_nothing_finds_none() {
    let planned = Planned::new(&["/web:80".to_owned(), "/api:80".to_owned()]);
    let found = stories(&planned, "t\"1");
    assert_eq!(found.vips.len(), 1);
    assert_eq!(found.vips[0].vip.name.as_deref(), Some("api.marathon.l4lb.example"));
    assert!(found.vips[0].connection.ends_with("the only backend that takes new connections"));
    assert_eq!(stories(&planned, "t\"7").total, 0);
}

#[test]
fn many_vips_are_counted_and_the_first_are_told() {
    let labels: Vec<String> = (0..50).map(|number| format!("/web{number}:80")).collect();
    let found = stories(&Planned::new(&labels), "*");
    assert_eq!((found.vips.len(), found.total), (MOST_STORIES, 50));
}

#[test]
fn a_name_is_no_part_of_another() {
    for text in [
        "web.marathon",
        "tcp web.marathon:80 is odd",
        "see web.marathon.",
        "(web.marathon)",
        "\"web.marathon\"",
    ] {
        assert!(mentions(text, "web.marathon"), "{text}");
    }
    for text in
        ["web.marathon2", "myweb.marathon", "my.web.marathon", "web.marathon.other", "web-marathon", ""]
    {
        assert!(!mentions(text, "web.marathon"), "{text}");
    }
    assert!(!mentions("anything", ""));
}
