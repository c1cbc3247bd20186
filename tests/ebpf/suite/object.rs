//! The committed object of the programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dataplane/ebpf");
const COMMITTED: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/dataplane/ebpf/l4lbd.bpf.o"));

pub fn the_committed_one_is_compiled_from_the_source() {
    let (wanted, found) = (clang_of_the_object(), clang());
    assert_eq!(
        found, wanted,
        "l4lbd.bpf.o was made by clang {wanted}, and another version makes other code: name clang {wanted} in the \
         environment variable CLANG (as {DIRECTORY}/compile has to use it)"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("again.o");
    let output = Command::new(Path::new(DIRECTORY).join("compile")).arg(&path).output().expect("run compile");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = std::fs::read(path).unwrap();
    assert!(code(COMMITTED) == code(&again), "l4lbd.bpf.o is not of l4lbd.bpf.c: run {DIRECTORY}/compile");
    assert_eq!(maps(COMMITTED), maps(&again));
    let file = object::File::parse(COMMITTED).unwrap();
    let debug = |name: &&str| name.starts_with(".debug") || name.contains(".BTF.ext");
    let left: Vec<&str> = file.sections().filter_map(|section| section.name().ok()).filter(debug).collect();
    assert!(left.is_empty(), "the daemon would carry {left:?}, which nothing reads");
}

/// Section of an object.
#[derive(PartialEq, Eq)]
struct Section {
    name: String,
    content: Vec<u8>,
    /// Offsets and names of the maps and constants that the code refers to.
    relocations: Vec<(u64, String)>,
}

/// Lists the sections with programs and their data. Debug information is left out, because it depends on
/// the versions of the headers.
fn code(bytes: &[u8]) -> Vec<Section> {
    let file = object::File::parse(bytes).unwrap();
    let mut sections = Vec::new();
    for section in file.sections() {
        let name = section.name().unwrap();
        if !name.starts_with("cgroup/")
            && !name.starts_with("iter/")
            && !["sockops", ".rodata", ".maps", "license", ".text"].contains(&name)
        {
            continue;
        }
        let relocations = section.relocations().map(|(offset, relocation)| {
            let RelocationTarget::Symbol(index) = relocation.target() else { panic!("{relocation:?}") };
            (offset, file.symbol_by_index(index).unwrap().name().unwrap().to_owned())
        });
        sections.push(Section {
            name: name.to_owned(),
            content: section.data().unwrap().to_vec(),
            relocations: relocations.collect(),
        });
    }
    assert!(sections.len() > 10, "ten programs and their data");
    sections
}

/// Type, sizes, capacity and flags of each map.
fn maps(bytes: &[u8]) -> BTreeMap<String, [u32; 5]> {
    let definition = |map: &aya_obj::Map| {
        [map.map_type(), map.key_size(), map.value_size(), map.max_entries(), map.map_flags()]
    };
    let object = aya_obj::Object::parse(bytes).unwrap();
    object.maps.iter().map(|(name, map)| (name.clone(), definition(map))).collect()
}

/// Major version of the clang that made the committed object, as `compile` wrote it down.
fn clang_of_the_object() -> String {
    version(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/dataplane/ebpf/l4lbd.bpf.sha1")))
}

/// Major version of the clang that is here.
fn clang() -> String {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let output = Command::new(&clang).arg("--version").output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run {clang}: {error}; tests/setup installs it"));
    version(&String::from_utf8_lossy(&output.stdout))
}

fn version(text: &str) -> String {
    let (_, version) = text.split_once("clang version ").expect("clang says its version");
    version.chars().take_while(char::is_ascii_digit).collect()
}
