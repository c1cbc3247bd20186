//! A Mesos master, as good or bad as a test wants it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a master does with a question for its state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Behaviour {
    /// Answers with this document.
    State(String),
    /// Answers with a status and a body.
    Answer { status: String, body: String },
    /// Sends the first half of what it has announced.
    Truncate(String),
    /// Sends its own address as the leader's.
    RedirectToItself,
    /// Takes the question and says nothing for this many seconds.
    Stall(u64),
    /// Hangs up.
    #[default]
    HangUp,
}

pub fn serve(listener: &TcpListener, behaviour: &Arc<Mutex<Behaviour>>) {
    for stream in listener.incoming().flatten() {
        let behaviour = behaviour.lock().map(|behaviour| behaviour.clone()).unwrap_or_default();
        thread::spawn(move || {
            // A client that hangs up is not the master's affair.
            let _ = answer(stream, behaviour);
        });
    }
}

fn answer(stream: TcpStream, behaviour: Behaviour) -> io::Result<()> {
    let address = stream.local_addr()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    let stream = stream.get_mut();
    let mut send = |status: &str, extra: &str, body: &str, length: usize| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\n{extra}Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
    };
    match behaviour {
        Behaviour::State(document) => send("200 OK", "", &document, document.len()),
        Behaviour::Answer { status, body } => send(&status, "", &body, body.len()),
        Behaviour::Truncate(document) => {
            let half = document.get(..document.len() / 2).unwrap_or_default();
            send("200 OK", "", half, document.len())
        }
        Behaviour::RedirectToItself => {
            send("307 Temporary Redirect", &format!("Location: //{address}/master/state\r\n"), "", 0)
        }
        Behaviour::Stall(seconds) => {
            thread::sleep(Duration::from_secs(seconds));
            Ok(())
        }
        Behaviour::HangUp => Ok(()),
    }
}
