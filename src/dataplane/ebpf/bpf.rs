//! bpf(2) where aya has no call for it, and membarrier(2). The only unsafe code of this
//! program besides [`super::descriptors`].
//!
//! aya 0.14 has neither batched map operations nor cgroup links whose program can be replaced. Maps
//! and links here are file descriptors; what the maps hold is described in [`super::layout`].
//! Numbers and structures are those of `linux/bpf.h`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{from_mut, from_ref};
use std::thread;
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Map types, `BPF_MAP_TYPE_*`.
pub const HASH: u32 = 1;
pub const ARRAY: u32 = 2;
pub const LRU_HASH: u32 = 9;
pub const LPM_TRIE: u32 = 11;
pub const SK_STORAGE: u32 = 24;

/// Map flag `BPF_F_NO_PREALLOC`.
pub const NO_PREALLOC: u32 = 1;

/// Link type `BPF_LINK_TYPE_CGROUP`.
pub const CGROUP_LINK: u32 = 3;

/// Commands of bpf(2).
const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_INFO: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const ITER_CREATE: u32 = 33;
const LINK_DETACH: u32 = 34;

/// Attach type `BPF_TRACE_ITER`.
const TRACE_ITER: u32 = 28;

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const MEMBARRIER_GLOBAL: libc::c_int = 1;

/// List of the processors that are in use, such as `0-3`.
const ONLINE_PROCESSORS: &str = "/sys/devices/system/cpu/online";

/// Elements that one call reads or writes. The kernel needs room for a whole bucket of a hash.
const BATCH: usize = 4096;

/// Smallest buffer for the position of a batched read: a hash writes a 32-bit bucket number there,
/// an array its 32-bit index.
const POSITION_BYTES: usize = 8;

/// Description of a map; the first fields of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes)]
#[repr(C)]
pub struct MapInfo {
    /// Map type, `BPF_MAP_TYPE_*`.
    pub kind: u32,
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// Description of a cgroup link; the first fields of `struct bpf_link_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct LinkInfo {
    /// Link type, `BPF_LINK_TYPE_*`.
    pub kind: u32,
    pub id: u32,
    pub program: u32,
    _padding: u32,
    /// Inode number of the cgroup; 0 when the cgroup was removed.
    pub cgroup: u64,
    /// Attach type of the program, `enum bpf_attach_type`.
    pub hook: u32,
    _end: u32,
}

/// Attributes of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[derive(Default, IntoBytes)]
#[repr(C)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[derive(IntoBytes)]
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    size: u32,
    info: u64,
}

/// Attributes of the `BPF_MAP_*_ELEM` commands and `BPF_MAP_GET_NEXT_KEY`.
#[derive(Default, IntoBytes)]
#[repr(C)]
struct ElementAttributes {
    fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Attributes of the `BPF_MAP_*_BATCH` commands.
#[derive(Default, IntoBytes)]
#[repr(C)]
struct BatchAttributes {
    start: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Attributes of `BPF_LINK_CREATE` (program, target, attach type) and `BPF_LINK_UPDATE` (link, program).
#[derive(IntoBytes)]
#[repr(C)]
struct LinkAttributes {
    first: u32,
    second: u32,
    third: u32,
    flags: u32,
}

/// Attributes of `BPF_LINK_CREATE` for an iterator over a map.
#[derive(IntoBytes)]
#[repr(C)]
struct IteratorAttributes {
    program: u32,
    target: u32,
    kind: u32,
    flags: u32,
    /// Address of the map's descriptor, and its size.
    information: u64,
    size: u32,
    _padding: u32,
}

/// # Safety
/// Every address in `attributes` must be valid for what `command` reads and writes there.
unsafe fn bpf<T: IntoBytes>(command: u32, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of `attributes`; the caller vouches for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, from_mut(attributes), size_of::<T>()) };
    // A descriptor is an int, so the cast loses nothing.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens the map, link or program that is pinned at `path`.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attributes = PinAttributes { path: path.as_ptr() as u64, ..PinAttributes::default() };
    // SAFETY: the path is a C string that outlives the call, which returns a new descriptor.
    unsafe { bpf(OBJ_GET, &mut attributes).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Pins a map, link or program at `path`, which must not exist.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = PinAttributes { path: path.as_ptr() as u64, fd: descriptor(fd), flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attributes).map(drop) }
}

fn info<T: FromBytes + IntoBytes>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::new_zeroed();
    let mut attributes =
        InfoAttributes { fd: descriptor(fd), size: size_of::<T>() as u32, info: from_mut(&mut info) as u64 };
    // SAFETY: the kernel writes at most `size` bytes, and any bytes are a valid `T`.
    unsafe { bpf(OBJ_INFO, &mut attributes)? };
    Ok(info)
}

/// Describes a map. The fields mean nothing if the descriptor is that of a program or link.
pub fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

/// Describes a cgroup link; only `kind` has a meaning if it is another type of link.
pub fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(fd)
}

/// Attaches a program to a cgroup, beside the programs of other tools.
pub fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<OwnedFd> {
    let mut attributes =
        LinkAttributes { first: descriptor(program), second: descriptor(cgroup), third: hook, flags: 0 };
    // SAFETY: no addresses are passed, and the call returns a new descriptor.
    unsafe { bpf(LINK_CREATE, &mut attributes).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Replaces the program of a link atomically: every run uses the old program or the new one.
pub fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes =
        LinkAttributes { first: descriptor(link), second: descriptor(program), third: 0, flags: 0 };
    // SAFETY: no addresses are passed.
    unsafe { bpf(LINK_UPDATE, &mut attributes).map(drop) }
}

/// Detaches a link at once. The kernel detaches some time later when only the last pin goes.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = descriptor(link);
    // SAFETY: no addresses are passed.
    unsafe { bpf(LINK_DETACH, &mut attributes).map(drop) }
}

/// Runs an iterator's program for each element of a map, and once more at the end. What the program writes into maps
/// is its result.
pub fn iterate(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let map = descriptor(map);
    let mut attributes = IteratorAttributes {
        program: descriptor(program),
        target: 0,
        kind: TRACE_ITER,
        flags: 0,
        information: from_ref(&map) as u64,
        size: size_of_val(&map) as u32,
        _padding: 0,
    };
    // SAFETY: the address is that of `size` bytes, and the call returns a new descriptor.
    let link = unsafe { bpf(LINK_CREATE, &mut attributes).map(|fd| OwnedFd::from_raw_fd(fd))? };
    let mut attributes: [u32; 2] = [descriptor(link.as_fd()), 0];
    // SAFETY: no addresses are passed, and the call returns a new descriptor.
    let run = unsafe { bpf(ITER_CREATE, &mut attributes).map(|fd| OwnedFd::from_raw_fd(fd))? };
    let mut run = File::from(run);
    loop {
        match run.read(&mut [0; 8]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // The kernel wants to be asked again after a million elements.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until every program run that began before this call has ended, so that none of them still
/// uses what it found in a map.
pub fn wait_for_readers() {
    // SAFETY: takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    if result != 0 {
        // The call is refused where processors run without ticks (nohz_full). A run takes microseconds.
        thread::sleep(Duration::from_secs(1));
    } else if fs::read_to_string(ONLINE_PROCESSORS).is_ok_and(|processors| processors.trim() == "0") {
        // On a single processor the call returns at once, while a preempted run may still have to end.
        thread::sleep(Duration::from_millis(50));
    }
}

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
                Ok(_) => keys.push(next),
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
