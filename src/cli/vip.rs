//! `l4lbd vip`

use std::io::{self, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use reqwest::Method;

use super::DEGRADED;
use super::client::RunningDaemon;
use crate::api::client::path_of;
use crate::api::events::{StoryAnswer, VIP};
use crate::status::text::story::write_story;
use crate::status::text::{line, section};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Name with or without the zone behind it, in which * stands for any text, an address, or the id of a task that
    /// has VIPs; names and addresses with or without ":PORT"
    #[arg(value_name = "VIP|TASK")]
    vip: String,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let path = path_of("/vip", [(VIP, Some(self.vip.as_str()))]);
        let (body, answer): (_, StoryAnswer) = self.daemon.ask(Method::GET, &path)?;
        let StoryAnswer { stories, events } = answer;
        let is_refused =
            stories.vips.iter().any(|story| story.vip.backends.iter().all(|one| one.weight == 0));
        let mut out = io::stdout().lock();
        if self.json {
            out.write_all(&body)?;
            writeln!(out)?;
        } else {
            let now = Timestamp::now();
            for (index, story) in stories.vips.iter().enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                write_story(&mut out, story, now)?;
            }
            if stories.total > stories.vips.len() {
                line(&mut out, format_args!("\n... {} VIPs in all; give more of the name", stories.total))?;
            }
            section(&mut out, "LABELS AND TASKS THAT YIELD NOTHING", &stories.skipped)?;
            section(&mut out, "LAST EVENTS", &events)?;
            out.flush()?;
        }
        if stories.vips.is_empty() {
            anyhow::bail!(
                "no VIP of this node has the name or address {:?}, and no task of this id has one; l4lbd status -o wide \
                 lists all of them, and skipped labels with the reason",
                self.vip
            );
        }
        Ok(if is_refused { ExitCode::from(DEGRADED) } else { ExitCode::SUCCESS })
    }
}
