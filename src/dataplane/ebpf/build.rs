//! Provides the compiled eBPF programs to the library, as `l4lbd.bpf.o` in `OUT_DIR`.
//!
//! The committed object is used, so that building needs no clang. Only if the source has changed since it
//! was compiled, if the target is big-endian, or if the variable `CLANG` names a compiler, the script
//! `compile` makes another one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use sha1::{Digest, Sha1};

const DIRECTORY: &str = "src/dataplane/ebpf";
const OBJECT: &str = "l4lbd.bpf.o";
/// Files that belong together, and their digests as sha1sum(1) writes them, with the version of clang as a comment.
const FILES: [&str; 3] = ["l4lbd.bpf.c", "compile", OBJECT];
const DIGESTS: &str = "l4lbd.bpf.sha1";

fn main() {
    for file in FILES.into_iter().chain([DIGESTS]) {
        println!("cargo::rerun-if-changed={DIRECTORY}/{file}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { fail("cargo sets no OUT_DIR") };
    let object = out.join(OBJECT);
    let is_big_endian = env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big");
    let changed = changed_files();
    if is_big_endian {
        compile(&object, "bpfeb", "the committed object is for little-endian machines");
    } else if !changed.is_empty() {
        let reason = format!("the committed {OBJECT} is out of date ({} changed)", changed.join(", "));
        compile(&object, "bpfel", &reason);
        println!("cargo::warning={reason}; before you commit, run {DIRECTORY}/compile to update it");
    } else if env::var_os("CLANG").is_some() {
        compile(&object, "bpfel", "the environment variable CLANG is set");
    } else if let Err(error) = fs::copy(Path::new(DIRECTORY).join(OBJECT), &object) {
        fail(&format!("cannot copy {DIRECTORY}/{OBJECT} to {}: {error}", object.display()));
    }
}

/// Lists the files that are not as they were when the committed object was made.
fn changed_files() -> Vec<&'static str> {
    let path = Path::new(DIRECTORY).join(DIGESTS);
    let digests = match fs::read_to_string(&path) {
        Ok(digests) => digests,
        Err(error) => fail(&format!("cannot read {}: {error}", path.display())),
    };
    let is_recorded = |file: &&str| {
        let content = fs::read(Path::new(DIRECTORY).join(file)).unwrap_or_default();
        let digest: String = Sha1::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        digests.lines().any(|line| line == format!("{digest}  {file}"))
    };
    FILES.into_iter().filter(|file| !is_recorded(file)).collect()
}

/// Compiles the source for a target of clang. `reason` says why the committed object does not do.
fn compile(object: &Path, target: &str, reason: &str) {
    let script = Path::new(DIRECTORY).join("compile");
    match Command::new("sh").arg(script).arg(object).arg(target).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => fail(&format!(
            "cannot compile {DIRECTORY}/l4lbd.bpf.c, which is necessary because {reason}. That needs clang 12 or \
             newer, llvm-strip, and the headers of libbpf and Linux (Debian: apt-get install clang llvm libbpf-dev \
             linux-libc-dev); others can be named in the environment variables CLANG and LLVM_STRIP.\n{}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => {
            fail(&format!("cannot run {DIRECTORY}/compile, which is necessary because {reason}: {error}"))
        }
    }
}

fn fail(text: &str) -> ! {
    eprintln!("l4lbd: {text}");
    exit(1)
}
