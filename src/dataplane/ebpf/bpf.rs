//! bpf(2) where aya has no call for it, and membarrier(2). The only unsafe code of this
//! program besides [`super::descriptors`].
//!
//! aya 0.14 has neither batched map operations nor cgroup links whose program can be replaced. Maps
//! and links here are file descriptors; what the maps hold is described in [`super::layout`].
//! Numbers and structures are those of `linux/bpf.h`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{from_mut, from_ref};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

pub use map::{Element, Map};

mod map;

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

/// Work of this process in the kernel's maps, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Elements that were read or written.
    pub elements: u64,
    /// Waits for runs of programs to end.
    pub waits: u64,
}

static ELEMENTS: AtomicU64 = AtomicU64::new(0);
static WAITS: AtomicU64 = AtomicU64::new(0);

/// Returns the work of this process.
pub fn work() -> Work {
    Work { elements: ELEMENTS.load(Ordering::Relaxed), waits: WAITS.load(Ordering::Relaxed) }
}

fn note_elements(elements: usize) {
    ELEMENTS.fetch_add(elements as u64, Ordering::Relaxed);
}

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
    WAITS.fetch_add(1, Ordering::Relaxed);
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
