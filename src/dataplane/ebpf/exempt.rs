//! Exemption of this process: its own sockets never pass a VIP, whatever the table holds.
//!
//! A label may ask for any address, so without it a task could take the place of the master or of Marathon
//! and be sent their passwords. Processes are exempt, and not single sockets, because many libraries open
//! some; nor control groups, because a daemon may share its own with the processes that it balances.
//!
//! The programs know a process by its id in the root namespace, which a process in a PID namespace is not
//! told. So the process announces itself with a socket, and the program writes the id down:
//!
//! ```text
//! daemon    stores 0 for its socket in the map `announcers`, and connects it to port 0
//! connect4  finds the 0, replaces it by the current process, and adds that to the map `exempt`
//! daemon    keeps the socket open
//! kernel    closes the socket when the process ends, even when it is killed
//! sock_release  takes the process out of `exempt`, before its id can be given to another one
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::error::Error;
use super::layout;
use super::maps::Tables;
use super::reading::map_error;

/// Socket that keeps this process exempt as long as it is open.
#[derive(Debug)]
pub struct Exemption {
    _announcer: Socket,
}

impl Exemption {
    /// Exempts this process. Returns `None` if the programs do not run for it, because its sockets are in
    /// another cgroup; then none of them can pass a VIP.
    ///
    /// # Errors
    /// Without a socket, or if the kernel refuses to store something for it.
    pub fn announce(maps: &Tables) -> Result<Option<Self>, Error> {
        let failed = |source| map_error(&layout::ANNOUNCERS, source);
        // A child process that kept the socket open would keep the exemption, so it is closed on exec.
        let announcer = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(failed)?;
        // The kernel takes the descriptor for the key; it is not negative.
        let key = announcer.as_raw_fd().unsigned_abs();
        maps.announcers.update(&key, &0).map_err(failed)?;
        // Nothing is sent. Without an address on the loopback link this fails, but after the program ran.
        let _ = announcer.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into());
        match maps.announcers.lookup(&key).map_err(failed)? {
            Some(0) => Ok(None),
            Some(_) => Ok(Some(Self { _announcer: announcer })),
            None => Err(failed(io::ErrorKind::NotFound.into())),
        }
    }
}
