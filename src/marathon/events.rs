//! Marathon's events: which tasks have ended.
//!
//! Events have no promised order and may get lost, so that they say nothing about tasks that Marathon still
//! lists. But of a task that it does not list any more, they tell whether it has ended.

use serde::Deserialize;

use crate::cluster::TaskState;
use crate::mesos::Lenient;

/// Octets of an event that is read; one about a task has some hundreds.
const MAX_LINE: usize = 65_536;

/// Lines of a stream of server-sent events, as they come.
#[derive(Debug, Default)]
pub struct EventStream {
    line: Vec<u8>,
    /// Set while the rest of a line is passed over that is too long.
    is_too_long: bool,
}

/// An event about a task.
#[derive(Deserialize)]
struct StatusUpdate {
    #[serde(rename = "eventType")]
    kind: Lenient<String>,
    #[serde(rename = "taskId")]
    task: Lenient<String>,
    #[serde(rename = "taskStatus")]
    status: Lenient<String>,
}

impl EventStream {
    /// Takes a piece of the stream. Returns the ids of tasks that ended by the events that it completes.
    pub fn push(&mut self, piece: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        for part in piece.split_inclusive(|octet| *octet == b'\n') {
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.is_too_long |= part.len() > room;
            if self.is_too_long {
                self.line.clear();
            } else {
                self.line.extend_from_slice(part);
            }
            // Of a line that was passed over as well: the next event begins behind it.
            if part.ends_with(b"\n") {
                ended.extend(ended_task(&self.line));
                self.line.clear();
                self.is_too_long = false;
            }
        }
        ended
    }
}

/// Returns the id of the task that has ended by an event, given as a line.
fn ended_task(line: &[u8]) -> Option<String> {
    // An event has other lines as well, and there are events of other kinds.
    let update: StatusUpdate = serde_json::from_slice(line.strip_prefix(b"data:")?).ok()?;
    let StatusUpdate { kind: Lenient::Read(kind), task: Lenient::Read(task), status: Lenient::Read(status) } =
        update
    else {
        return None;
    };
    let has_ended = kind == "status_update_event" && TaskState::parse(&status) == TaskState::Terminal;
    has_ended.then_some(task)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(kind: &str, task: &str, status: &str) -> String {
        format!(
            "event: {kind}\r\ndata: {{\"eventType\":\"{kind}\",\"taskId\":\"{task}\",\"taskStatus\":\"{status}\"}}\r\n\r\n"
        )
    }

    #[test]
    fn only_an_update_that_ends_a_task_tells_of_it() {
        let text = [
            event("status_update_event", "web.a", "TASK_KILLED"),
            event("status_update_event", "web.b", "TASK_RUNNING"),
            event("status_update_event", "web.c", "TASK_UNREACHABLE"),
            event("instance_changed_event", "web.d", "TASK_KILLED"),
            event("status_update_event", &"x".repeat(MAX_LINE), "TASK_KILLED"),
            "data: {\"eventType\":\"status_update_event\",\"taskId\":7,\"taskStatus\":\"TASK_KILLED\"}\n"
                .to_owned(),
            "data: {\n: a comment\ndata\n".to_owned(),
            event("status_update_event", "web.e", "TASK_FAILED"),
        ];
        assert_eq!(EventStream::default().push(text.concat().as_bytes()), ["web.a", "web.e"]);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_one_stream(sizes in prop::collection::vec(1usize..50, 1..60)) {
            let text = event("status_update_event", "web.a", "TASK_KILLED").repeat(3);
            let (mut stream, mut rest, mut ended) = (EventStream::default(), text.as_bytes(), 0);
            for size in sizes.into_iter().chain([text.len()]) {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                ended += stream.push(piece).len();
                rest = after;
            }
            prop_assert_eq!(ended, 3);
        }
    }
}
