//! Writes the seeds of every target: `fuzz-seeds DIRECTORY` makes `DIRECTORY/TARGET/NUMBER`.

use std::fs;
use std::path::PathBuf;

#[path = "properties/seeds.rs"]
mod seeds;

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("usage: fuzz-seeds DIRECTORY"));
    for (target, seeds) in [
        ("document", seeds::documents()),
        ("label", seeds::labels()),
        ("netlink", seeds::netlink()),
        ("question", seeds::questions()),
        ("events", seeds::events()),
        ("state_file", seeds::state_files()),
        ("stored_table", seeds::stored_tables()),
    ] {
        let directory = directory.join(target);
        fs::create_dir_all(&directory).expect("the directory can be made");
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(number.to_string()), seed).expect("the directory is writable");
        }
    }
}
