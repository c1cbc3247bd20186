//! Short lists, of which most have one item.
//!
//! A cluster has up to 100,000 tasks, and nearly each has one address, one port and one range of port resources. A
//! list on the heap takes 32 octets at least and the place of its address and length beside that. A [`Few`] has its
//! only item in that place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// List that is a slice in all respects.
#[derive(Clone)]
pub enum Few<T> {
    One([T; 1]),
    Many(Box<[T]>),
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(items: Vec<T>) -> Self {
        <[T; 1]>::try_from(items).map_or_else(|items| Self::Many(items.into()), Self::One)
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Vec::from_iter(items).into()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut Few<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Writes a list.
impl<T: Serialize> Serialize for Few<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_items_however_they_are_kept() {
        for items in [vec![], vec![7], vec![7, 8, 9]] {
            let few = Few::from(items.clone());
            assert_eq!((&*few, &few), (&*items, &Few::Many(items.clone().into())));
            let text = serde_json::to_string(&few).unwrap();
            assert_eq!(text, serde_json::to_string(&items).unwrap());
            assert_eq!(serde_json::from_str::<Few<i32>>(&text).unwrap(), few);
        }
    }

    #[test]
    fn one_item_takes_no_more_room_than_a_list_of_many() {
        assert_eq!(size_of::<Few<(u16, u16)>>(), size_of::<Box<[u8]>>());
    }
}
