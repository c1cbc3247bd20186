//! The connections that are open, and which of them goes when there is no room for another one.
//!
//! As long as there is room every connection stays. When all places are taken, the newcomer gets that of a
//! connection of those clients that have most: the one that has waited longest for a query, which its client
//! can open again at any time (RFC 7766 section 6.2.3), else the oldest one. Processes of the node share one
//! address; while they have no more than half of the places, none of theirs goes for a container or neighbour.
//! For example, 900 connections of a container and 124 of the node are open: the next process of the node, and
//! any other container, take the places of that container's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::AbortHandle;

use crate::dns::forward::Client;
use crate::dns::usage::{Metered, Usage};

/// Place of a connection in the order of activity while it is being answered.
const BUSY: u64 = u64::MAX;

/// A client by which connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub client: Client,
    /// True for processes of the node itself.
    pub is_node: bool,
}

/// Activity of a connection, which the task that serves it reports.
#[derive(Debug)]
pub struct Activity {
    /// Order in which connections began to wait; [`BUSY`] for those that do not.
    waits_since: AtomicU64,
    order: Arc<AtomicU64>,
}

impl Activity {
    /// Reports that a query is being answered.
    pub fn busy(&self) {
        self.waits_since.store(BUSY, Ordering::Relaxed);
    }

    /// Reports that the connection waits for its next query.
    pub fn idle(&self) {
        self.waits_since.store(self.order.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn waits_since(&self) -> u64 {
        self.waits_since.load(Ordering::Relaxed)
    }
}

/// An open connection.
struct Connection {
    owner: Owner,
    activity: Arc<Activity>,
    task: AbortHandle,
}

/// Open connections of one listener, by the order in which they came.
pub struct Connections {
    open: HashMap<u64, Connection>,
    order: Arc<AtomicU64>,
    limit: usize,
    /// Connections that found no place.
    refused: u64,
    /// Connections that were closed for another one.
    displaced: u64,
}

impl Metered for Connections {
    fn usage(&self, name: &str) -> Usage {
        let mut clients: HashMap<Client, usize> = HashMap::new();
        for connection in self.open.values() {
            *clients.entry(connection.owner.client).or_default() += 1;
        }
        let usage = Usage {
            name: name.to_owned(),
            used: self.open.len(),
            limit: self.limit,
            share: self.limit / (clients.len() + 1),
            refused: self.refused,
            displaced: self.displaced,
            ..Usage::default()
        };
        usage.of_clients(clients.iter().map(|(client, used)| (client, *used)))
    }
}

impl Connections {
    /// A table for at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self { open: HashMap::new(), order: Arc::default(), limit, refused: 0, displaced: 0 }
    }

    /// Makes room for a connection, which may close another one. Returns false if the newcomer has to go.
    pub fn make_room(&mut self, newcomer: Owner) -> bool {
        if self.open.len() < self.limit {
            return true;
        }
        let open = || self.open.iter().map(|(id, open)| (*id, open.owner, open.activity.waits_since()));
        let Some(id) = victim(open, newcomer, self.limit) else {
            self.refused += 1;
            return false;
        };
        if let Some(closed) = self.open.remove(&id) {
            closed.task.abort();
            self.displaced += 1;
        }
        true
    }

    /// The number and activity of a connection that is about to be served.
    pub fn announce(&self) -> (u64, Arc<Activity>) {
        let id = self.order.fetch_add(1, Ordering::Relaxed);
        let activity = Activity { waits_since: AtomicU64::new(id), order: Arc::clone(&self.order) };
        (id, Arc::new(activity))
    }

    /// Adds a connection that is served.
    pub fn add(&mut self, id: u64, owner: Owner, activity: Arc<Activity>, task: AbortHandle) {
        self.open.insert(id, Connection { owner, activity, task });
    }

    /// Removes a connection that has ended.
    pub fn remove(&mut self, id: u64) {
        self.open.remove(&id);
    }
}

/// The connection that goes for a newcomer, of those with their owners and since when they wait; `None` if all
/// are the node's and the newcomer is not.
fn victim<I>(open: impl Fn() -> I, newcomer: Owner, limit: usize) -> Option<u64>
where
    I: Iterator<Item = (u64, Owner, u64)>,
{
    // The newcomer counts, so that a client which has most makes room for itself.
    let mut counts: HashMap<Owner, usize> = HashMap::from([(newcomer, 1)]);
    for (_, owner, _) in open() {
        *counts.entry(owner).or_default() += 1;
    }
    let of_node: usize = counts.iter().filter(|(owner, _)| owner.is_node).map(|(_, count)| count).sum();
    let may_go = |owner: &Owner| !owner.is_node || of_node > limit / 2;
    let most = counts.iter().filter(|(owner, _)| may_go(owner)).map(|(_, count)| *count).max()?;
    // One that waits is taken rather than a busy one of a client with a few connections more.
    let has_many = |owner: &Owner, part: usize| {
        may_go(owner) && counts.get(owner).is_some_and(|count| count * part >= most)
    };
    let waiting = open().filter(|(_, owner, since)| has_many(owner, 2) && *since != BUSY);
    let longest = waiting.min_by_key(|(_, _, since)| *since);
    let oldest = || open().filter(|(_, owner, _)| has_many(owner, 1)).min_by_key(|(id, ..)| *id);
    longest.or_else(oldest).map(|(id, ..)| id)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn owner(last: u8) -> Owner {
        Owner { client: Client::from(IpAddr::from([10, 0, 0, last])), is_node: last == 1 }
    }

    /// The connection that goes of these: client, and since when it waits.
    fn goes(open: &[(u8, u64)], newcomer: u8) -> Option<u64> {
        let open = || (0..).zip(open).map(|(id, (client, since))| (id, owner(*client), *since));
        victim(open, owner(newcomer), open().count())
    }

    #[test]
    fn longest_idle_connection_of_a_single_client_goes() {
        assert_eq!(goes(&[(2, 7), (2, 3), (2, 5), (2, BUSY)], 2), Some(1));
        assert_eq!(goes(&[(2, BUSY), (2, BUSY)], 2), Some(0));
    }

    #[test]
    fn client_with_most_connections_makes_room_for_one_with_few() {
        assert_eq!(goes(&[(3, 1), (2, 7), (2, 6), (2, 5), (2, 4)], 4), Some(4));
        // Busy ones are no way to keep others out.
        assert_eq!(goes(&[(3, 1), (2, BUSY), (2, BUSY), (2, BUSY), (2, BUSY)], 4), Some(1));
        // A client that has as many is asked for an idle one first.
        assert_eq!(goes(&[(3, 1), (3, 2), (2, BUSY), (2, BUSY), (2, BUSY)], 4), Some(0));
    }

    #[test]
    fn client_with_most_connections_makes_room_for_itself() {
        assert_eq!(goes(&[(3, 1), (2, 2), (2, 3), (2, 4)], 2), Some(1));
    }

    #[test]
    fn connections_of_the_node_go_for_no_others_up_to_half() {
        assert_eq!(goes(&[(1, 1), (1, 2), (2, 3), (3, 4)], 4), Some(2));
        assert_eq!(goes(&[(1, 1), (1, 2), (1, 3), (3, 4)], 4), Some(0));
        // A newcomer that has most is its own client's affair.
        assert_eq!(goes(&[(1, 1), (2, 3), (2, 4), (2, 5)], 1), Some(1));
    }
}
