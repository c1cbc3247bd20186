//! `l4lbd events`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;

use super::client::RunningDaemon;
use crate::api::client::{ClientError, fetch_json, path_of};
use crate::api::events::{AFTER, EventsAnswer, SINCE, TASK, VIP, WAIT};
use crate::status::text::line;

/// Pause before a daemon that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Go on with new events as they come, across restarts of the daemon too
    #[arg(short, long)]
    follow: bool,
    /// Show events from this time on: a length of time before now, such as 1h, or a time such as
    /// 2026-11-27T03:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Show the events of these VIPs alone: a name with or without the zone, in which * stands for any text, an
    /// address, or the id of a task that has them; each with or without ":PORT"
    #[arg(long, value_name = "VIP")]
    vip: Option<String>,
    /// Show the events of the task with this id alone
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Print JSON for programs, one event a line
    #[arg(long)]
    json: bool,
}

/// Reads a time, or a length of time before now.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let invalid =
        || format!("{text:?} is neither a length of time such as 1h nor a time such as 2026-11-27T03:00:00Z");
    let span: SignedDuration = text.parse().map_err(|_| invalid())?;
    Timestamp::now().checked_sub(span.abs()).map_err(|_| invalid())
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { daemon, follow, since, vip, task, json } = self;
        let socket = daemon.into_socket()?;
        let wanted = EventQuery { since: since.map(|time| time.to_string()), vip, task };
        super::runtime()?.block_on(async {
            let first = wanted.ask(&socket, None).await?;
            print(&first, json)?;
            if !follow {
                if first.events.is_empty() && !json {
                    writeln!(io::stderr(), "l4lbd: no such event is in the history")?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            let mut known = first.newest;
            let mut is_away = false;
            loop {
                match wanted.ask(&socket, Some(known)).await {
                    Ok(answer) => {
                        is_away = false;
                        print(&answer, json)?;
                        // Less than before where the history was removed: all of the new one is news.
                        known = if answer.newest < known { 0 } else { answer.newest };
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_away, true) {
                            line(&mut io::stderr(), format_args!("l4lbd: {error}; waiting for it"))?;
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        })
    }
}

/// Events that the user asks for.
struct EventQuery {
    since: Option<String>,
    vip: Option<String>,
    task: Option<String>,
}

impl EventQuery {
    /// Asks for the events after the known one, and waits a while if there is none.
    async fn ask(&self, socket: &Path, known: Option<u64>) -> Result<EventsAnswer, ClientError> {
        let after = known.map(|known| known.to_string());
        let parameters = [
            (SINCE, self.since.as_deref()),
            (VIP, self.vip.as_deref()),
            (TASK, self.task.as_deref()),
            (AFTER, after.as_deref()),
            (WAIT, after.as_ref().map(|_| "")),
        ];
        let (_, answer) = fetch_json(socket, Method::GET, &path_of("/events", parameters)).await?;
        Ok(answer)
    }
}

fn print(answer: &EventsAnswer, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for event in &answer.events {
        if json {
            serde_json::to_writer(&mut out, event)?;
            writeln!(out)?;
        } else {
            line(&mut out, event)?;
        }
    }
    // Who follows in a pipe waits for each line.
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_or_before_now() {
        assert_eq!(since("2026-11-27T03:00:00Z").unwrap().to_string(), "2026-11-27T03:00:00Z");
        let hour = Timestamp::now().duration_since(since("1h").unwrap());
        assert!((3_599..3_660).contains(&hour.as_secs()), "{hour}");
        for wrong in ["yesterday", "", "1", "999999999999h"] {
            assert!(since(wrong).unwrap_err().contains("such as 1h"), "{wrong}");
        }
    }
}
