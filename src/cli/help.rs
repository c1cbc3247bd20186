//! `l4lbd help`: a command's own help, or the manual page of a topic.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use super::pages::{self, Format, Page};
use super::{Cli, USAGE};

/// Columns of text where nothing says how many there are, and the most that are pleasant to read.
const USUAL_WIDTH: usize = 80;
const GREATEST_WIDTH: usize = 100;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a command, or a topic; without one all of them are listed
    #[arg(value_name = "COMMAND|TOPIC")]
    subject: Option<String>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut program = Cli::command();
        let Some(subject) = self.subject else {
            program.print_help()?;
            return Ok(ExitCode::SUCCESS);
        };
        if let Some(page) = pages::find(&subject) {
            show(page)?;
            return Ok(ExitCode::SUCCESS);
        }
        // Gives the commands their full names, as in "Usage: l4lbd status".
        program.build();
        if let Some(command) = program.find_subcommand_mut(&subject).filter(|command| !command.is_hide_set())
        {
            command.print_long_help()?;
            return Ok(ExitCode::SUCCESS);
        }
        let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
        let commands: Vec<&str> = commands.map(clap::Command::get_name).collect();
        let topics: Vec<&str> = pages::PAGES.iter().map(|page| page.topic).collect();
        writeln!(
            io::stderr(),
            "l4lbd: there is no help on {subject:?}\ncommands: {}\ntopics: {}",
            commands.join(", "),
            topics.join(", ")
        )?;
        Ok(ExitCode::from(USAGE))
    }
}

fn show(page: &Page) -> anyhow::Result<()> {
    let styled = io::stdout().is_terminal();
    let terminal = styled.then(|| terminal_size::terminal_size_of(io::stdout())).flatten();
    let terminal = terminal.map(|(width, _)| usize::from(width.0));
    let width = width(std::env::var("COLUMNS").ok().as_deref(), terminal);
    let text = pages::render(page.source, Format { width, styled }).with_context(|| page.title())?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Columns of the text: `COLUMNS` if that is a number, else the terminal's, within reason.
fn width(columns: Option<&str>, terminal: Option<usize>) -> usize {
    let columns = columns.and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    columns.or(terminal).unwrap_or(USUAL_WIDTH).clamp(20, GREATEST_WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_goes_by_columns_then_by_the_terminal() {
        assert_eq!(width(None, None), USUAL_WIDTH);
        assert_eq!(width(None, Some(66)), 66);
        assert_eq!(width(Some("72"), Some(66)), 72);
        assert_eq!(width(Some("wide"), Some(66)), 66);
        assert_eq!(width(Some("0"), None), USUAL_WIDTH);
        assert_eq!(width(None, Some(400)), GREATEST_WIDTH);
    }

    #[test]
    fn no_topic_hides_a_command() {
        let program = Cli::command();
        for page in pages::PAGES {
            assert!(program.find_subcommand(page.topic).is_none(), "{}", page.topic);
        }
    }
}
