//! Output of the demonstration: a screen that is redrawn on a terminal, and lines elsewhere.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use super::text::{clock, summary};
use super::view::{self, ViewState};
use crate::terminal::FullScreen;

/// Most events that a screen keeps; it shows those that fit.
const EVENTS: usize = 100;

/// Time between two frames of a screen.
const FRAME: Duration = Duration::from_millis(250);

/// Time between two summaries in a pipe.
const SUMMARY: Duration = Duration::from_secs(2);

/// Receiver of everything that the user is shown.
pub enum Output {
    Screen { screen: FullScreen, events: VecDeque<String> },
    Lines,
}

impl Output {
    /// Takes the terminal, if standard output is one. It is given back when the output is closed or dropped.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn open() -> io::Result<Self> {
        Ok(match FullScreen::open()? {
            Some(screen) => Self::Screen { screen, events: VecDeque::new() },
            None => Self::Lines,
        })
    }

    pub fn screen(&self) -> Option<&FullScreen> {
        match self {
            Self::Screen { screen, .. } => Some(screen),
            Self::Lines => None,
        }
    }

    /// Returns the time between two calls of [`Output::show`].
    pub fn interval(&self) -> Duration {
        match self {
            Self::Screen { .. } => FRAME,
            Self::Lines => SUMMARY,
        }
    }

    /// Tells of an event.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn event(&mut self, elapsed: Duration, text: &str) -> io::Result<()> {
        let line = format!("{:>5}  {text}", clock(elapsed));
        match self {
            Self::Screen { events, .. } => {
                events.push_back(line);
                if events.len() > EVENTS {
                    events.pop_front();
                }
                Ok(())
            }
            Self::Lines => print_line(&line),
        }
    }

    /// Shows the present state: a frame, or a line once there are connections to count.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn show(&mut self, state: &ViewState<'_>) -> io::Result<()> {
        match self {
            Self::Screen { screen, events } => screen.draw(|frame| view::draw(frame, state, events)),
            Self::Lines if state.phase.is_none() => Ok(()),
            Self::Lines => print_line(&summary(state.tally, state.elapsed)),
        }
    }

    /// Stops this process as Ctrl-Z does, and returns once it is continued. Does nothing without a screen: without one
    /// the terminal stops the process by itself.
    ///
    /// # Errors
    /// When the terminal cannot be used any more.
    pub fn suspend(&mut self) -> io::Result<()> {
        match self {
            Self::Screen { screen, .. } => screen.suspend(),
            Self::Lines => Ok(()),
        }
    }

    /// Gives the terminal back and prints lines that stay there.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn finish(self, lines: &[String]) -> io::Result<()> {
        drop(self);
        lines.iter().try_for_each(|line| print_line(line))
    }
}

fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
