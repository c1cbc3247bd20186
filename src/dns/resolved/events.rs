//! Events after which systemd-resolved has to be told again: our link is a new one, resolved has started anew,
//! or polkit, which it asks who may change its settings, has started.
//!
//! Each is announced on a [`Notify`]. One too many costs a call that changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{MatchRule, MessageStream};

use super::RUNNING;
use crate::netlink::monitor::Monitor;

/// Name of the bus itself, and of its interface.
const BUS: &str = "org.freedesktop.DBus";

/// Names on the bus whose new owners are events.
const NAMES: [&str; 2] = ["org.freedesktop.resolve1", "org.freedesktop.PolicyKit1"];

/// Pause before another attempt to reach the bus, which may start after this program.
const BUS_RETRY: Duration = Duration::from_secs(1);

/// That pause on a node where resolved does not run, and most probably never will.
const IDLE_BUS_RETRY: Duration = Duration::from_secs(10);

/// Number of the link of this name, which a new one of the same name does not have.
pub(super) fn link_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

/// Announces each new link of this name until `shutdown`.
pub(super) async fn follow_link(name: String, changed: Arc<Notify>, shutdown: CancellationToken) {
    let mut last = link_index(&name);
    let monitor = match Monitor::routing() {
        Ok(monitor) => monitor,
        Err(error) => {
            tracing::warn!(%error, "systemd-resolved is told of a new link only after some time");
            return;
        }
    };
    let network = Arc::new(Notify::new());
    let following = async {
        loop {
            network.notified().await;
            let index = link_index(&name);
            if index.is_some() && index != last {
                changed.notify_one();
            }
            // Also where the link has gone: one that comes back is new, even with the same number.
            last = index;
        }
    };
    tokio::select! {
        () = monitor.run(Arc::clone(&network), shutdown) => {}
        () = following => {}
    }
}

/// Announces each new owner of [`NAMES`] on a bus, for ever.
pub(super) async fn follow_names(bus: Option<String>, changed: Arc<Notify>) {
    loop {
        if let Err(error) = follow_names_once(bus.as_deref(), &changed).await {
            tracing::debug!(%error, "cannot follow systemd-resolved and polkit on the bus, trying again");
        }
        let runs = Path::new(RUNNING).exists();
        tokio::time::sleep(if runs { BUS_RETRY } else { IDLE_BUS_RETRY }).await;
    }
}

/// Announces new owners until the bus ends.
async fn follow_names_once(bus: Option<&str>, changed: &Notify) -> zbus::Result<()> {
    let connection = match bus {
        Some(address) => Builder::address(address)?,
        None => Builder::system()?,
    };
    let connection = connection.build().await?;
    let mut owners = futures_util::stream::SelectAll::new();
    // The bus sends nothing but what is asked for, and so wakes this program for nothing else. A rule and its
    // messages take the place of a proxy, whose cache of properties is a third of the library.
    for name in NAMES {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(BUS)?
            .interface(BUS)?
            .member("NameOwnerChanged")?
            .arg(0, name)?
            .build();
        owners.push(MessageStream::for_match_rule(rule, &connection, None).await?);
    }
    // They may have got their owners before.
    changed.notify_one();
    while let Some(signal) = owners.next().await {
        let signal = signal?;
        let body = signal.body();
        let (_name, _old, new): (&str, &str, &str) = body.deserialize()?;
        if !new.is_empty() {
            changed.notify_one();
        }
    }
    Ok(())
}
