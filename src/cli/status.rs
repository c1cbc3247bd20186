//! `l4lbd status`

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use reqwest::Method;

use super::DEGRADED;
use super::client::RunningDaemon;
use crate::api::client::{ClientError, fetch_json, status_path};
use crate::status::Status;
use crate::status::document::VipFilter;
use crate::status::text::overview::{Screen, ScreenLine, Tone, overview};
use crate::status::text::{line, write_status};
use crate::terminal::{FullScreen, UserRequest, UserRequests};

/// Pause between two questions of a status that is watched.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Print JSON for programs, as -o json
    #[arg(long, conflicts_with_all = ["output", "watch"])]
    json: bool,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "screen")]
    output: OutputForm,
    /// Compare the kernel with what it should hold first
    ///
    /// Repairs what another program has changed, and counts all connections. Without it the status tells of the
    /// last comparison, and counts connections anew if VIPs have no more than 64 backends together.
    #[arg(long)]
    compare: bool,
    /// List VIPs alone of which a backend should take connections and does not
    #[arg(long)]
    unhealthy: bool,
    /// List VIPs alone that have a backend on this agent: its id, name or address
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// List VIPs alone of this framework: its name or id
    #[arg(long, value_name = "NAME")]
    framework: Option<String>,
    /// Show it anew every 2 s, until q or Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// List the VIPs of this name or address alone
    ///
    /// A name with or without the zone behind it, in which * stands for any text, an address, or the id of a task; names
    /// and addresses with or without ":PORT". It is an error if there is none.
    #[arg(value_name = "VIP")]
    vip: Option<String>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OutputForm {
    /// Reasons with their remedies, and the VIPs that are not well, in the width of the terminal
    Screen,
    /// Everything, in lines as long as they are
    Wide,
    /// JSON for programs
    Json,
}

/// A question for the status, and the form of its answer.
struct StatusAsker {
    socket: PathBuf,
    path: String,
    lists_all: bool,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { daemon, json, output, compare, unhealthy, agent, framework, watch, vip } = self;
        let wanted = VipFilter { vip, unhealthy, agent, framework };
        let asked = StatusAsker {
            socket: daemon.into_socket()?,
            path: status_path(&wanted, compare),
            lists_all: wanted != VipFilter::default(),
        };
        let output = if json { OutputForm::Json } else { output };
        let runtime = super::runtime()?;
        if watch {
            anyhow::ensure!(
                output == OutputForm::Screen,
                "--watch shows the form \"screen\" alone; leave -o out"
            );
            return runtime.block_on(asked.watch());
        }
        let (body, status) = runtime.block_on(asked.ask(&asked.socket))?;
        if let Some(vip) = wanted.vip.as_ref().filter(|_| status.vips.is_empty()) {
            anyhow::bail!(
                "no VIP of this node has the name or address {vip:?}, or not with these filters; l4lbd status -o wide \
                 lists all of them, and skipped labels with the reason"
            );
        }
        let mut out = io::stdout().lock();
        match output {
            OutputForm::Json => {
                out.write_all(&body)?;
                writeln!(out)?;
            }
            OutputForm::Wide => write_status(&mut out, &status)?,
            OutputForm::Screen => asked.print(&mut out, &status)?,
        }
        Ok(exit_code(&status))
    }
}

fn exit_code(status: &Status) -> ExitCode {
    if status.degraded { ExitCode::from(DEGRADED) } else { ExitCode::SUCCESS }
}

impl StatusAsker {
    async fn ask(&self, socket: &Path) -> Result<(Vec<u8>, Status), ClientError> {
        fetch_json(socket, Method::GET, &self.path).await
    }

    /// Writes a status: in the size of the terminal and with colours, or plain in a pipe.
    fn print(&self, out: &mut impl Write, status: &Status) -> io::Result<()> {
        let is_terminal = io::stdout().is_terminal();
        let size = is_terminal.then(|| {
            let size = terminal_size::terminal_size_of(io::stdout());
            size.map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)))
        });
        // By the convention of no-color.org.
        let is_colored = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        for line in self.lines(status, size) {
            writeln!(out, "{}", if is_colored { line.painted() } else { line.text })?;
        }
        Ok(())
    }

    fn lines(&self, status: &Status, size: Option<(usize, usize)>) -> Vec<ScreenLine> {
        let mut lines = overview(status, Screen { size, lists_all: self.lists_all });
        if self.lists_all && status.vips.is_empty() {
            lines.push(ScreenLine { tone: Tone::Plain, text: String::new() });
            lines.push(ScreenLine { tone: Tone::Plain, text: "no VIP is like that".to_owned() });
        }
        lines
    }

    /// Shows the status again and again, until the user ends it.
    async fn watch(&self) -> anyhow::Result<ExitCode> {
        let mut requests = UserRequests::from_signals()?;
        let mut screen = FullScreen::open()?;
        screen.iter().for_each(|screen| requests.add_keys(screen));
        loop {
            let answer = self.ask(&self.socket).await;
            match &mut screen {
                Some(screen) => self.draw(screen, &answer)?,
                None => {
                    let mut out = io::stdout().lock();
                    match &answer {
                        Ok((_, status)) => self.print(&mut out, status)?,
                        Err(error) => line(&mut out, error)?,
                    }
                    writeln!(out)?;
                    out.flush()?;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                request = requests.next() => match (request, &mut screen) {
                    (UserRequest::Quit, _) => return Ok(ExitCode::SUCCESS),
                    (UserRequest::Suspend, Some(screen)) => screen.suspend()?,
                    (UserRequest::Suspend | UserRequest::Redraw, _) => {}
                }
            }
        }
    }

    fn draw(
        &self,
        screen: &mut FullScreen,
        answer: &Result<(Vec<u8>, Status), ClientError>,
    ) -> io::Result<()> {
        screen.draw(|frame| {
            let area = frame.area();
            let size = (usize::from(area.width), usize::from(area.height));
            let lines = match answer {
                Ok((_, status)) => self.lines(status, Some(size)),
                Err(error) => vec![ScreenLine { tone: Tone::Bad, text: error.to_string() }],
            };
            let lines: Vec<Line<'_>> =
                lines.into_iter().map(|line| Line::styled(line.text, style(line.tone))).collect();
            frame.render_widget(Paragraph::new(lines), area);
        })
    }
}

fn style(tone: Tone) -> Style {
    // Set to anything but nothing, it asks for no colours.
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return Style::new();
    }
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Doubtful => Style::new().fg(Color::Yellow),
        Tone::Advice => Style::new().fg(Color::Cyan),
    }
}
