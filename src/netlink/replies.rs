//! Replies to one request, collected from datagrams until the kernel ends them; no socket.

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN};

use super::frame;

/// Message types below this are netlink's own (`NLMSG_MIN_TYPE` of `linux/netlink.h`).
const FIRST_KIND: u16 = 0x10;

/// Replies to one request, decoded to `T` in the order of arrival.
pub struct Replies<T> {
    sequence: u32,
    messages: Vec<Result<T, DecodeError>>,
    interrupted: bool,
}

/// State of an answer after a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The end is still to come.
    More,
    /// The end of the dump, or the acknowledgement.
    Done,
    /// Complete, but the table changed during the dump (`NLM_F_DUMP_INTR`).
    Interrupted,
    /// The request failed with this positive errno.
    Refused(i32),
    /// The kernel dropped replies.
    Lost,
}

impl<T> Replies<T> {
    /// Starts the replies to the request with this sequence number.
    pub fn new(sequence: u32) -> Self {
        Self { sequence, messages: Vec::new(), interrupted: false }
    }

    /// Adds the messages of a datagram, decoded by `parse` from their payload. Replies to other
    /// requests, and what follows the end, are left out.
    pub fn feed(&mut self, datagram: &[u8], parse: impl Fn(&[u8]) -> Result<T, DecodeError>) -> Progress {
        for message in frame::split(datagram) {
            // A request that was given up may still be answered.
            if message.sequence_number() != self.sequence {
                continue;
            }
            // Any part of a dump may have the mark, not just its end.
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_DONE | NLMSG_ERROR => return self.end(message.payload()),
                NLMSG_OVERRUN => return Progress::Lost,
                FIRST_KIND.. => self.messages.push(parse(message.payload())),
                _ => {}
            }
        }
        Progress::More
    }

    /// Returns the decoded messages; one that could not be decoded is an error in its place.
    pub fn into_messages(self) -> Vec<Result<T, DecodeError>> {
        self.messages
    }

    fn end(&self, payload: &[u8]) -> Progress {
        match frame::errno(payload) {
            0 if self.interrupted => Progress::Interrupted,
            0 => Progress::Done,
            errno => Progress::Refused(errno),
        }
    }
}
