//! `l4lbd top`

use std::future::pending;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use reqwest::Method;

use super::client::RunningDaemon;
use crate::api::client::{ClientError, fetch_json};
use crate::api::top::top_path;
use crate::status::text::Table;
use crate::status::top::{MOST_ROWS, SortKey, TopAnswer, TopQuery};
use crate::terminal::{FullScreen, UserInput, UserRequest, UserRequests};
use crate::top::model::{Focus, TopInput, TopModel};
use crate::top::view::{draw, human};

/// Time after which the picture is drawn anew although nothing has happened: it tells ages.
const TICK: Duration = Duration::from_secs(1);

/// Rows in a pipe.
const IN_PIPE: usize = 20;

/// An answer as it was sent and as it was read.
type Answered = (Vec<u8>, TopAnswer);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: RunningDaemon,
    /// Sort by this figure: open connections, new connections a second (rate), bytes a second, failed connects a
    /// second, or the name
    #[arg(short, long, value_name = "FIGURE", default_value = "rate", value_parser = sort_keys())]
    sort: SortKey,
    /// Show the smallest first
    #[arg(short, long)]
    reverse: bool,
    /// Seconds between two questions, 1 to 60
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// Print the list once, after one interval, as in a pipe
    #[arg(long)]
    once: bool,
    /// Print JSON for programs, once
    #[arg(long)]
    json: bool,
    /// VIPs to print or to send, up to 200
    #[arg(long, value_name = "N", default_value_t = IN_PIPE)]
    rows: usize,
    /// Show VIPs alone with this text in their name or address; in a pattern * stands for any text, ? for a character
    #[arg(value_name = "VIP")]
    filter: Option<String>,
}

fn sort_keys() -> impl TypedValueParser<Value = SortKey> {
    PossibleValuesParser::new(["name", "connections", "rate", "bytes", "failures"])
        .try_map(|name| name.parse::<SortKey>())
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { daemon, sort, reverse, interval, once, json, rows, filter } = self;
        let socket = daemon.into_socket()?;
        let model = TopModel::new(sort, reverse, filter.unwrap_or_default());
        let interval = Duration::from_secs(interval);
        let runtime = super::runtime()?;
        if once || json || !io::stdout().is_terminal() {
            let query = TopQuery { rows: rows.clamp(1, MOST_ROWS), ..model.query() };
            let (body, answer) = runtime.block_on(ask_twice(&socket, &query, interval))?;
            let mut out = io::stdout().lock();
            if json {
                out.write_all(&body)?;
                writeln!(out)?;
            } else {
                print(&mut out, &answer)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        runtime.block_on(watch(socket, model, interval))
    }
}

/// Asks for rates, which need two samples.
async fn ask_twice(socket: &Path, query: &TopQuery, interval: Duration) -> Result<Answered, ClientError> {
    let first = ask(socket, query).await?;
    // Somebody else may look on, and has made the daemon sample before.
    if first.1.seconds.is_some() {
        return Ok(first);
    }
    tokio::time::sleep(interval).await;
    ask(socket, query).await
}

async fn ask(socket: &Path, query: &TopQuery) -> Result<Answered, ClientError> {
    fetch_json(socket, Method::GET, &top_path(query)).await
}

/// Prints the list as lines.
fn print(out: &mut impl Write, answer: &TopAnswer) -> io::Result<()> {
    let figure = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), human);
    let mut table = Table::new(&["VIP", "SERVICE", "READY", "OPEN", "NEW/s", "IN/s", "OUT/s", "FAIL/s"]);
    for row in &answer.table.rows {
        table.row([
            row.label(),
            row.key().to_string(),
            format!("{}/{}", row.ready, row.all),
            row.open.to_string(),
            figure(row.rates.connections),
            figure(row.rates.in_bytes),
            figure(row.rates.out_bytes),
            figure(row.rates.failures),
        ]);
    }
    table.write(out)
}

/// Shows the screen until the user ends it.
async fn watch(socket: PathBuf, mut model: TopModel, interval: Duration) -> anyhow::Result<ExitCode> {
    let is_colored = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = Instant::now();
    let mut requests = UserRequests::from_signals()?;
    let Some(mut screen) = FullScreen::open()? else {
        anyhow::bail!("the keys of this terminal cannot be read; l4lbd top --once prints the list")
    };
    requests.add_keys(&screen);
    let mut asked: Option<tokio::task::JoinHandle<Result<Answered, ClientError>>> = None;
    let mut due = tokio::time::Instant::now();
    loop {
        screen.draw(|frame| draw(frame, &model, is_colored))?;
        let query = model.query();
        let may_ask = asked.is_none() && !model.is_paused;
        let answered = async {
            match &mut asked {
                Some(asking) => asking.await,
                None => pending().await,
            }
        };
        let input = tokio::select! {
            answer = answered => {
                asked = None;
                due = tokio::time::Instant::now() + interval;
                // A task fails by a panic alone.
                match answer {
                    Ok(Ok((_, answer))) => TopInput::Answered(Box::new(answer)),
                    Ok(Err(error)) => TopInput::Failed(words(&error)),
                    Err(error) => TopInput::Failed(error.to_string()),
                }
            }
            () = tokio::time::sleep_until(due), if may_ask => {
                let (socket, query) = (socket.clone(), query.clone());
                asked = Some(tokio::spawn(async move { ask(&socket, &query).await }));
                TopInput::Asked
            }
            () = tokio::time::sleep(TICK) => TopInput::Tick,
            input = requests.next_input(model.focus == Focus::Filter) => match input {
                UserInput::Request(UserRequest::Quit) => return Ok(ExitCode::SUCCESS),
                UserInput::Request(UserRequest::Suspend) => {
                    screen.suspend()?;
                    TopInput::Tick
                }
                UserInput::Request(UserRequest::Redraw) => TopInput::Tick,
                UserInput::Key(key) => TopInput::Key(key),
            },
        };
        model = model.update(input, started.elapsed());
        // Another order, filter or choice is answered at once.
        if model.query() != query {
            due = tokio::time::Instant::now();
        }
    }
}

/// Returns an error with its causes in one line.
fn words(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
