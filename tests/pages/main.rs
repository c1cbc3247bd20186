//! The manual pages in `systemd/man/`: their generated parts are up to date, their roff is clean, and
//! what they refer to exists.
//!
//! `L4LBD_WRITE=1 cargo test --test pages` writes the generated parts anew. Needs mandoc, which
//! `tests/setup` installs.

mod generate;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use l4lbd::cli::pages::{self, Format, PAGES, Page};
use l4lbd::config::reference::{self, Key};
use l4lbd::events::EventKind;
use l4lbd::status::Status;

const DIRECTORY: &str = "systemd/man";

/// Texts beside the pages that name keys of the configuration.
const OTHERS: &[&str] = &["README.md", "systemd/README.md", "tests/README.md"];

/// Columns of the narrowest terminal that no line of a page may exceed.
const NARROWEST: usize = 80;

fn path(page: &Page) -> PathBuf {
    Path::new(DIRECTORY).join(page.file())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn generated_parts_are_up_to_date() {
    let mut outdated = Vec::new();
    for page in PAGES {
        let path = path(page);
        let committed = read(&path);
        let fresh = generate::fill(&committed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if fresh == committed {
            continue;
        }
        if std::env::var_os("L4LBD_WRITE").is_some() {
            fs::write(&path, fresh).unwrap();
            continue;
        }
        let differs = committed.lines().zip(fresh.lines()).position(|(old, new)| old != new);
        let number = differs.unwrap_or_else(|| committed.lines().count().min(fresh.lines().count()));
        outdated.push(format!(
            "{}:{}: is \"{}\" and should be \"{}\"",
            path.display(),
            number + 1,
            committed.lines().nth(number).unwrap_or_default(),
            fresh.lines().nth(number).unwrap_or_default()
        ));
    }
    assert!(
        outdated.is_empty(),
        "a command, an option or a key has changed since these pages were written:\n{}\n\
         L4LBD_WRITE=1 cargo test --test pages writes them anew",
        outdated.join("\n")
    );
}

#[test]
fn mandoc_finds_nothing() {
    let output =
        Command::new("mandoc").args(["-T", "lint", "-W", "style"]).args(PAGES.iter().map(path)).output();
    let output = output.unwrap_or_else(|error| panic!("mandoc: {error} (tests/setup installs it)"));
    let remarks = text(&output.stdout);
    assert!(output.status.success() && remarks.is_empty(), "{remarks}{}", text(&output.stderr));
}

#[test]
fn renderer_knows_every_macro_and_lines_are_short() {
    for page in PAGES {
        let path = path(page);
        for styled in [false, true] {
            let text = pages::render(&read(&path), Format { width: NARROWEST, styled });
            let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            for line in text.lines().filter(|_| !styled) {
                let columns = line.chars().count();
                assert!(columns <= NARROWEST, "{}: {columns} columns: {line}", path.display());
            }
        }
    }
}

#[test]
fn program_has_every_page() {
    let files: BTreeSet<PathBuf> =
        fs::read_dir(DIRECTORY).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, PAGES.iter().map(path).collect(), "src/cli/pages.rs lists the pages");
}

#[test]
fn keys_and_pages_that_are_named_exist() {
    let keys: BTreeSet<String> = reference::keys().iter().map(Key::path).collect();
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let files = PAGES.iter().map(path).chain(OTHERS.iter().map(PathBuf::from));
    for file in files {
        let text = read(&file).replace("\\-", "-").replace("\\fB", " ").replace("\\fR", " ");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"._-/".contains(c));
        // A dot may end a sentence; what has a slash is a file.
        for word in words.map(|word| word.trim_end_matches('.')).filter(|word| !word.contains('/')) {
            if let Some((section, name)) = word.split_once('.')
                && sections.contains(section)
                && !name.is_empty()
            {
                assert!(keys.contains(word), "{}: there is no key {word}", file.display());
            }
            if word.starts_with("l4lbd-") {
                let page = pages::find(word).or_else(|| pages::find(word.split('.').next()?));
                assert!(page.is_some(), "{}: there is no page {word}", file.display());
            }
        }
    }
}

/// Collects the names of all fields of a document.
fn fields(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                fields(value, names);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| fields(value, names)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_status_is_described() {
    let status: Status = serde_json::from_value(serde_json::json!({
        "version": "", "degraded": true, "reasons": ["x"], "node": {"hostname": ""},
        "since": "2026-01-01T00:00:00Z", "counts": {"vips": 0, "dead": 0},
        "details": [{"kind": "", "since": "2026-01-01T00:00:00Z", "remedy": ""}],
        "dns": {
            "addresses": [],
            "usage": [{
                "name": "", "used": 0, "limit": 0, "clients": 0, "share": 0, "largest": null, "refused": 0, "displaced": 0
            }]
        },
        "source": {
            "configured": [], "place": "", "agents": 0, "tasks": 0, "held": [],
            "overdue": "", "failure": {"error": "", "at": "2026-01-01T00:00:00Z", "attempts": 1}
        },
        "pass": {
            "seconds": 0.0, "operations": 0, "pending": 0,
            "under_way": {"operations": 1, "since": "2026-01-01T00:00:00Z", "is_repair": false}, "errors": [], "repaired": 0,
            "change": {
                "cause": "audit", "services": 1, "beside_services": false, "read_seconds": 0.0,
                "plan_seconds": 0.0, "apply_seconds": 0.0
            }
        },
        "vips": [{
            "protocol": "tcp", "address": "10.0.0.1", "port": 80, "scheduler": "rr",
            "backends": [{
                "address": "10.0.0.2", "port": 80, "weight": 1, "condition": "gone", "task": "", "agent": "",
                "until": "2026-01-01T00:00:00Z", "active": 0, "inactive": 0,
                "traffic": {
                    "connections": 1, "in_packets": 1, "out_packets": 1, "in_bytes": 1, "out_bytes": 1,
                    "at": "2026-01-01T00:00:00Z"
                }
            }]
        }],
        "skipped": [{
            "task": "", "port": "", "label": "", "value": "", "reason": "", "framework": "", "app": ""
        }],
        "skipped_total": 1, "shared": [{"name": "", "used": 0, "limit": 0, "largest": ["", 0]}],
        "warnings": [], "foreign": [{"service": ""}], "at": "2026-01-01T00:00:00Z"
    }))
    .unwrap();
    let mut names = BTreeSet::new();
    fields(&serde_json::to_value(&status).unwrap(), &mut names);
    let page = read(Path::new("systemd/man/l4lbd.8"));
    let (_, section) = page.split_once(".SS JSON\n").unwrap();
    let (section, _) = section.split_once(".SS Requests\n").unwrap();
    let words: BTreeSet<&str> = section.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for name in names {
        assert!(words.contains(name.as_str()), "l4lbd(8), JSON: {name} is not described");
    }
}

#[test]
fn every_kind_of_event_is_described() {
    let page = read(Path::new("systemd/man/l4lbd.8")).replace("\\-", "-");
    let (_, section) = page.split_once(".SH EVENTS\n").unwrap();
    let (section, _) = section.split_once(".SS The story").unwrap();
    let words: BTreeSet<&str> = section.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    for kind in EventKind::ALL {
        assert!(words.contains(kind.to_string().as_str()), "l4lbd(8), EVENTS: {kind} is not described");
    }
}

fn help(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_l4lbd"));
    command.arg("help").args(arguments).env_remove("COLUMNS").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_shows_pages() {
    for page in PAGES {
        let output = help(&[page.topic]);
        let shown = text(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
        assert_eq!(shown, pages::render(page.source, Format { width: 80, styled: false }).unwrap());
        assert_eq!(shown, text(&help(&[&page.title()]).stdout));
    }
}

#[test]
fn help_shows_commands_as_they_do_themselves() {
    let output = help(&["status"]);
    let own = Command::new(env!("CARGO_BIN_EXE_l4lbd")).args(["status", "--help"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), text(&own.stdout));
    assert!(text(&output.stdout).contains("Usage: l4lbd status"));
}

#[test]
fn help_alone_lists_commands_and_topics() {
    let output = help(&[]);
    let shown = text(&output.stdout);
    assert!(output.status.success());
    for word in ["accept-loss", "explain", "labels", "l4lbd-networks(7)"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn help_on_something_unknown_says_what_there_is() {
    for subject in ["nonsense", "demo-part", "", "\u{1b}[2J"] {
        let output = help(&[subject]);
        assert_eq!(output.status.code(), Some(64), "{subject}");
        assert!(output.stdout.is_empty(), "{subject}");
        let said = text(&output.stderr);
        assert!(said.contains("networks") && said.contains("status"), "{subject}: {said}");
        assert!(!said.contains("demo-part\n") && !said.contains('\u{1b}'), "{subject}: {said}");
    }
}
