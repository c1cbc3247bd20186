//! Shares in the questions under way: one client, or the upstreams of one route, cannot take all of them.
//!
//! Pure. Until three quarters of the places are in use anything goes. In the last quarter a client gets a place
//! if it has fewer than an even part of all places (one part is kept for the next client), and a route likewise leaves some to the others. For
//! example, a client that asks without end holds 768 places; another one's question then still gets one of
//! the 256 that are left, and a question of the first does not.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::dns::usage::{Metered, Usage};

/// Questions that may be under way at once, those of all clients together.
pub const MAX_QUESTIONS: usize = 1024;

/// Number of questions from which on shares count.
const PRESSURE: usize = MAX_QUESTIONS / 4 * 3;

/// Places that are kept for each other route.
const RESERVED: usize = MAX_QUESTIONS / 16;

/// Smallest share of a client, however many there are: a resolver asks for both families at once.
const LEAST: usize = 8;

/// The address by which a client's questions and connections are counted: a host may use every address of its
/// IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            address => Self(address),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Questions under way by client and by route.
#[derive(Debug)]
pub struct Shares {
    total: usize,
    clients: HashMap<Client, usize>,
    routes: Vec<usize>,
    /// Questions that got no place.
    refused: u64,
}

impl Metered for Shares {
    fn usage(&self, name: &str) -> Usage {
        let (share, refused) = (share(self.clients.len() + 1), self.refused);
        let (used, limit) = (self.total, MAX_QUESTIONS);
        let usage = Usage { name: name.to_owned(), used, limit, share, refused, ..Usage::default() };
        usage.of_clients(self.clients.iter().map(|(client, used)| (client, *used)))
    }
}

/// Places that each of so many clients may have when all are wanted.
fn share(clients: usize) -> usize {
    (MAX_QUESTIONS / clients.max(1)).max(LEAST)
}

impl Shares {
    /// Shares of this number of routes, none of them in use.
    pub fn new(routes: usize) -> Self {
        Self { total: 0, clients: HashMap::new(), routes: vec![0; routes], refused: 0 }
    }

    /// Takes a place for a question. Returns false if the client or the route has used its share up.
    pub fn take(&mut self, client: Client, route: usize) -> bool {
        let used = self.clients.get(&client).copied().unwrap_or_default();
        if self.total >= MAX_QUESTIONS || self.total >= PRESSURE && !self.has_share(used, route) {
            self.refused += 1;
            return false;
        }
        self.total += 1;
        *self.clients.entry(client).or_default() += 1;
        if let Some(count) = self.routes.get_mut(route) {
            *count += 1;
        }
        true
    }

    /// True if a client with `used` places, and a route, may have one more under pressure.
    fn has_share(&self, used: usize, route: usize) -> bool {
        // One more than there are, so that the next client finds room.
        let clients = self.clients.len() + usize::from(used == 0) + 1;
        let others = self.routes.len().saturating_sub(1).min(MAX_QUESTIONS / RESERVED / 4);
        let of_route = self.routes.get(route).copied().unwrap_or_default();
        used < share(clients) && of_route < MAX_QUESTIONS - RESERVED * others
    }

    /// Number of questions under way.
    pub fn under_way(&self) -> usize {
        self.total
    }

    /// Gives a place back.
    pub fn release(&mut self, client: Client, route: usize) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.routes.get_mut(route) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.clients.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u16) -> Client {
        let [high, low] = last.to_be_bytes();
        Client::from(IpAddr::from([10, 0, high, low]))
    }

    /// Places that a client gets if it asks without end.
    fn fill(shares: &mut Shares, client: Client, route: usize) -> usize {
        (0..2 * MAX_QUESTIONS).filter(|_| shares.take(client, route)).count()
    }

    #[test]
    fn one_client_alone_gets_most_places_and_leaves_room_for_another() {
        let mut shares = Shares::new(2);
        assert_eq!(fill(&mut shares, client(1), 0), PRESSURE);
        assert!(shares.take(client(2), 0) && shares.take(client(2), 1));
    }

    #[test]
    fn a_client_beyond_its_share_waits_for_those_below_theirs() {
        let mut shares = Shares::new(1);
        for _ in 0..PRESSURE {
            assert!(shares.take(client(1), 0));
        }
        assert!(shares.take(client(2), 0));
        assert!(!shares.take(client(1), 0), "it has more than half");
        assert!(fill(&mut shares, client(2), 0) > 200);
        // What is given back can be taken again.
        shares.release(client(1), 0);
        assert!(shares.take(client(3), 0));
    }

    #[test]
    fn a_route_leaves_places_to_the_others() {
        let mut shares = Shares::new(2);
        for number in 0..2000 {
            shares.take(client(number), 0);
        }
        assert!(shares.take(client(1), 1));
        assert!(!shares.take(client(2001), 0));
    }

    #[test]
    fn use_tells_who_has_most_and_how_many_were_refused() {
        let mut shares = Shares::new(1);
        fill(&mut shares, client(1), 0);
        assert!(shares.take(client(2), 0));
        let usage = shares.usage("questions");
        assert!(usage.is_pressing());
        assert_eq!((usage.used, usage.limit, usage.clients), (PRESSURE + 1, MAX_QUESTIONS, 2));
        assert_eq!(usage.largest, Some(("10.0.0.1".to_owned(), PRESSURE)));
        assert_eq!((usage.share, usage.refused), (MAX_QUESTIONS / 3, (2 * MAX_QUESTIONS - PRESSURE) as u64));
    }

    #[test]
    fn released_clients_are_forgotten() {
        let mut shares = Shares::new(1);
        assert!(shares.take(client(1), 0));
        shares.release(client(1), 0);
        assert_eq!((shares.total, shares.clients.len(), shares.routes[0]), (0, 0, 0));
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        let of = |text: &str| Client::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("fd00::1"), of("fd00::ffff:0:0:2"));
        assert_ne!(of("fd00::1"), of("fd00:0:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
