//! `l4lbd reload`

use std::io::{self, Write};
use std::process::ExitCode;

use reqwest::Method;

use super::USAGE;
use super::client::RunningDaemon;
use crate::api::client::fetch_json;
use crate::api::reload::ReloadAnswer;
use crate::status::text::line;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (socket, warnings) = self.daemon.find_socket()?;
        let asked = super::runtime()?.block_on(fetch_json::<ReloadAnswer>(&socket, Method::POST, "/reload"));
        // The daemon's answer has the same errors, unless it has read another file.
        if asked.as_ref().map_or(true, |(_, answer)| answer.error.is_none()) {
            warnings.print()?;
        }
        let (body, answer) = asked?;
        let ReloadAnswer { error, applied, pending, remarks } = answer;
        // For scripts, the same code as of check.
        let code = if error.is_some() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        if self.json {
            io::stdout().write_all(&body)?;
            writeln!(io::stdout())?;
            return Ok(code);
        }
        if let Some(error) = error {
            for text in error.lines() {
                line(&mut io::stderr(), format_args!("l4lbd: {text}"))?;
            }
            line(&mut io::stderr(), format_args!("l4lbd: nothing has changed"))?;
            return Ok(code);
        }
        if applied.is_empty() && pending.is_empty() {
            line(&mut io::stdout(), format_args!("nothing has changed in the configuration"))?;
        }
        if !applied.is_empty() {
            line(&mut io::stdout(), format_args!("in effect: {}", applied.join(", ")))?;
        }
        if !pending.is_empty() {
            let keys = pending.join(", ");
            line(&mut io::stdout(), format_args!("after a restart: {keys} (systemctl restart l4lbd)"))?;
        }
        for remark in remarks {
            line(&mut io::stdout(), format_args!("{remark}"))?;
        }
        Ok(code)
    }
}
