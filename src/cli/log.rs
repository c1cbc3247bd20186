//! The log on standard error, which never blocks or ends the program.
//!
//! Lines go through a bounded queue to a thread, the only place that writes. Where standard error takes no more, lines
//! are lost. They are counted, and the count is logged when it works again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config;
use crate::daemon::{SetLog, ShowProgress};
use crate::status::text::escape::escaped;
use crate::status::text::overview::cut;

/// Variable of the environment with the levels of the log.
const VARIABLE: &str = "L4LBD_LOG";

/// Lines that wait for the thread; further ones are lost.
const MAX_LINES: usize = 1024;

/// Bytes of a line; longer ones are cut.
const MAX_BYTES: usize = 16 << 10;

/// Pause between two attempts to tell how many lines were lost.
const RETRY: Duration = Duration::from_secs(1);

/// Pause before a non-blocking pipe that is full is tried again.
const FULL_PIPE: Duration = Duration::from_millis(20);

/// Sequence that clears the terminal from the cursor to the end of the line.
const CLEAR: &str = "\x1b[K";

/// Longest wait for the queue at the end of the program.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Starts to log to standard error, at the configured levels unless `L4LBD_LOG` says otherwise. Panics are logged as
/// well. Returns a function that sets other levels, and one that shows a line below the log on a terminal.
pub fn start(levels: &str) -> (LogGuard, SetLog, ShowProgress) {
    let variable = std::env::var(VARIABLE).ok();
    let chosen = variable.as_deref().and_then(config::levels);
    let is_chosen = chosen.is_some();
    let (filter, handle) = reload::Layer::new(chosen.unwrap_or_else(|| filter_of(levels)));
    // The journal has its own times and no colours.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let is_terminal = !is_journal && io::IsTerminal::is_terminal(&io::stderr());
    let is_colored = is_terminal;
    // A descriptor of our own: a thread that is blocked in a write must not hold the lock of standard error.
    let output = io::stderr().as_fd().try_clone_to_owned().map(File::from).ok();
    let queue = LogQueue::new(output, is_colored);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(queue.clone())
        .with_target(false)
        .with_ansi(is_colored)
        // They would be printed to standard error, with a panic if that fails.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    if is_journal {
        registry.with(lines.without_time()).init();
    } else {
        registry.with(lines).init();
    }
    if let Some(variable) = variable.filter(|_| !is_chosen) {
        tracing::warn!(
            "{VARIABLE}={variable:?} is no list of levels such as info or info,l4lbd::dns=debug, so daemon.log holds"
        );
    }
    let panics = queue.clone();
    // The usual hook writes to standard error, and blocks where that does.
    std::panic::set_hook(Box::new(move |panic| panics.push(&format!("ERROR {panic}"))));
    let set = move |levels: &str| {
        if is_chosen {
            return tracing::info!("daemon.log has no effect while L4LBD_LOG is set");
        }
        // Fails only after the end of the log.
        let _ = handle.reload(filter_of(levels));
    };
    let shown = queue.clone();
    let show = move |text: Option<&str>| {
        if is_terminal {
            shown.show(text);
        }
    };
    (LogGuard(queue), Box::new(set), Box::new(show))
}

/// Returns the filter for levels from the configuration, which are valid.
fn filter_of(levels: &str) -> Targets {
    // A client that logs each attempt to connect; first, so that levels can say otherwise.
    config::levels(&format!("zookeeper_client=warn,{levels}")).unwrap_or_default()
}

/// Prints a line to standard error; gives up after a moment where that blocks.
pub fn print(text: String) {
    let (done, printed) = sync_channel(1);
    let printing = thread::Builder::new().spawn(move || {
        // Nothing can be done about a closed terminal.
        let _ = writeln!(io::stderr(), "{text}");
        let _ = done.send(());
    });
    if printing.is_ok() {
        let _ = printed.recv_timeout(RETRY);
    }
}

/// Keeps the log; waits for lines that are not written yet when it is dropped.
pub struct LogGuard(LogQueue);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let until = Instant::now() + LAST_WAIT;
        let (done, written) = sync_channel(1);
        // A full queue takes the mark as soon as there is room.
        while let Err(error) = self.0.lines.try_send(Entry::Mark(done.clone())) {
            if matches!(error, TrySendError::Disconnected(_)) || Instant::now() >= until {
                return;
            }
            thread::sleep(FULL_PIPE);
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Entry of the queue.
enum Entry {
    Line(String),
    /// The line below the log; empty for none.
    Below(String),
    /// Asks for an answer when everything before it is written or lost.
    Mark(SyncSender<()>),
}

/// The queue's end that the program writes to.
#[derive(Clone)]
struct LogQueue {
    lines: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
    /// Set where colours are written.
    is_colored: bool,
}

impl LogQueue {
    /// Starts the thread that writes to `output`; without one all lines are lost.
    fn new(output: Option<File>, is_colored: bool) -> Self {
        let (lines, receiver) = sync_channel(MAX_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        if let Some(output) = output {
            let lost = Arc::clone(&lost);
            let writer = LogWriter { output, lost, is_torn: false, below: String::new() };
            // Without a thread the queue has no receiver, and every line is lost.
            let _ = thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&receiver));
        }
        Self { lines, lost, is_colored }
    }

    /// Shows a line below the log from now on, or none.
    fn show(&self, text: Option<&str>) {
        let columns = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0);
        let line = escaped(text.unwrap_or_default()).into_owned();
        // One that is as wide as the terminal could not be taken away again.
        let room = usize::from(columns).saturating_sub(1);
        // It is outdated soon, so that one which finds no room is no loss.
        let _ = self.lines.try_send(Entry::Below(cut(&line, room)));
    }

    /// Queues the text as one line, or counts it as lost.
    fn push(&self, text: &str) {
        let text = text.trim_end_matches('\n');
        let end = (0..=text.len().min(MAX_BYTES)).rev().find(|end| text.is_char_boundary(*end));
        let cut = text.get(..end.unwrap_or_default()).unwrap_or_default();
        let mut line = if self.is_colored { escaped_but_colors(cut) } else { escaped(cut).into_owned() };
        line.push_str(if cut.len() < text.len() { "...\n" } else { "\n" });
        if self.lines.try_send(Entry::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Escapes a line except for the sequences that set colours.
fn escaped_but_colors(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut text = escaped(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let digits = part.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';');
        text.push_str(if digits.starts_with('m') { "\x1b[" } else { "\\u{1b}[" });
        text.push_str(&escaped(part));
    }
    text
}

impl Write for LogQueue {
    /// Takes one event: the formatter writes each as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.push(&String::from_utf8_lossy(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The queue's end that writes.
struct LogWriter {
    output: File,
    lost: Arc<AtomicU64>,
    /// Set when the last line was written in part.
    is_torn: bool,
    /// Line below the log, which each line of it moves down.
    below: String,
}

impl LogWriter {
    fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            // Lost lines are told also when nothing else happens.
            let entry = match self.lost.load(Ordering::Relaxed) {
                0 => entries.recv().map_err(|_| RecvTimeoutError::Disconnected),
                _ => entries.recv_timeout(RETRY),
            };
            self.tell_lost();
            match entry {
                Ok(Entry::Line(line)) => {
                    if self.write(&line).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Entry::Below(line)) => {
                    let before = std::mem::replace(&mut self.below, line);
                    if before != self.below {
                        // Takes the one before away, and leaves the cursor where the next line begins.
                        let _ = self.put(&format!("\r{CLEAR}{}", self.below));
                    }
                }
                Ok(Entry::Mark(done)) => drop(done.try_send(())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes how many lines were lost, if any were.
    fn tell_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        let told = format!(" WARN {lost} lines of this log were lost, because standard error took no more\n");
        if lost > 0 && self.write(&told).is_ok() {
            // Not set to 0: more may have been lost meanwhile.
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        }
    }

    /// Writes a line; waits as long as it takes while the reader is slow.
    fn write(&mut self, line: &str) -> io::Result<()> {
        // A full disk may have taken the beginning of the line before.
        let start = if self.is_torn { "\n" } else { "" };
        if self.below.is_empty() {
            return self.put(&format!("{start}{line}"));
        }
        self.put(&format!("{start}\r{CLEAR}{line}{}", self.below))
    }

    /// Writes text as it is.
    fn put(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Standard error may be a pipe that some other process has made non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(FULL_PIPE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    fn log(flags: OFlag) -> (File, LogQueue) {
        let (reader, writer) = pipe2(flags).unwrap();
        (reader.into(), LogQueue::new(Some(writer.into()), false))
    }

    /// Reads until all of this has come.
    fn read_until(reader: &mut File, wanted: &str) -> String {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        while !String::from_utf8_lossy(&text).contains(wanted) {
            match reader.read(&mut part) {
                Ok(read) => text.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_whole_escaped_and_written_before_the_end() {
        let (mut reader, queue) = log(OFlag::empty());
        queue.push("first\n");
        queue.push("a\x1b[2J\nb");
        queue.push(&"x".repeat(MAX_BYTES + 1));
        drop(LogGuard(queue));
        let text = read_until(&mut reader, "...\n");
        assert!(text.starts_with("first\na\\u{1b}[2J\\u{a}b\nxxx"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn colors_stay_and_nothing_else() {
        assert_eq!(
            escaped_but_colors("\x1b[32mok\x1b[0m\x1b[2J\x1b]0;x"),
            "\x1b[32mok\x1b[0m\\u{1b}[2J\\u{1b}]0;x"
        );
    }

    #[test]
    fn a_stalled_reader_blocks_nothing_and_hears_of_lost_lines() {
        for flags in [OFlag::empty(), OFlag::O_NONBLOCK] {
            let (mut reader, queue) = log(flags);
            // Many times what the pipe and the queue hold.
            for number in 0..4 * MAX_LINES {
                queue.push(&format!("{number} {}", "x".repeat(200)));
            }
            let text = read_until(&mut reader, "lines of this log were lost");
            // The count comes first where the thread started only after the queue was full.
            if !text.contains("0 xxx") {
                read_until(&mut reader, "0 xxx");
            }
        }
    }

    #[test]
    fn a_reader_that_goes_ends_nothing() {
        let (reader, queue) = log(OFlag::empty());
        drop(reader);
        queue.push("lost");
        drop(LogGuard(queue.clone()));
        assert_eq!(queue.lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_line_below_the_log_stays_below_it_and_goes() {
        let (mut reader, queue) = log(OFlag::empty());
        queue.show(Some("half done"));
        queue.push("news");
        queue.show(None);
        queue.push("more");
        drop(LogGuard(queue));
        let text = read_until(&mut reader, "more\n");
        let expected = "\r\x1b[Khalf done\r\x1b[Knews\nhalf done\r\x1b[Kmore\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_standard_error_lines_are_lost() {
        let queue = LogQueue::new(None, false);
        queue.push("lost");
        assert_eq!(queue.lost.load(Ordering::Relaxed), 1);
        drop(LogGuard(queue));
    }
}
