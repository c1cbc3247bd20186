//! Notifications that links, addresses, routes or netfilter rules changed, without saying which: the
//! listener reads the kernel again.

use std::sync::Arc;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Links, addresses and routes (`linux/rtnetlink.h`, `RTNLGRP_*`).
const ROUTE_GROUPS: &[u32] = &[
    1,  // RTNLGRP_LINK
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
];

/// Netfilter rules (`linux/netfilter/nfnetlink.h`, `NFNLGRP_NFTABLES`).
const NETFILTER_GROUPS: &[u32] = &[7];

/// Failure to subscribe.
#[derive(Debug, thiserror::Error)]
#[error("cannot subscribe to the kernel's changes of {what}: {error}")]
pub struct Error {
    what: &'static str,
    error: std::io::Error,
}

/// A subscription in the network namespace in which it was opened.
pub struct Monitor {
    what: &'static str,
    socket: TokioSocket,
}

impl Monitor {
    /// Subscribes to changes of links, addresses and routes. Must be called within a tokio runtime.
    pub fn routing() -> Result<Self, Error> {
        Self::open("links, addresses and routes", NETLINK_ROUTE, ROUTE_GROUPS)
    }

    /// Subscribes to changes of netfilter rules. Must be called within a tokio runtime.
    pub fn netfilter() -> Result<Self, Error> {
        Self::open("netfilter rules", NETLINK_NETFILTER, NETFILTER_GROUPS)
    }

    fn open(what: &'static str, protocol: isize, groups: &[u32]) -> Result<Self, Error> {
        let subscribe = || {
            let mut socket = TokioSocket::new(protocol)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            // Groups one by one, because those of a bind have numbers up to 32 only.
            for group in groups {
                socket.socket_mut().add_membership(*group)?;
            }
            Ok(socket)
        };
        subscribe().map(|socket| Self { what, socket }).map_err(|error| Error { what, error })
    }

    /// Passes every change on until `shutdown`. Notifications that the kernel had to drop count as a
    /// change.
    pub async fn run(self, changed: Arc<Notify>, shutdown: CancellationToken) {
        loop {
            let news = tokio::select! {
                () = shutdown.cancelled() => return,
                news = self.socket.recv_from_full() => news,
            };
            match news {
                Ok(_) => changed.notify_one(),
                // Notifications came faster than they were read, and some are lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed.notify_one(),
                Err(error) => {
                    let what = self.what;
                    tracing::warn!(%error, what, "the kernel no longer reports changes, only regular audits find them");
                    // Ending here would end the daemon, which can do without.
                    return shutdown.cancelled().await;
                }
            }
        }
    }
}
