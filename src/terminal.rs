//! Full-screen use of the terminal: taking it over, giving it back however the command ends, pausing it with Ctrl-Z,
//! and what its user asks for by key or signal.
//!
//! Drawing is ratatui's. This module is for every command with a screen of its own; what is on the screen belongs to
//! the command.

use std::future::pending;
use std::io::{self, IsTerminal, stdout};

use crossterm::cursor::Show;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use futures_util::StreamExt;
use nix::sys::signal::{Signal as SignalNumber, kill};
use nix::unistd::Pid;
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, Frame, TerminalOptions, Viewport};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Columns and rows for a terminal that does not tell its size, as serial consoles do.
const UNKNOWN_SIZE: Rect = Rect { x: 0, y: 0, width: 80, height: 24 };

/// The terminal in raw mode with its alternate screen; dropping it gives the terminal back.
#[derive(Debug)]
pub struct FullScreen {
    terminal: DefaultTerminal,
}

impl FullScreen {
    /// Takes the terminal over. `None` if standard output is no terminal, or one whose keys cannot be read.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn open() -> io::Result<Option<Self>> {
        if !stdout().is_terminal() {
            return Ok(None);
        }
        let viewport = match terminal::size() {
            Ok((columns, rows)) if columns > 0 && rows > 0 => Viewport::Fullscreen,
            _ => Viewport::Fixed(UNKNOWN_SIZE),
        };
        // This also makes a panic give the terminal back before its message is printed.
        let Ok(terminal) = ratatui::try_init_with_options(TerminalOptions { viewport }) else {
            // Raw mode is on if only the last step of it failed.
            terminal::disable_raw_mode()?;
            return Ok(None);
        };
        let screen = Self { terminal };
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(Some(screen))
    }

    /// Draws one frame, in the size that the terminal has now.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(render).map(drop)
    }

    /// Gives the terminal back, stops this process as Ctrl-Z does, and takes the terminal over again once the process
    /// is continued. Returns at once where no shell could continue it.
    ///
    /// # Errors
    /// When the terminal cannot be used any more.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back()?;
        // To the whole process group, as the terminal itself does it: a script that runs this command stops with it,
        // and the shell learns of it. The kernel drops the signal where there is no shell with job control.
        kill(Pid::from_raw(0), SignalNumber::SIGTSTP)?;
        terminal::enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        // Other programs have written here since: the next frame is drawn in full.
        let area = self.terminal.get_frame().area();
        self.terminal.resize(area)
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is closed.
        let _ = give_back();
    }
}

/// Undoes what was done to the terminal, once: leaving the alternate screen twice would move the cursor.
fn give_back() -> io::Result<()> {
    if terminal::is_raw_mode_enabled()? {
        terminal::disable_raw_mode()?;
        execute!(stdout(), LeaveAlternateScreen)?;
    }
    execute!(stdout(), Show)
}

/// A user's wish about the command as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserRequest {
    Quit,
    Suspend,
    /// The size of the terminal has changed.
    Redraw,
}

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserInput {
    Request(UserRequest),
    /// A key with a meaning of the command's own.
    Key(KeyCode),
}

/// Signals that end the command, and keys where it has the terminal.
pub struct UserRequests {
    signals: [Signal; 4],
    keys: Option<EventStream>,
}

impl UserRequests {
    /// Receives signals from now on. To be called before the terminal is taken over, so that no signal can end the
    /// process in between without giving it back.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn from_signals() -> io::Result<Self> {
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::quit())?,
            ],
            keys: None,
        })
    }

    /// Receives the keys of a terminal that is taken over, too.
    pub fn add_keys(&mut self, _: &FullScreen) {
        self.keys = Some(EventStream::new());
    }

    /// Waits for the next request. Nothing is lost when the future is dropped before that.
    pub async fn next(&mut self) -> UserRequest {
        loop {
            if let UserInput::Request(request) = self.next_input(false).await {
                return request;
            }
        }
    }

    /// Waits for the next request or any other key. With `takes_text`, the user is writing, and letters are keys.
    pub async fn next_input(&mut self, takes_text: bool) -> UserInput {
        let [interrupt, terminate, hangup, quit] = &mut self.signals;
        loop {
            tokio::select! {
                _ = interrupt.recv() => return UserInput::Request(UserRequest::Quit),
                _ = terminate.recv() => return UserInput::Request(UserRequest::Quit),
                _ = hangup.recv() => return UserInput::Request(UserRequest::Quit),
                _ = quit.recv() => return UserInput::Request(UserRequest::Quit),
                event = next_event(&mut self.keys) => match event {
                    Some(event) => if let Some(input) = input(&event, takes_text) { return input },
                    // A terminal that cannot be read ends nothing: signals still do.
                    None => self.keys = None,
                },
            }
        }
    }
}

async fn next_event(keys: &mut Option<EventStream>) -> Option<Event> {
    match keys {
        Some(keys) => keys.next().await?.ok(),
        None => pending().await,
    }
}

/// Returns what an event of the terminal stands for, if anything.
fn input(event: &Event, takes_text: bool) -> Option<UserInput> {
    let is_text = |key: &KeyEvent| {
        matches!(key.code, KeyCode::Char(_)) && !key.modifiers.contains(KeyModifiers::CONTROL)
    };
    match event {
        Event::Key(key) if takes_text && is_text(key) => {}
        event => {
            if let Some(request) = request(event) {
                return Some(UserInput::Request(request));
            }
        }
    }
    match event {
        // With Ctrl or Alt a letter would be another command.
        Event::Key(KeyEvent { code, modifiers, kind, .. })
            if *kind != KeyEventKind::Release
                && !modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
        {
            Some(UserInput::Key(*code))
        }
        _ => None,
    }
}

/// Returns the request that an event of the terminal stands for, if any.
fn request(event: &Event) -> Option<UserRequest> {
    match event {
        Event::Resize(..) => Some(UserRequest::Redraw),
        Event::Key(KeyEvent { code: KeyCode::Char(key), modifiers, kind, .. })
            if *kind != KeyEventKind::Release =>
        {
            match (key, modifiers.contains(KeyModifiers::CONTROL)) {
                // Raw mode makes these keys of what would be SIGINT, SIGQUIT (Ctrl-\ arrives as Ctrl-4) and SIGTSTP.
                ('q', false) | ('c' | '4' | '\\', true) => Some(UserRequest::Quit),
                ('z', true) => Some(UserRequest::Suspend),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: char, modifiers: KeyModifiers) -> Option<UserRequest> {
        request(&Event::Key(KeyEvent::new(KeyCode::Char(key), modifiers)))
    }

    #[test]
    fn keys_that_were_signals_still_do_what_they_did() {
        assert_eq!(key('c', KeyModifiers::CONTROL), Some(UserRequest::Quit));
        assert_eq!(key('4', KeyModifiers::CONTROL), Some(UserRequest::Quit));
        assert_eq!(key('z', KeyModifiers::CONTROL), Some(UserRequest::Suspend));
    }

    #[test]
    fn other_keys_do_nothing() {
        assert_eq!(key('q', KeyModifiers::NONE), Some(UserRequest::Quit));
        for other in ['c', 'z', '4', 'x'] {
            assert_eq!(key(other, KeyModifiers::NONE), None, "{other}");
        }
        assert_eq!(key('q', KeyModifiers::CONTROL), None);
        assert_eq!(request(&Event::FocusGained), None);
    }

    #[test]
    fn a_key_counts_when_it_is_pressed_and_not_when_it_is_released() {
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(request(&Event::Key(released)), None);
    }

    #[test]
    fn letters_are_text_while_the_user_writes() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let letter = key(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(input(&letter, true), Some(UserInput::Key(KeyCode::Char('q'))));
        assert_eq!(input(&letter, false), Some(UserInput::Request(UserRequest::Quit)));
        let cancel = key(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(input(&cancel, true), Some(UserInput::Request(UserRequest::Quit)));
        assert_eq!(input(&key(KeyCode::Up, KeyModifiers::NONE), false), Some(UserInput::Key(KeyCode::Up)));
        assert_eq!(input(&key(KeyCode::Char('x'), KeyModifiers::ALT), true), None);
    }

    #[test]
    fn another_size_is_another_picture() {
        assert_eq!(request(&Event::Resize(80, 24)), Some(UserRequest::Redraw));
    }
}
