//! A value that knows whether anything may have changed in it.

use std::ops::{Deref, DerefMut};

/// A value that notes each access that can change it: comparing 10,000 names with what is on disk costs more than
/// an event that changes none of them.
#[derive(Clone, Debug, Default)]
pub struct Tracked<T> {
    value: T,
    is_touched: bool,
}

impl<T> Tracked<T> {
    /// A value that counts as changed.
    pub fn new(value: T) -> Self {
        Self { value, is_touched: true }
    }

    /// Returns true if there was an access that can have changed it since the last call of [`Self::settle`].
    pub fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// Notes an access.
    pub fn touch(&mut self) {
        self.is_touched = true;
    }

    /// Forgets the accesses so far.
    pub fn settle(&mut self) {
        self.is_touched = false;
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_touched = true;
        &mut self.value
    }
}
