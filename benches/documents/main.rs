//! What a document costs a source: the whole of it, and the next one that is the same, differs in nothing
//! that matters, or in one task. Each size is read by a process of its own, whose memory is that of the
//! reader. `../README.md` has figures.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use l4lbd::mesos::StateFormat;
use l4lbd::mesos::reading::{DocumentReader, Reading};

#[path = "../core/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use cluster::Vips;

const SIZES: [usize; 4] = [1_000, 10_000, 50_000, 100_000];
const ROUNDS: usize = 9;

/// Argument of the processes that read.
const CHILD: &str = "--read";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == CHILD) {
        return read_all(Path::new(&arguments[place + 1]));
    }
    println!(
        "{:>7} {:>8} {:>8} | {:>8} {:>8} | {:>8} {:>8} {:>10} {:>8} | {:>7} {:>7}",
        "tasks", "MB", "gzip MB", "hash", "gunzip", "whole", "same", "irrelevant", "one", "RSS MB", "peak MB"
    );
    for tasks in SIZES {
        let directory = tempfile::tempdir().unwrap();
        let text = cluster::document(tasks / 5, 5, Vips::Named);
        let text = String::from_utf8(text).unwrap();
        let busy = text.replace(r#""gpus":0.0,"cpus":1.0,"ports""#, r#""gpus":0.0,"cpus":1.5,"ports""#);
        let offers = vec![r#"{"id":"O","resources":{"cpus":1.0}}"#; 200].join(",");
        let busy = busy.replace(r#""offers":[]"#, &format!(r#""offers":[{offers}]"#));
        let middle = text.len() / 2 + text[text.len() / 2..].find(r#""healthy":true"#).unwrap();
        let one = format!("{}{}", &text[..middle], text[middle..].replacen("true", "false", 1));
        for (name, text) in [("first", &text), ("irrelevant", &busy), ("one", &one)] {
            write(&directory.path().join(name), text.as_bytes());
        }
        let size = std::fs::metadata(directory.path().join("first")).unwrap().len();
        print!("{tasks:>7} {:>8.1} {:>8.2} | ", text.len() as f64 / 1e6, size as f64 / 1e6);
        std::io::stdout().flush().unwrap();
        drop((text, busy, one));
        let program = std::env::current_exe().unwrap();
        assert!(Command::new(program).arg(CHILD).arg(directory.path()).status().unwrap().success());
    }
}

fn write(path: &Path, text: &[u8]) {
    let mut file = GzEncoder::new(File::create(path).unwrap(), Compression::default());
    file.write_all(text).unwrap();
    file.finish().unwrap();
}

fn read_all(directory: &Path) {
    let open = |name: &str| MultiGzDecoder::new(File::open(directory.join(name)).unwrap());
    let (hashed, unzipped) = {
        let encoded = std::fs::read(directory.join("first")).unwrap();
        let key = RandomState::new();
        let hash = || {
            let mut hasher = key.build_hasher();
            hasher.write(&encoded);
            std::hint::black_box(hasher.finish());
        };
        let unzip = || {
            std::io::copy(&mut open("first"), &mut std::io::sink()).unwrap();
        };
        (median(|_| timed(hash)), median(|_| timed(unzip)))
    };
    let whole = median(|_| {
        let mut reader = DocumentReader::default();
        timed(|| drop(reader.read(open("first"), StateFormat::V0, true).unwrap()))
    });
    let mut reader = DocumentReader::default();
    let mut last = read(&mut reader, open("first"));
    let mut alternate = |other: &str, is_same: bool| {
        median(|round| {
            let name = if round % 2 == 0 { other } else { "first" };
            timed(|| {
                last = read(&mut reader, open(name));
                assert_eq!(last.is_same, is_same, "{name}");
            })
        })
    };
    let (same, irrelevant, one) =
        (alternate("first", true), alternate("irrelevant", true), alternate("one", false));
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "{:>8.2} {:>8.1} | {:>8.1} {:>8.2} {:>10.2} {:>8.2} | {:>7.1} {:>7.1}",
        ms(hashed),
        ms(unzipped),
        ms(whole),
        ms(same),
        ms(irrelevant),
        ms(one),
        memory("VmRSS"),
        memory("VmHWM")
    );
}

fn read(reader: &mut DocumentReader, document: impl Read) -> Reading {
    reader.read(document, StateFormat::V0, true).unwrap()
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn median(mut round: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(&mut round).collect();
    times.sort();
    times[ROUNDS / 2]
}

/// Megabytes of this process.
fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
