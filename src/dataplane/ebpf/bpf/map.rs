//! Maps, read and written in batches.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{from_mut, from_ref};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    ARRAY, BatchAttributes, ElementAttributes, MAP_DELETE, MAP_LOOKUP, MAP_LOOKUP_BATCH, MAP_NEXT_KEY,
    MAP_UPDATE, MAP_UPDATE_BATCH, MapInfo, bpf, descriptor, map_info, note_elements,
};

/// Elements that one call reads or writes. The kernel needs room for a whole bucket of a hash.
const BATCH: usize = 4096;

/// Smallest buffer for the position of a batched read: a hash writes a 32-bit bucket number there,
/// an array its 32-bit index.
const POSITION_BYTES: usize = 8;

/// Key or value of a map: plain bytes of a fixed size, without padding.
pub trait Element: FromBytes + IntoBytes + Immutable {}

impl<T: FromBytes + IntoBytes + Immutable> Element for T {}

/// Map with keys `K` and values `V`, in the layout of the C program.
pub struct Map<K, V> {
    fd: OwnedFd,
    info: MapInfo,
    elements: PhantomData<fn() -> (K, V)>,
}

impl<K, V> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("fd", &self.fd).field("info", &self.info).finish()
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<K: Element, V: Element> Map<K, V> {
    /// Takes over the descriptor of a map.
    ///
    /// # Errors
    /// `InvalidData` if its keys or values have other sizes than `K` and `V`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        // All the calls below rely on it: the kernel reads and writes as many bytes as the map says.
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { fd, info, elements: PhantomData })
    }

    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// # Safety
    /// `value` must be the address of what `command` reads or writes there.
    unsafe fn element(&self, command: u32, key: &K, value: u64) -> io::Result<()> {
        note_elements(1);
        let mut attributes = ElementAttributes {
            fd: descriptor(self.as_fd()),
            key: from_ref(key) as u64,
            value,
            ..ElementAttributes::default()
        };
        // SAFETY: `new` compared the key's size; `value` is the caller's promise.
        unsafe { bpf(command, &mut attributes).map(drop) }
    }

    /// Reads the value of a key, if there is one.
    pub fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::new_zeroed();
        // SAFETY: `new` compared the value's size, and any bytes are a valid `V`.
        match unsafe { self.element(MAP_LOOKUP, key, from_mut(&mut value) as u64) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a key or replaces its value.
    pub fn update(&self, key: &K, value: &V) -> io::Result<()> {
        // SAFETY: `new` compared the value's size.
        unsafe { self.element(MAP_UPDATE, key, from_ref(value) as u64) }
    }

    /// Deletes a key; `NotFound` if it does not exist.
    pub fn delete(&self, key: &K) -> io::Result<()> {
        // SAFETY: the command uses no value.
        unsafe { self.element(MAP_DELETE, key, 0) }
    }

    /// Returns true if the map has no key.
    pub fn is_empty(&self) -> io::Result<bool> {
        let mut next = K::new_zeroed();
        let value = from_mut(&mut next) as u64;
        let mut attributes =
            ElementAttributes { fd: descriptor(self.as_fd()), value, ..ElementAttributes::default() };
        // SAFETY: `new` compared the key's size, and any bytes are a valid `K`.
        match unsafe { bpf(MAP_NEXT_KEY, &mut attributes) } {
            Ok(_) => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads all keys with one call each, for maps that may lack batches (tries before 5.13).
    pub fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys: Vec<K> = Vec::new();
        loop {
            let mut next = K::new_zeroed();
            let mut attributes = ElementAttributes {
                fd: descriptor(self.as_fd()),
                // Without a key the kernel returns the first one.
                key: keys.last().map_or(0, |last| from_ref(last) as u64),
                value: from_mut(&mut next) as u64,
                ..ElementAttributes::default()
            };
            // SAFETY: `new` compared the key's size, and any bytes are a valid `K`.
            match unsafe { bpf(MAP_NEXT_KEY, &mut attributes) } {
                Ok(_) => {
                    note_elements(1);
                    keys.push(next);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads keys and values of a whole hash, or of the first `limit` elements of an array.
    pub fn read(&self, limit: usize) -> io::Result<(Vec<K>, Vec<V>)> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut position = vec![0_u8; size_of::<K>().max(POSITION_BYTES)];
        let mut done = 0;
        while done < limit {
            // A hash needs room for its fullest bucket, even if fewer elements are left.
            let wanted = if self.info.kind == ARRAY { BATCH.min(limit - done) } else { BATCH };
            keys.resize_with(done + wanted, K::new_zeroed);
            values.resize_with(done + wanted, V::new_zeroed);
            let mut next = vec![0_u8; position.len()];
            let mut batch = BatchAttributes {
                // Without a position the kernel begins at the start.
                start: if done == 0 { 0 } else { position.as_ptr() as u64 },
                next: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr().wrapping_add(done) as u64,
                values: values.as_mut_ptr().wrapping_add(done) as u64,
                count: wanted as u32,
                fd: descriptor(self.as_fd()),
                ..BatchAttributes::default()
            };
            // SAFETY: there is room for `count` keys and values after `done`, and for the position.
            let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) };
            let got = (batch.count as usize).min(wanted);
            let ended = match result {
                Ok(_) => got == 0,
                // The last batch: it has `count` elements as well.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            note_elements(got);
            done += got;
            keys.truncate(done);
            values.truncate(done);
            position = next;
            if ended {
                break;
            }
        }
        Ok((keys, values))
    }

    /// Writes elements in order and goes on after one that the kernel refuses; returns those with
    /// their positions.
    pub fn write(&self, elements: impl IntoIterator<Item = (K, V)>) -> Vec<(usize, io::Error)> {
        let (keys, values): (Vec<K>, Vec<V>) = elements.into_iter().unzip();
        note_elements(keys.len());
        let mut failed = Vec::new();
        let mut done = 0;
        while let (Some(rest_of_keys), Some(rest_of_values)) = (keys.get(done..), values.get(done..))
            && !rest_of_keys.is_empty()
        {
            let count = BATCH.min(rest_of_keys.len());
            let mut batch = BatchAttributes {
                keys: rest_of_keys.as_ptr() as u64,
                values: rest_of_values.as_ptr() as u64,
                count: count as u32,
                fd: descriptor(self.as_fd()),
                ..BatchAttributes::default()
            };
            // SAFETY: both slices have `count` elements at least, because there are as many values as keys.
            match unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) } {
                Ok(_) => done += count,
                Err(error) => {
                    // The kernel says how many it wrote, unless it refused the whole call.
                    let written = if batch.count as usize >= count { 0 } else { batch.count as usize };
                    failed.push((done + written, error));
                    done += written + 1;
                }
            }
        }
        failed
    }
}
