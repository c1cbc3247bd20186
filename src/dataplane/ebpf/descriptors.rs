//! Sockets of other processes: pidfd_getfd(2), and the network namespace of a socket, for which the crates have
//! no call.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;

/// `SIOCGSKNS` of `linux/sockios.h`.
const NAMESPACE_OF_SOCKET: libc::Ioctl = 0x894C;

/// Sockets that may wait to be closed.
const CLOSING: usize = 1024;

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's system call has returned a new descriptor, which is an int.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// Opens a process by its id.
pub fn open_process(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })
}

/// Copies a descriptor of another process.
pub fn copy(process: BorrowedFd<'_>, number: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes three integers.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// Opens the network namespace of a socket.
pub fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no argument, and returns a new descriptor.
    descriptor(unsafe { libc::ioctl(socket.as_raw_fd(), NAMESPACE_OF_SOCKET) }.into())
}

/// Closes a copied socket. Its process may have closed it meanwhile and have let it linger, so that closing the
/// copy takes as long as the process likes. So one thread closes them all, and nothing waits for it.
///
/// # Errors
/// `WouldBlock` if too many sockets wait to be closed.
pub fn close(socket: OwnedFd) -> io::Result<()> {
    static CLOSER: OnceLock<Option<SyncSender<OwnedFd>>> = OnceLock::new();
    let closer = CLOSER.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel(CLOSING);
        let close_all = move || receiver.into_iter().for_each(drop);
        thread::Builder::new().name("closer".to_owned()).spawn(close_all).is_ok().then_some(sender)
    });
    match closer.as_ref().map(|closer| closer.try_send(socket)) {
        Some(Ok(())) => Ok(()),
        Some(Err(TrySendError::Full(socket) | TrySendError::Disconnected(socket))) => {
            // It stays open, which costs less than waiting.
            std::mem::forget(socket);
            Err(io::ErrorKind::WouldBlock.into())
        }
        // There is no thread for it.
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}
