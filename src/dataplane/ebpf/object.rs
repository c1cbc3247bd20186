//! The compiled programs, and loading them into the kernel.

use std::path::Path;
use std::time::Duration;

use aya::EbpfLoader;
use aya::programs::{CgroupSock, CgroupSockAddr, Program, SockOps};

use super::error::{self, Error};
use super::layout::MAPS;
use super::options::{Ejection, Options};

/// `l4lbd.bpf.c`, compiled: the committed `l4lbd.bpf.o`, unless `build.rs` had to make another one.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/l4lbd.bpf.o"));

/// Bits by which the programs divide nanoseconds to get their unit of time.
const TIME_SHIFT: u32 = 20;

/// Time after a failure for which it is remembered beyond the longest ejection.
const MEMORY: Duration = Duration::from_secs(60);

/// Functions that only newer kernels have.
struct Functions {
    /// `bpf_set_retval`, since 5.18.
    set_retval: bool,
    /// `bpf_get_netns_cookie` for programs that follow TCP, since 5.15.
    namespace: bool,
}

/// Loads the programs with the maps that are pinned in `directory`, and creates and pins those that
/// are not.
///
/// # Errors
/// If the kernel or this process's capabilities do not suffice.
pub fn load(directory: &Path, options: &Options) -> Result<aya::Ebpf, Error> {
    let load = |set_retval, namespace| load_with(directory, options, &Functions { set_retval, namespace });
    // A kernel that lacks a function refuses the program. Any other cause fails the last attempt as well.
    load(true, true).or_else(|_| load(false, true)).or_else(|_| load(false, false))
}

/// Converts a duration into the programs' unit of time.
fn time(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos() >> TIME_SHIFT).unwrap_or(u32::MAX)
}

/// Converts a time since the start of the kernel into the programs' unit, of which they have the lower bits.
pub fn time_of_clock(since_start: Duration) -> u32 {
    (since_start.as_nanos() >> TIME_SHIFT) as u32
}

/// Converts a time in the programs' unit.
pub fn milliseconds(time: u32) -> u64 {
    (u64::from(time) << TIME_SHIFT) / 1_000_000
}

/// Returns the time in the programs' unit for which a failure is remembered.
pub fn memory(ejection: &Ejection) -> u32 {
    time(ejection.limit.saturating_add(MEMORY))
}

fn load_with(directory: &Path, options: &Options, functions: &Functions) -> Result<aya::Ebpf, Error> {
    let Ejection { after, time: first, limit } = options.ejection;
    let constants = [
        ("has_set_retval", u32::from(functions.set_retval)),
        ("has_namespace", u32::from(functions.namespace)),
        ("udp_timeout", time(options.udp_timeout)),
        ("eject_after", after),
        ("eject_time", time(first)),
        ("eject_limit", time(limit)),
    ];
    let mut loader = EbpfLoader::new();
    // The programs use no structure of the kernel, and reading the kernel's BTF takes a while.
    loader.btf(None);
    for (name, value) in &constants {
        loader.override_global(name, value, true);
    }
    for map in &MAPS {
        loader.map_pin_path(map.name, directory.join(map.name));
    }
    let mut programs = loader.load(OBJECT).map_err(|error| error::load(&error))?;
    for (_, program) in programs.programs_mut() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
            Program::CgroupSock(program) => CgroupSock::load(program),
            Program::SockOps(program) => SockOps::load(program),
            _ => continue,
        };
        loaded.map_err(|error| error::load(&error))?;
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    /// A test of the eBPF suite compiles the source again and compares the code.
    #[test]
    fn committed_object_is_of_the_committed_source() {
        let files: [(&str, &[u8]); 3] = [
            ("l4lbd.bpf.c", include_bytes!("l4lbd.bpf.c")),
            ("compile", include_bytes!("compile")),
            ("l4lbd.bpf.o", include_bytes!("l4lbd.bpf.o")),
        ];
        let lines = files.map(|(name, content)| {
            let digest: String = Sha1::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digest}  {name}\n")
        });
        let recorded = include_str!("l4lbd.bpf.sha1");
        assert!(recorded.starts_with(&lines.concat()), "run src/dataplane/ebpf/compile and commit");
    }
}
