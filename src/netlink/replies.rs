//! What a dump or request has been answered so far, without the socket.

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN};

use super::frame;

/// The replies to one request.
pub struct Replies<T> {
    sequence: u32,
    family: u16,
    messages: Vec<Result<T, DecodeError>>,
    interrupted: bool,
}

/// How far the replies are.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Done,
    /// Complete, but the table changed meanwhile.
    Interrupted,
    /// A positive errno.
    Refused(i32),
    /// The kernel dropped replies.
    Lost,
}

impl<T> Replies<T> {
    pub fn new(sequence: u32, family: u16) -> Self {
        Self { sequence, family, messages: Vec::new(), interrupted: false }
    }

    /// Takes in a datagram. Replies to other requests are left out.
    pub fn feed(&mut self, datagram: &[u8], parse: impl Fn(&[u8]) -> Result<T, DecodeError>) -> Progress {
        for message in frame::split(datagram) {
            if message.sequence_number() != self.sequence {
                continue;
            }
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_DONE | NLMSG_ERROR => return self.end(message.payload()),
                NLMSG_OVERRUN => return Progress::Lost,
                kind if kind == self.family => self.messages.push(parse(message.payload())),
                _ => {}
            }
        }
        Progress::More
    }

    /// What was decoded, in the order of arrival.
    pub fn into_messages(self) -> Vec<Result<T, DecodeError>> {
        self.messages
    }

    fn end(&self, payload: &[u8]) -> Progress {
        match error_number(payload) {
            0 if self.interrupted => Progress::Interrupted,
            0 => Progress::Done,
            errno => Progress::Refused(errno),
        }
    }
}

/// The positive errno of an `NLMSG_ERROR` or `NLMSG_DONE`; 0 is success, as is a missing number.
pub fn error_number(payload: &[u8]) -> i32 {
    let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
    code.saturating_neg().max(0)
}
