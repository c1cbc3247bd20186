//! Sentences about the client's connections: for the screen, for lines in a pipe, and for the result at the end.

use std::time::Duration;

use super::tally::{LongLivedConnection, Tally, WindowStats};

/// Returns the line that a pipe gets every now and then.
pub fn summary(tally: &Tally, elapsed: Duration) -> String {
    let stats = tally.window(elapsed);
    let shares: Vec<String> =
        stats.shares.iter().map(|(task, share)| format!("{task} {}", percent(*share))).collect();
    let shares = if shares.is_empty() { "no answer in the last 5 s".to_owned() } else { shares.join(", ") };
    format!(
        "{:>5}  {} connections, {} failed, {}; {shares}",
        clock(elapsed),
        tally.made,
        tally.failed,
        speed(&stats),
    )
}

/// Returns the result of the whole demonstration; its last line says how many connections failed.
pub fn result(tally: &Tally, elapsed: Duration) -> Vec<String> {
    let tasks: Vec<String> = tally.by_task.iter().map(|(task, count)| format!("{task} {count}")).collect();
    let mut lines = vec![format!("answered by: {}", tasks.join(", ")), long_lived(&tally.long_lived)];
    lines.extend(stale_address(tally));
    lines.push(format!("{} connections, {} failed, in {} s", tally.made, tally.failed, elapsed.as_secs()));
    lines
}

/// Describes the long-lived connection.
pub fn long_lived(connection: &LongLivedConnection) -> String {
    let Some(task) = &connection.task else { return "long-lived connection: no answer yet".to_owned() };
    format!(
        "long-lived connection: {}, now from {task}; reopened {}",
        count(connection.answers, "answer"),
        count(connection.reopened, "time")
    )
}

/// Describes the connections that were made without an answer of the DNS server, if there were any.
pub fn stale_address(tally: &Tally) -> Option<String> {
    let connections = count(tally.stale_address, "connection");
    (tally.stale_address > 0)
        .then(|| format!("{connections} by the last known address while the daemon's DNS was down"))
}

/// Describes rate and latency.
pub fn speed(stats: &WindowStats) -> String {
    format!(
        "{:.0}/s, connect time median {}, p99 {}",
        stats.per_second,
        milliseconds(stats.median),
        milliseconds(stats.p99)
    )
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Formats minutes and seconds.
pub fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::client::ClientRecord;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        for number in 0..40 {
            let by = if number % 4 == 0 { "web-v1.3" } else { "web-v1.1" };
            let answered = ClientRecord::Answered { by: by.into(), micros: 150, stale_address: number < 2 };
            tally.add(answered, Duration::from_secs(20));
        }
        tally.add(ClientRecord::LongLivedAnswered { by: "web-v1.1".into() }, Duration::from_secs(20));
        tally
    }

    #[test]
    fn a_summary_is_one_line() {
        assert_eq!(
            summary(&tally(), Duration::from_secs(21)),
            " 0:21  40 connections, 0 failed, 8/s, connect time median 0.1 ms, p99 0.1 ms; \
             web-v1.1 75 %, web-v1.3 25 %"
        );
        assert_eq!(
            summary(&Tally::default(), Duration::from_secs(61)),
            " 1:01  0 connections, 0 failed, 0/s, connect time median 0.0 ms, p99 0.0 ms; \
             no answer in the last 5 s"
        );
    }

    #[test]
    fn the_last_line_of_the_result_says_how_many_failed() {
        assert_eq!(
            result(&tally(), Duration::from_secs(61)),
            [
                "answered by: web-v1.1 30, web-v1.3 10",
                "long-lived connection: 1 answer, now from web-v1.1; reopened 0 times",
                "2 connections by the last known address while the daemon's DNS was down",
                "40 connections, 0 failed, in 61 s",
            ]
        );
    }

    #[test]
    fn a_long_lived_connection_without_an_answer_says_so() {
        assert_eq!(long_lived(&LongLivedConnection::default()), "long-lived connection: no answer yet");
    }
}
