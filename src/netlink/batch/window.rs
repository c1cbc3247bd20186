//! The messages of one send with the outcome of each, without the socket.

use std::io;

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer};
use netlink_packet_generic::GenlFamily;

use super::genl::Genl;
use crate::netlink::frame::{self, FrameHeader};

/// Reason for which a message of a pipeline had no effect, or none that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The kernel's answer, a positive errno.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// The message was not sent; a positive errno, or 0 when the system gave none.
    #[error("not sent to the kernel: {}", io::Error::from_raw_os_error(*.0))]
    Unsent(i32),
    #[error("outcome unknown, because the kernel's replies were lost; the next pass reads the kernel again")]
    Unknown,
}

/// A send in the making, then in flight. Its messages have consecutive sequence numbers.
pub(super) struct Window {
    /// Position of the first message among all that are to be sent.
    first: usize,
    /// Sequence number before the first message's.
    base: u32,
    bytes: Vec<u8>,
    /// Offset of the last message.
    last: usize,
    /// Errno that each message was answered with, 0 for an acknowledgement, `None` without an answer.
    answers: Vec<Option<i32>>,
}

impl Window {
    /// An empty window after the sequence number `base`.
    pub(super) fn new(first: usize, base: u32) -> Self {
        Self { first, base, bytes: Vec::new(), last: 0, answers: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Number of messages.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a message of a known [`frame::length`] and returns its sequence number.
    pub(super) fn push<F>(&mut self, message: &F, length: usize, family: u16) -> u32
    where
        F: GenlFamily + Emitable,
    {
        self.last = self.bytes.len();
        self.answers.push(None);
        let sequence = self.last_sequence();
        // Without asking for an acknowledgement: the kernel then answers failures only.
        let header = FrameHeader { kind: family, flags: NLM_F_REQUEST, sequence };
        frame::append(&mut self.bytes, header, &Genl(message), length);
        sequence
    }

    /// Makes the last message ask for an answer even when it succeeds.
    pub(super) fn request_acknowledgement(&mut self) {
        if let Some(Ok(mut last)) = self.bytes.get_mut(self.last..).map(NetlinkBuffer::new_checked) {
            last.set_flags(NLM_F_REQUEST | NLM_F_ACK);
        }
    }

    /// Takes in a datagram; true when it answers the last message, and so is the last.
    pub(super) fn feed(&mut self, datagram: &[u8]) -> bool {
        let last = self.last_sequence();
        let mut complete = false;
        for message in frame::split(datagram) {
            let sequence = message.sequence_number();
            // Answers to another send fall outside of the positions, also where numbers wrap around.
            let position = sequence.wrapping_sub(self.base).wrapping_sub(1);
            let answer = usize::try_from(position).ok().and_then(|at| self.answers.get_mut(at));
            // An acknowledgement is an error with the number 0.
            if let (NLMSG_ERROR, Some(answer)) = (message.message_type(), answer) {
                *answer = Some(frame::errno(message.payload()));
                complete |= sequence == last;
            }
        }
        complete
    }

    /// Reports the failures; when replies were lost, also every message without an answer.
    pub(super) fn finish(self, lost: bool, failures: &mut Vec<(usize, MessageError)>) {
        for (position, answer) in self.answers.iter().enumerate() {
            let failure = match answer {
                Some(0) => continue,
                Some(errno) => MessageError::Refused(*errno),
                // Its failure may have been among the lost replies.
                None if lost => MessageError::Unknown,
                None => continue,
            };
            failures.push((self.first + position, failure));
        }
    }

    /// Reports `failure` for all messages.
    pub(super) fn fail(self, failure: MessageError, failures: &mut Vec<(usize, MessageError)>) {
        failures.extend((0..self.len()).map(|position| (self.first + position, failure)));
    }

    fn last_sequence(&self) -> u32 {
        self.base.wrapping_add(u32::try_from(self.answers.len()).unwrap_or(u32::MAX))
    }
}
