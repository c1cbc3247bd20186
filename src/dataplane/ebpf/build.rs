//! Compiles the eBPF program with clang; the object becomes a part of the library.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCE: &str = "src/dataplane/ebpf/l4lbd.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { fail("cargo sets no OUT_DIR") };
    let big = env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big");
    let mut command = Command::new(&clang);
    command.arg(if big { "--target=bpfeb" } else { "--target=bpfel" });
    // The second instruction set is the newest that a 5.10 kernel knows all of.
    command.args(["-mcpu=v2", "-O2", "-g", "-Wall", "-Werror", "-fno-stack-protector"]);
    // Debian keeps asm/ apart for each architecture, and clang looks only where its target's would be.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let multiarch = format!("/usr/include/{architecture}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        command.arg(format!("-I{multiarch}"));
    }
    command.args(["-c", SOURCE, "-o"]).arg(out.join("l4lbd.bpf.o"));
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => fail(&format!(
            "{clang} cannot compile {SOURCE}; it needs clang 12 or newer and the headers of libbpf-dev and \
             linux-libc-dev (Debian's names; tests/setup installs them)\n{}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => fail(&format!(
            "cannot run {clang}: {error}; the eBPF program is C and needs clang: apt-get install clang libbpf-dev \
             (or run tests/setup), or name another one in the environment variable CLANG"
        )),
    }
}

fn fail(text: &str) -> ! {
    eprintln!("l4lbd: {text}");
    exit(1)
}
