//! Blocking socket to the kernel for one netlink protocol, with requests that are answered whole.
//!
//! One socket has one dump at a time: until `NLMSG_DONE` was produced the kernel answers another
//! request with `EBUSY`. So [`KernelSocket::exchange`] reads an answer to its end, and opens a new
//! socket where the end was lost.

use std::io;

use libc::{EBUSY, ENOBUFS, MSG_TRUNC};
use netlink_packet_core::{DecodeError, Emitable, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};

use super::frame::{self, FrameHeader};
use super::replies::{Progress, Replies};

/// Room for one datagram; the kernel makes dumps of up to 32 KiB for a reader with this much.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receive buffer that is asked for; `net.core.rmem_max` usually allows less.
const SOCKET_BUFFER: i32 = 8 * 1024 * 1024;
/// Dumps that may be cut short, by a change of the table or lost replies, before giving up.
const ATTEMPTS: u32 = 8;

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct KernelSocket {
    protocol: isize,
    pub(super) socket: Socket,
    /// Sequence number of the request sent last.
    pub(super) sequence: u32,
    /// Bytes that the receive buffer holds.
    pub(super) room: usize,
    /// The datagram received last.
    datagram: Vec<u8>,
}

/// Failure of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket of protocol {protocol}: {source}")]
    Open { protocol: isize, source: io::Error },
    #[error("cannot send a netlink request to the kernel: {0}")]
    Send(#[source] io::Error),
    #[error("cannot receive the kernel's netlink answer: {0}")]
    Receive(#[source] io::Error),
    #[error("the kernel refused the netlink request: {0}")]
    Refused(#[source] io::Error),
    #[error("the kernel gave no complete netlink answer in {ATTEMPTS} attempts: {0}")]
    Incomplete(&'static str),
    #[error("cannot decode the kernel's netlink answer: {0}")]
    Decode(#[from] DecodeError),
}

impl KernelSocket {
    /// Opens a socket of a `NETLINK_*` protocol, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Open`] when the kernel lacks the protocol or refuses the socket.
    pub fn open(protocol: isize) -> Result<Self, Error> {
        let (socket, room) = connect(protocol)?;
        Ok(Self { protocol, socket, sequence: 0, room, datagram: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends a request of type `kind` and collects its replies, decoded by `parse` from their payload,
    /// up to the end of the dump or the acknowledgement. So `flags` has to have `NLM_F_DUMP` or
    /// `NLM_F_ACK`.
    ///
    /// A message that cannot be decoded is an error in its place; the rest is good. A dump that the
    /// kernel marks as inconsistent is repeated, and so is a request whose replies were lost: it must
    /// bear being repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's errno; [`Error::Incomplete`] after several attempts;
    /// [`Error::Open`], [`Error::Send`] and [`Error::Receive`] when the socket fails.
    pub fn exchange<T>(
        &mut self,
        kind: u16,
        flags: u16,
        request: &impl Emitable,
        parse: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<Result<T, DecodeError>>, Error> {
        let mut cause = "";
        'attempt: for _ in 0..ATTEMPTS {
            // A number of its own for each attempt tells late replies to an earlier one apart.
            self.sequence = self.sequence.wrapping_add(1);
            let header = FrameHeader { kind, flags: NLM_F_REQUEST | flags, sequence: self.sequence };
            self.send(&frame::message(header, request)).map_err(Error::Send)?;
            let mut replies = Replies::new(self.sequence);
            loop {
                // Blocks: the kernel queues the answer before the send returns, or as the reader makes
                // room.
                let progress = match self.receive(0) {
                    Ok(datagram) => replies.feed(datagram, &parse),
                    Err(error) if error.raw_os_error() == Some(ENOBUFS) => Progress::Lost,
                    Err(error) => return Err(Error::Receive(error)),
                };
                match progress {
                    Progress::More => {}
                    Progress::Done => return Ok(replies.into_messages()),
                    // NLM_F_DUMP_INTR: entries may be missing or there twice, which only a new dump mends.
                    Progress::Interrupted => {
                        cause = "the table changes all the time";
                        continue 'attempt;
                    }
                    // With its end lost, the old dump would keep this socket busy.
                    Progress::Refused(EBUSY) | Progress::Lost => {
                        cause = "replies are lost, the receive buffer is too small (net.core.rmem_max)";
                        (self.socket, self.room) = connect(self.protocol)?;
                        continue 'attempt;
                    }
                    Progress::Refused(errno) => {
                        return Err(Error::Refused(io::Error::from_raw_os_error(errno)));
                    }
                }
            }
        }
        Err(Error::Incomplete(cause))
    }

    /// Sends whole messages.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives the next datagram from the kernel; one that is too long counts as lost (`ENOBUFS`).
    pub(super) fn receive(&mut self, flags: i32) -> io::Result<&[u8]> {
        loop {
            self.datagram.clear();
            match self.socket.recv_from(&mut self.datagram, flags | MSG_TRUNC) {
                // Any process may send to this socket; the kernel's port is 0.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((length, _)) if length > self.datagram.len() => {
                    return Err(io::Error::from_raw_os_error(ENOBUFS));
                }
                Ok(_) => return Ok(&self.datagram),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A socket connected to the kernel, and the bytes that its receive buffer holds.
fn connect(protocol: isize) -> Result<(Socket, usize), Error> {
    let open = || {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Both only save room, and old kernels lack them.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_rx_buf_sz(SOCKET_BUFFER);
        let room = socket.get_rx_buf_sz()?;
        Ok((socket, room))
    };
    open().map_err(|source| Error::Open { protocol, source })
}
