//! Tests of the module graph: layers as the crate's documentation lists them, and no cycles of files.
//!
//! The source is read as text: `use` trees are expanded, and paths that start with `crate::`,
//! `super::` or `self::` count wherever they stand outside of comments and tests. A name that a module
//! re-exports counts as a use of the file that defines it. What the crate's documentation names as the
//! place of new things has to exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that may know the whole configuration.
const SEE_CONFIG: &[&str] = &["config", "daemon", "cli"];

/// A source file without its tests.
struct Source {
    /// Path below `src`.
    file: PathBuf,
    /// Module path, such as `["dataplane", "diff"]`; empty for `lib.rs`.
    module: Vec<String>,
    /// Used paths from the crate's root, with their line.
    uses: Vec<(usize, Vec<String>)>,
    /// Re-exported names and the paths behind them.
    exports: BTreeMap<String, Vec<String>>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let file = path.strip_prefix(&root).unwrap().to_owned();
                // Tests may use anything.
                let is_test =
                    file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
                // Programs of their own, which see the crate from outside.
                let is_program =
                    ["main.rs", "layers.rs", "dataplane/ebpf/build.rs"].iter().any(|p| file == Path::new(p));
                if !is_test && !is_program {
                    sources.push(read(file, &fs::read_to_string(path).unwrap()));
                }
            }
        }
    }
    // For messages in the same order on every machine.
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    sources
}

fn read(file: PathBuf, text: &str) -> Source {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module == ["lib"] {
        module.clear();
    }
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let (mut uses, mut exports) = (Vec::new(), BTreeMap::new());
    let mut number = 0;
    while let Some(line) = lines.get(number) {
        let statement = line.trim_start();
        let is_use = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .find_map(|start| Some((*start, statement.strip_prefix(start)?)));
        let first = number + 1;
        if let Some((start, rest)) = is_use {
            let mut tree = rest.to_owned();
            // A tree of names may go over many lines.
            while !tree.contains(';') {
                number += 1;
                tree.push_str(lines.get(number).copied().unwrap_or(";"));
            }
            for path in expand(tree.split(';').next().unwrap_or_default()) {
                let Some(path) = absolute(&path, &module) else { continue };
                if start != "use "
                    // Kept by its name, because a use of that name is one of the file behind it.
                    && let Some(name) = path.last()
                {
                    exports.insert(name.clone(), path.clone());
                } else {
                    uses.push((first, path));
                }
            }
        } else {
            for start in ["crate::", "super::", "self::"] {
                for (at, _) in line.match_indices(start) {
                    let is_word = |c: char| c.is_alphanumeric() || c == '_';
                    // The inner part of a longer path, such as the `self::` of `crate::self::`.
                    if line[..at].chars().next_back().is_some_and(|c| is_word(c) || c == ':') {
                        continue;
                    }
                    let path: String = line[at..].chars().take_while(|c| is_word(*c) || *c == ':').collect();
                    let path: Vec<String> = path.split("::").map(str::to_owned).collect();
                    uses.extend(absolute(&path, &module).map(|path| (first, path)));
                }
            }
        }
        number += 1;
    }
    Source { file, module, uses, exports }
}

/// Expands `a::{b, c::{d, e}}` into the paths that it stands for; `a::{self}` and `a::*` mean `a`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let parts = path.split("::").map(|part| part.trim().to_owned());
        return vec![parts.filter(|part| !part.is_empty() && part != "*" && part != "self").collect()];
    };
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut items) = (0, vec![String::new()]);
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            // Commas inside of inner braces belong to those.
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().unwrap().push(letter);
    }
    let prefix: Vec<String> =
        prefix.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    let below = items.iter().filter(|item| !item.trim().is_empty()).flat_map(|item| expand(item));
    below.map(|path| prefix.iter().cloned().chain(path).collect()).collect()
}

/// Returns a path from the crate's root; `None` for paths into other crates.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.get(..module.len().checked_sub(1)?)?.to_vec(),
        // A child module of this one; other crates are left out because they match no file.
        _ => return Some(module.iter().chain(path).cloned().collect()),
    };
    for part in path.get(1..).unwrap_or_default() {
        if part == "super" { base.pop().map(drop)? } else { base.push(part.clone()) }
    }
    Some(base)
}

/// Finds the file that defines what a path names, through re-exports.
fn owner(sources: &[Source], path: &[String], depth: usize) -> Option<usize> {
    let (index, source) = sources
        .iter()
        .enumerate()
        .filter(|(_, source)| path.starts_with(&source.module))
        .max_by_key(|(_, source)| source.module.len())?;
    let rest = path.get(source.module.len()..).unwrap_or_default();
    match rest.first().and_then(|name| source.exports.get(name)) {
        Some(behind) if depth < 8 => owner(sources, behind, depth + 1),
        _ if source.module.is_empty() => None,
        _ => Some(index),
    }
}

/// The text of `lib.rs`, with the crate's documentation.
fn lib() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap()
}

/// The layers from the crate's documentation, lowest first.
fn layers() -> Vec<String> {
    let lib = lib();
    let is_entry = |line: &&str| {
        line.strip_prefix("//! ").is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()))
    };
    let names = lib.lines().filter(is_entry).flat_map(|line| line.split("[`").skip(1));
    names.filter_map(|rest| rest.split_once("`]")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn no_module_uses_a_higher_one() {
    let layers = layers();
    let level = |name: &str| layers.iter().position(|layer| layer == name);
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.module.is_empty()) {
        let own = &source.module[0];
        let Some(own_level) = level(own) else {
            faults.insert(format!("src/{}: {own} is in no layer of lib.rs", source.file.display()));
            continue;
        };
        for (line, path) in source
            .uses
            .iter()
            .chain(source.exports.values().map(|path| (0, path.clone())).collect::<Vec<_>>().iter())
        {
            let Some(used) = path.first() else { continue };
            let is_higher = level(used).is_some_and(|level| level > own_level);
            let is_config = used == "config" && !SEE_CONFIG.contains(&own.as_str());
            if is_higher || is_config {
                faults.insert(format!(
                    "src/{}:{line}: {own} uses {}",
                    source.file.display(),
                    path.join("::")
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = sources();
    let mut edges: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); sources.len()];
    for (index, source) in sources.iter().enumerate() {
        for (line, path) in &source.uses {
            if let Some(used) = owner(&sources, path, 0).filter(|used| *used != index) {
                edges[index].entry(used).or_insert(*line);
            }
        }
    }
    let reaches = |from: usize, to: usize| {
        // A walk over all files that are used from here, each once.
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(edges[file].keys().filter(|used| seen.insert(**used)));
        }
        seen.contains(&to)
    };
    let mut faults = Vec::new();
    for (index, used_by) in edges.iter().enumerate() {
        for (used, line) in used_by.iter().filter(|(used, _)| reaches(**used, index)) {
            let (file, other) = (sources[index].file.display(), sources[*used].file.display());
            faults.push(format!("src/{file}:{line} uses src/{other}"));
        }
    }
    assert!(faults.is_empty(), "files in circles:\n{}", faults.join("\n"));
}

#[test]
fn places_of_new_things_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = lib();
    let (_, places) = lib.split_once("# Where new things go").unwrap();
    let text: String = places.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let is_place = |word: &&str| word.contains(".rs") || word.starts_with("systemd/");
    let places: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_place).collect();
    assert!(places.len() > 20, "{places:?}");
    for place in places.iter().filter(|place| !place.contains("NAME")) {
        let (file, name) = place.split_once("::").unwrap_or((place, ""));
        let content = [root.join("src").join(file), root.join(file)]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .unwrap_or_else(|| panic!("src/lib.rs: there is no file {file}"));
        let kinds = ["fn ", "struct ", "enum ", "trait ", "const ", "macro_rules! "];
        let is_defined = kinds.iter().any(|kind| {
            content.match_indices(&format!("{kind}{name}")).any(|(at, found)| {
                !content[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        });
        assert!(name.is_empty() || is_defined, "src/lib.rs: {file} defines no {name}");
    }
}

#[test]
fn use_trees_are_expanded() {
    let paths: Vec<String> =
        expand("crate::a::{self, b::{C, D as E}, f::*}").iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["crate::a", "crate::a::b::C", "crate::a::b::D", "crate::a::f"]);
    let module = ["a", "b"].map(str::to_owned);
    let path = |text: &str| -> Vec<String> { text.split("::").map(str::to_owned).collect() };
    assert_eq!(absolute(&path("super::c::D"), &module), Some(path("a::c::D")));
    assert_eq!(absolute(&path("super::super::D"), &module), Some(path("D")));
    assert_eq!(absolute(&path("crate::x"), &module), Some(path("x")));
}
