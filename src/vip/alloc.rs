//! Addresses for names: where Minuteman's hash puts them, and stable from then on.
//!
//! A name starts at `min + hash(name) mod (max - min)` of its range and takes the first free address
//! from there, wrapping around at the end. Unlike Minuteman's, an address once given stays with its
//! name across restarts, a part of the range can be kept free for literal VIPs, and names that find no
//! room are reported while the rest goes on.
//!
//! What belongs here: ranges, leases and Minuteman's hash. Pure. No label of a tenant has a part in this:
//! all nodes that have given no address yet come to the same addresses, and a node that has differs only
//! in names that compete for one address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::reserved;
use crate::cluster::SharedMap;

mod phash;

/// A range of addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    min: IpAddr,
    max: IpAddr,
}

/// Reason why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("{0:?} is not an address range: write FIRST-LAST, such as 11.0.0.0-11.255.255.255")]
    Syntax(String),
    #[error("{0:?} mixes IPv4 and IPv6: both ends of a range are of one family")]
    Mixed(String),
    #[error("{0:?} ends before it starts: the lower address comes first")]
    Backwards(String),
}

impl AddressRange {
    /// DC/OS' range for IPv4 VIPs.
    pub const DCOS_V4: Self = Self {
        min: IpAddr::V4(Ipv4Addr::new(11, 0, 0, 0)),
        max: IpAddr::V4(Ipv4Addr::new(11, 255, 255, 255)),
    };

    /// DC/OS' range for IPv6 VIPs.
    pub const DCOS_V6: Self = Self {
        min: IpAddr::V6(Ipv6Addr::new(0xfd01, 0xc, 0, 0, 0, 0, 0, 0)),
        max: IpAddr::V6(Ipv6Addr::new(0xfd01, 0xc, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff)),
    };

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.min.is_ipv4() && (self.min..=self.max).contains(&address)
    }

    /// Returns true if all addresses of `other` are in the range.
    pub fn covers(&self, other: &Self) -> bool {
        self.contains(other.min) && self.contains(other.max)
    }

    pub fn is_ipv4(&self) -> bool {
        self.min.is_ipv4()
    }

    /// Returns what some addresses of the range are that no VIP may have; `None` if there are none.
    pub fn reserved(&self) -> Option<&'static str> {
        reserved::kind_within(self.min, self.max)
    }

    /// The fewest networks that make up the range.
    pub fn networks(&self) -> Vec<IpNet> {
        match (self.min, self.max) {
            (IpAddr::V4(min), IpAddr::V4(max)) => Ipv4Subnets::new(min, max, 0).map(IpNet::from).collect(),
            (IpAddr::V6(min), IpAddr::V6(max)) => Ipv6Subnets::new(min, max, 0).map(IpNet::from).collect(),
            _ => Vec::new(),
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.min {
            IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }

    /// Number of addresses.
    pub fn size(&self) -> usize {
        usize::try_from((number(self.max) - number(self.min)).saturating_add(1)).unwrap_or(usize::MAX)
    }

    /// Number of addresses that are tried for a name, which is one less than there are.
    fn span(&self) -> u128 {
        // Of a range of one address none would be tried, and the hash would be divided by zero.
        (number(self.max) - number(self.min)).max(1)
    }

    /// Returns the address at which the search for a name's address starts.
    fn start(&self, name: &str) -> u128 {
        let span = self.span();
        let hash = match self.min {
            IpAddr::V4(_) => u128::from(phash::phash2(name.as_bytes())) % span,
            IpAddr::V6(_) => modulo(&Sha1::digest(name.as_bytes()), span),
        };
        number(self.min) + hash
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        let (min, max) = text.split_once('-').ok_or_else(syntax)?;
        let min: IpAddr = min.trim().parse().map_err(|_| syntax())?;
        let max: IpAddr = max.trim().parse().map_err(|_| syntax())?;
        if min.is_ipv4() != max.is_ipv4() {
            return Err(RangeError::Mixed(text.to_owned()));
        }
        if max < min {
            return Err(RangeError::Backwards(text.to_owned()));
        }
        Ok(Self { min, max })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

/// The addresses of one family that names hold.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(from = "Held", into = "Held")]
pub struct Leases {
    held: Held,
    /// Addresses of all names, and those that no name may have; from the first new name on.
    taken: Option<Taken>,
}

/// Addresses by name.
type Held = SharedMap<String, IpAddr>;

impl From<Held> for Leases {
    fn from(held: Held) -> Self {
        Self { held, taken: None }
    }
}

impl From<Leases> for Held {
    fn from(leases: Leases) -> Self {
        leases.held
    }
}

/// Shares the addresses; what follows from them is found again if it is asked for.
impl Clone for Leases {
    fn clone(&self) -> Self {
        self.held.clone().into()
    }
}

impl PartialEq for Leases {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held
    }
}

impl Eq for Leases {}

impl Leases {
    /// The address that `name` holds.
    pub fn get(&self, name: &str) -> Option<IpAddr> {
        self.held.get(name).copied()
    }

    /// All names with their addresses.
    pub fn held(&self) -> &SharedMap<String, IpAddr> {
        &self.held
    }

    /// Returns the number of names that hold one.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns true if no name holds one.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the addresses by name, to be shared.
    pub fn addresses(&self) -> &SharedMap<String, IpAddr> {
        &self.held
    }

    /// Names with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.held.iter().map(|(name, address)| (name.as_str(), *address))
    }

    /// Gives an address of `range` to each name that has none, in the order of `names`, but none of
    /// `literals`; returns the names for which there was no room.
    pub fn assign<'n>(
        &mut self,
        range: &AddressRange,
        names: impl IntoIterator<Item = &'n str>,
        literals: impl IntoIterator<Item = AddressRange>,
    ) -> Vec<String> {
        // The usual pass brings no new name, and then the addresses in use need not be gone through.
        let Self { held, taken } = self;
        let mut fresh = names.into_iter().filter(|name| !held.contains_key(*name)).peekable();
        if fresh.peek().is_none() {
            return Vec::new();
        }
        // Gone through for the first new name alone.
        let taken = taken.get_or_insert_with(|| {
            let mut taken = Taken::default();
            held.values().for_each(|address| taken.insert(number(*address), number(*address)));
            taken
        });
        for part in literals.into_iter().filter(|part| range.covers(part)) {
            taken.insert(number(part.min), number(part.max));
        }
        // Added at the end, because the iterator over `names` still asks which of them have an address.
        let mut placed = BTreeMap::new();
        let mut unplaced = Vec::new();
        for name in fresh {
            // A name comes once for each of its ports.
            if placed.contains_key(name) {
                continue;
            }
            match taken.first_free(range, range.start(name)) {
                Some(free) => {
                    taken.insert(free, free);
                    placed.insert(name.to_owned(), range.address(free));
                }
                None => unplaced.push(name.to_owned()),
            }
        }
        self.held.extend(placed);
        unplaced
    }

    /// Takes the addresses of all names back that `keep` doesn't want.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let gone: Vec<(String, IpAddr)> = self
            .held
            .iter()
            .filter(|(name, _)| !keep(name))
            .map(|(name, address)| (name.clone(), *address))
            .collect();
        for (name, address) in gone {
            self.held.remove(&name);
            if let Some(taken) = &mut self.taken {
                taken.remove(number(address));
            }
        }
    }

    /// Drops what can't be held any more: addresses outside of `range` or in `literals`, and all but the
    /// first of names that share one.
    pub fn confine(&mut self, range: &AddressRange, literals: Option<&AddressRange>) {
        let mut seen = std::collections::BTreeSet::new();
        let is_allowed =
            |address| range.contains(address) && !literals.is_some_and(|literals| literals.contains(address));
        self.held.retain(|_, address| is_allowed(*address) && seen.insert(*address));
        // Of names that shared an address one may have gone.
        self.taken = None;
    }
}

/// Addresses that are taken, as runs from the first to the last, so that a search steps over a
/// crowded stretch at once.
#[derive(Clone, Debug, Default)]
struct Taken(BTreeMap<u128, u128>);

impl Taken {
    /// Takes everything from `first` to `last`.
    fn insert(&mut self, first: u128, last: u128) {
        let (mut start, mut end) = (first, last);
        // Runs that overlap the new one or touch it become one with it.
        if let Some(before) = self.run_start(first.saturating_sub(1)) {
            start = before;
        }
        while let Some((&other, &other_end)) = self.0.range(start..=last.saturating_add(1)).next_back() {
            self.0.remove(&other);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    /// Gives a number back.
    fn remove(&mut self, number: u128) {
        let Some(start) = self.run_start(number) else { return };
        let Some(end) = self.0.remove(&start) else { return };
        if start < number {
            self.0.insert(start, number - 1);
        }
        if number < end {
            self.0.insert(number + 1, end);
        }
    }

    /// The first free number from `start` on, wrapping from the end of `range` to its beginning;
    /// the last of all candidates is not tried, as in Minuteman.
    fn first_free(&self, range: &AddressRange, start: u128) -> Option<u128> {
        let (min, max) = (number(range.min), number(range.max));
        // Names with hashes next to each other make long runs, and tenants can choose their names' hashes.
        let forward = self.run_end(start).map_or(Some(start), |end| end.checked_add(1));
        if let Some(free) = forward.filter(|&free| free <= max) {
            return (free - start < range.span()).then_some(free);
        }
        let free = self.run_end(min).map_or(Some(min), |end| end.checked_add(1))?;
        // `free` is below `start`, or everything is taken and it is not.
        let tried = (max - start).checked_add(1)?.checked_add(free - min)?;
        (free < start && tried < range.span()).then_some(free)
    }

    /// Last number of the run that holds `number`.
    fn run_end(&self, number: u128) -> Option<u128> {
        self.0.range(..=number).next_back().map(|(_, &end)| end).filter(|&end| end >= number)
    }

    /// First number of the run that holds `number`.
    fn run_start(&self, number: u128) -> Option<u128> {
        self.0.range(..=number).next_back().filter(|&(_, &end)| end >= number).map(|(&start, _)| start)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A big-endian number of any length, modulo `divisor`, bit by bit because it has more than 128 bits.
fn modulo(bytes: &[u8], divisor: u128) -> u128 {
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| u128::from(byte >> shift & 1)));
    bits.fold(0, |rest, bit| {
        // The doubled rest may need more bits than there are, so that the divisor is taken off before.
        let doubled = if rest >= divisor - rest { rest - (divisor - rest) } else { rest + rest };
        if bit > divisor - 1 - doubled { 0 } else { doubled + bit }
    })
}

#[cfg(test)]
mod tests;
