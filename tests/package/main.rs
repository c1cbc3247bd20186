//! The Debian package: completions are up to date, every file of `systemd/` is in it, and the program runs on the
//! oldest distribution that is promised.
//!
//! `L4LBD_WRITE=1 cargo test --test package` writes the completions anew. `tests/install/run --deb` builds, installs,
//! upgrades and purges the package in a Debian 12.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use l4lbd::cli::Cli;
use object::Endianness;
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};

/// Version of glibc that systemd/README.md promises. Ubuntu 22.04 has 2.35, Debian 12 has 2.36.
const GLIBC: (u32, u32) = (2, 34);

/// Files that the package is made from, and does not contain.
const TOOLS: &str = "systemd/deb";

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn completions_are_up_to_date() {
    let directory = Path::new("systemd/completions");
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut fresh = Vec::new();
        clap_complete::generate(shell, &mut visible(), "l4lbd", &mut fresh);
        let path = directory.join(match shell {
            Shell::Zsh => "_l4lbd",
            Shell::Fish => "l4lbd.fish",
            _ => "l4lbd.bash",
        });
        if std::env::var_os("L4LBD_WRITE").is_some() {
            fs::write(&path, fresh).unwrap();
            continue;
        }
        assert!(
            read(&path) == fresh,
            "{} is not what the commands are now; L4LBD_WRITE=1 cargo test --test package writes it anew",
            path.display()
        );
    }
}

/// Returns the commands that people use.
fn visible() -> Command {
    let all = Cli::command();
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("l4lbd")
        .disable_help_subcommand(true)
        .args(all.get_arguments().cloned())
        .subcommands(commands)
}

#[test]
fn every_file_for_a_node_is_in_the_package() {
    let manifest: toml::Table = toml::from_str(&fs::read_to_string("Cargo.toml").unwrap()).unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let mut packed = BTreeSet::new();
    for asset in assets {
        let source = asset[0].as_str().unwrap();
        if source.starts_with("target/") {
            continue;
        }
        let found = matching(source);
        assert!(!found.is_empty(), "the package has a file that is not there: {source}");
        packed.extend(found);
    }
    let mut present = BTreeSet::new();
    walk(Path::new("systemd"), &mut present);
    present.retain(|path| !path.starts_with(TOOLS));
    let missing: Vec<_> = present.difference(&packed).collect();
    assert!(missing.is_empty(), "not in [package.metadata.deb] of Cargo.toml: {missing:?}");
}

/// Returns the files that a path stands for, in which the last part may begin with `*`.
fn matching(source: &str) -> Vec<PathBuf> {
    let path = Path::new(source);
    let (directory, name) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
    let Some(end) = name.strip_prefix('*') else {
        return path.exists().then(|| path.to_owned()).into_iter().collect();
    };
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().ends_with(end)).collect()
}

fn walk(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn program_needs_no_newer_library_than_is_promised() {
    let data = read(Path::new(env!("CARGO_BIN_EXE_l4lbd")));
    let versions = glibc_versions(&data);
    let newest = versions.iter().max().expect("the program needs no glibc");
    assert!(*newest <= GLIBC, "the program needs glibc {newest:?}, and {GLIBC:?} is promised");
}

/// Returns the versions of glibc that a program asks for.
fn glibc_versions(data: &[u8]) -> BTreeSet<(u32, u32)> {
    let file = ElfFile64::<Endianness>::parse(data).unwrap();
    let (endian, sections) = (file.endian(), file.elf_section_table());
    let mut found = BTreeSet::new();
    for section in sections.iter() {
        let Some((mut needed, link)) = section.gnu_verneed(endian, data).unwrap() else { continue };
        let strings = sections.strings(endian, data, link).unwrap();
        while let Some((_, mut versions)) = needed.next().unwrap() {
            while let Some(version) = versions.next().unwrap() {
                let name = std::str::from_utf8(version.name(endian, strings).unwrap()).unwrap();
                let Some((major, minor)) = name.strip_prefix("GLIBC_").and_then(|text| text.split_once('.'))
                else {
                    continue;
                };
                let minor = minor.split('.').next().unwrap();
                found.insert((major.parse().unwrap(), minor.parse().unwrap()));
            }
        }
    }
    assert_eq!(file.elf_header().e_machine(endian), object::elf::EM_X86_64);
    found
}
