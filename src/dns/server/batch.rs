//! Many datagrams with one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

/// Most datagrams of one system call.
pub const SIZE: usize = 32;

/// Room for datagrams, their senders, and replies to them.
pub struct DatagramBatch {
    buffers: Vec<Box<[u8]>>,
    replies: Vec<Vec<u8>>,
    peers: Vec<Option<SockaddrStorage>>,
    /// Replies that are to be sent.
    ready: usize,
    incoming: MultiHeaders<SockaddrStorage>,
    outgoing: MultiHeaders<SockaddrStorage>,
}

impl DatagramBatch {
    /// `size` is the length of the longest datagram that is not cut off.
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

    /// Receives what is there and has each datagram answered; those for which `answer` says so are
    /// kept to be sent.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>) -> bool,
    ) -> io::Result<()> {
        let received = self.receive_all(socket)?;
        self.ready = 0;
        self.peers.clear();
        for ((length, peer), buffer) in received.iter().zip(&self.buffers) {
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

    /// Lengths and senders of datagrams that are in the buffers now.
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

    /// Sends what is ready. What there is no room for is dropped: clients repeat their questions.
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
                Ok(results) => sent += results.count().max(1),
                // The first one is at fault: its peer may be unreachable.
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
