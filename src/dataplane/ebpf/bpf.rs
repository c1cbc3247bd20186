//! bpf(2) where aya has no call for it, and membarrier(2); the only unsafe code of this program.
//!
//! Maps and links here are file descriptors that tell the kernel apart from others; what is in them
//! is left to [`super::layout`].

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Commands of bpf(2), by their numbers in `linux/bpf.h`.
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
const LINK_DETACH: u32 = 34;

/// `MEMBARRIER_CMD_GLOBAL`.
const MEMBARRIER_GLOBAL: libc::c_int = 1;

/// Which processors there are.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Elements that one call reads or writes; a bucket of a hash must fit in.
const BATCH: usize = 4096;

/// The kernel's description of a map; the first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    pub kind: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// The kernel's description of a cgroup link; the first fields of `struct bpf_link_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkInfo {
    pub kind: u32,
    pub id: u32,
    pub program: u32,
    _padding: u32,
    /// 0 when the cgroup was removed.
    pub cgroup: u64,
    pub hook: u32,
    _end: u32,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    size: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct Element {
    fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    start: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Link {
    first: u32,
    second: u32,
    third: u32,
    flags: u32,
}

/// # Safety
/// Every address in `attributes` must be valid for what `command` reads and writes there.
unsafe fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of `attributes`; the caller vouches for the rest.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    // No descriptor is larger.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens what is pinned at `path`.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut object = Object { path: path.as_ptr() as u64, ..Object::default() };
    // SAFETY: the path is a C string that outlives the call, which gives a descriptor that nobody else has.
    unsafe { bpf(OBJ_GET, &mut object).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut object = Object { path: path.as_ptr() as u64, fd: descriptor(fd), flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(OBJ_PIN, &mut object).map(drop) }
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut request =
        Info { fd: descriptor(fd), size: size_of::<T>() as u32, info: std::ptr::from_mut(&mut info) as u64 };
    // SAFETY: the kernel writes at most `size` bytes, and both types here are plain integers throughout.
    unsafe { bpf(OBJ_INFO, &mut request)? };
    Ok(info)
}

/// Describes a map. Anything else has a description of the same size at least, and nonsense in it.
pub fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

pub fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(fd)
}

/// Attaches a program to a cgroup, beside those of other tools.
pub fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<OwnedFd> {
    let mut link = Link { first: descriptor(program), second: descriptor(cgroup), third: hook, flags: 0 };
    // SAFETY: no addresses are passed, and the call gives a descriptor that nobody else has.
    unsafe { bpf(LINK_CREATE, &mut link).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Puts another program in a link's place for it, without a moment between the two.
pub fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut update = Link { first: descriptor(link), second: descriptor(program), third: 0, flags: 0 };
    // SAFETY: no addresses are passed.
    unsafe { bpf(LINK_UPDATE, &mut update).map(drop) }
}

/// Detaches at once; a link whose pins go is detached some time later.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut detach = descriptor(link);
    // SAFETY: no addresses are passed.
    unsafe { bpf(LINK_DETACH, &mut detach).map(drop) }
}

/// Waits until every program run that began before this call is over, so that none still uses what
/// it found in a map before.
pub fn wait_for_readers() {
    // SAFETY: takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    if result != 0 {
        // Refused where processors run without ticks. No program runs for a thousandth of this.
        thread::sleep(Duration::from_secs(1));
    } else if std::fs::read_to_string(ONLINE).is_ok_and(|processors| processors.trim() == "0") {
        // On a single processor the call does nothing, and a program may have been interrupted for another process.
        thread::sleep(Duration::from_millis(50));
    }
}

/// A map of plain keys and values.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    info: MapInfo,
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Map {
    /// Takes over the descriptor of a map.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { info: map_info(fd.as_fd())?, fd })
    }

    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    fn key_size(&self) -> usize {
        self.info.key_size as usize
    }

    fn value_size(&self) -> usize {
        self.info.value_size as usize
    }

    /// # Safety
    /// `value` has to be the address of as many bytes as `command` reads or writes there.
    unsafe fn element(&self, command: u32, key: &[u8], value: u64) -> io::Result<()> {
        if key.len() != self.key_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut element =
            Element { fd: descriptor(self.as_fd()), key: key.as_ptr() as u64, value, ..Element::default() };
        // SAFETY: the key has the map's size; `value` is the caller's promise.
        unsafe { bpf(command, &mut element).map(drop) }
    }

    /// The value of a key, if there is one.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_size()];
        // SAFETY: there is room for a value of the map's size.
        match unsafe { self.element(MAP_LOOKUP, key, value.as_mut_ptr() as u64) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the value has the map's size.
        unsafe { self.element(MAP_UPDATE, key, value.as_ptr() as u64) }
    }

    pub fn delete(&self, key: &[u8]) -> io::Result<()> {
        // SAFETY: no value is used.
        unsafe { self.element(MAP_DELETE, key, 0) }
    }

    /// All keys, one call for each; for maps that may lack batches (tries below 5.13).
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key_size()];
            let mut element = Element {
                fd: descriptor(self.as_fd()),
                value: next.as_mut_ptr() as u64,
                ..Element::default()
            };
            if let Some(last) = keys.last() {
                element.key = last.as_ptr() as u64;
            }
            // SAFETY: both keys have the map's size; without a key the kernel gives the first one.
            match unsafe { bpf(MAP_NEXT_KEY, &mut element) } {
                Ok(_) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// Keys and values of a whole hash, or of the first `limit` elements of an array.
    pub fn read(&self, limit: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        // Where to go on: the kernel's own token, which is never larger than a key or a word.
        let mut token = vec![0; self.key_size().max(8)];
        let mut done = 0;
        while done < limit {
            // A hash needs room for its fullest bucket, even when it has less left to give.
            let wanted = if self.info.kind == super::layout::ARRAY { BATCH.min(limit - done) } else { BATCH };
            let key_end = keys.len();
            let value_end = values.len();
            keys.resize(key_end + wanted * self.key_size(), 0);
            values.resize(value_end + wanted * self.value_size(), 0);
            let mut next = vec![0; token.len()];
            let mut batch = Batch {
                start: if done == 0 { 0 } else { token.as_ptr() as u64 },
                next: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr().wrapping_add(key_end) as u64,
                values: values.as_mut_ptr().wrapping_add(value_end) as u64,
                count: wanted as u32,
                fd: descriptor(self.as_fd()),
                ..Batch::default()
            };
            // SAFETY: there is room for `count` keys and values of the map's sizes, and for the token.
            let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) };
            let got = (batch.count as usize).min(wanted);
            let ended = match result {
                Ok(_) => got == 0,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            keys.truncate(key_end + got * self.key_size());
            values.truncate(value_end + got * self.value_size());
            done += got;
            token = next;
            if ended {
                break;
            }
        }
        Ok((keys, values))
    }

    /// Writes elements in order and goes on after one that the kernel refuses; returns those by
    /// their positions.
    pub fn write(&self, keys: &[u8], values: &[u8]) -> Vec<(usize, io::Error)> {
        let total = keys.len() / self.key_size().max(1);
        let mut failed = Vec::new();
        let mut done = 0;
        while done < total {
            let count = BATCH.min(total - done);
            let place = |bytes: &[u8], size: usize| {
                bytes.get(done * size..(done + count) * size).map(|part| part.as_ptr() as u64)
            };
            let (Some(from_keys), Some(from_values)) =
                (place(keys, self.key_size()), place(values, self.value_size()))
            else {
                failed.push((done, io::ErrorKind::InvalidInput.into()));
                break;
            };
            let mut batch = Batch {
                keys: from_keys,
                values: from_values,
                count: count as u32,
                fd: descriptor(self.as_fd()),
                ..Batch::default()
            };
            // SAFETY: `place` found `count` keys and as many values of the map's sizes.
            match unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) } {
                Ok(_) => done += count,
                Err(error) => {
                    // The kernel tells how many it wrote, unless it refused the whole.
                    let written = if batch.count as usize >= count { 0 } else { batch.count as usize };
                    done += written;
                    failed.push((done, error));
                    done += 1;
                }
            }
        }
        failed
    }
}
