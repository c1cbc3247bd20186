//! Batches of datagrams: up to [`SIZE`] of them with one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

/// Largest number of datagrams of one system call.
pub const SIZE: usize = 32;

/// Room for datagrams, their senders, and replies to them.
pub struct DatagramBatch {
    buffers: Vec<Box<[u8]>>,
    /// Replies, of which the first `ready` are to be sent.
    replies: Vec<Vec<u8>>,
    /// Receivers of the replies.
    peers: Vec<Option<SockaddrStorage>>,
    ready: usize,
    incoming: MultiHeaders<SockaddrStorage>,
    outgoing: MultiHeaders<SockaddrStorage>,
}

impl DatagramBatch {
    /// Room for datagrams of `size` octets; longer ones are cut off.
    pub fn new(size: usize) -> Self {
        Self {
            buffers: (0..SIZE).map(|_| vec![0; size].into_boxed_slice()).collect(),
            replies: (0..SIZE).map(|_| Vec::with_capacity(size)).collect(),
            peers: Vec::with_capacity(SIZE),
            ready: 0,
            incoming: MultiHeaders::preallocate(SIZE, None),
            outgoing: MultiHeaders::preallocate(SIZE, None),
        }
    }

    /// Receives the datagrams that are there and has `answer` write a reply to each; replies for which it
    /// returns true are kept to be sent.
    ///
    /// # Errors
    /// `WouldBlock` when no datagram is there.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>) -> bool,
    ) -> io::Result<()> {
        let received = self.receive_all(socket)?;
        self.ready = 0;
        self.peers.clear();
        for ((length, peer), buffer) in received.iter().zip(&self.buffers) {
            // The kernel names every sender; a datagram without one could not be answered.
            let (Some(address), Some(query)) = (peer.as_ref().and_then(address), buffer.get(..*length))
            else {
                continue;
            };
            let Some(reply) = self.replies.get_mut(self.ready) else { break };
            if answer(query, address, reply) {
                self.peers.push(*peer);
                self.ready += 1;
            }
        }
        Ok(())
    }

    /// Fills the buffers; returns length and sender of each datagram.
    fn receive_all(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<[(usize, Option<SockaddrStorage>); SIZE]> {
        let mut received = [(0, None); SIZE];
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = recvmmsg(socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), flags, None)?;
        for (place, message) in received.iter_mut().zip(messages) {
            *place = (message.bytes, message.address);
        }
        Ok(received)
    }

    /// Sends the replies that are ready. The kernel drops those that it has no room for: clients repeat their
    /// questions.
    ///
    /// # Errors
    /// That of the last reply, if it could not be sent.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.ready {
            let replies = self.replies.get(sent..self.ready).unwrap_or_default();
            let peers = self.peers.get(sent..self.ready).unwrap_or_default();
            let slices: Vec<[IoSlice<'_>; 1]> = replies.iter().map(|reply| [IoSlice::new(reply)]).collect();
            let results = sendmmsg(
                socket.as_raw_fd(),
                &mut self.outgoing,
                slices.iter(),
                peers,
                [],
                MsgFlags::MSG_DONTWAIT,
            );
            match results {
                // One at least, so that a call which sends nothing is not repeated for ever.
                Ok(results) => sent += results.count().max(1),
                // An error is that of the first reply, whose client may be unreachable. The rest goes on.
                Err(error) if sent + 1 >= self.ready => return Err(error.into()),
                Err(_) => sent += 1,
            }
        }
        Ok(())
    }
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into()))
}
