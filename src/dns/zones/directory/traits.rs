//! Properties that tasks have together, by which an answer passes over all of them at once.

/// Properties that some tasks have: addresses of a family, ports of a protocol. Without one of them, none of the
/// tasks need be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(u8);

/// Number of properties.
const PROPERTIES: usize = 7;

impl Traits {
    /// The container has an address of the family.
    pub const CONTAINER4: Self = Self(1);
    pub const CONTAINER6: Self = Self(2);
    /// The agent has one.
    pub const AGENT4: Self = Self(4);
    pub const AGENT6: Self = Self(8);
    /// There are ports of the protocol: discovery ports, or else resources.
    pub const TCP: Self = Self(16);
    pub const UDP: Self = Self(32);
    /// There are port resources.
    pub const RESOURCES: Self = Self(64);
    /// Nothing is known, and everything may be there.
    pub(super) const UNKNOWN: Self = Self(u8::MAX);

    /// True if any of `wanted` may be there.
    pub fn may_have(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// The properties of both.
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn add(&mut self, others: Self, is_there: bool) {
        if is_there {
            *self = self.with(others);
        }
    }
}

/// Numbers of tasks that have each property: one that comes or goes changes them without a look at the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TraitCounts([u32; PROPERTIES]);

impl TraitCounts {
    pub fn add(&mut self, traits: Traits) {
        self.of(traits).for_each(|count| *count += 1);
    }

    pub fn remove(&mut self, traits: Traits) {
        self.of(traits).for_each(|count| *count = count.saturating_sub(1));
    }

    /// Returns the properties that any task has.
    pub fn traits(&self) -> Traits {
        let bits = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        Traits(bits.fold(0, |all, (bit, _)| all | 1 << bit))
    }

    fn of(&mut self, traits: Traits) -> impl Iterator<Item = &mut u32> {
        let counts = self.0.iter_mut().enumerate();
        counts.filter(move |(bit, _)| traits.0 & 1 << bit != 0).map(|(_, count)| count)
    }
}
