//! The demonstration from its start to its end, with what this machine's kernel has: see `guest`.

use std::process::Command;

const DIRECTORY: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_demonstration_shows_what_it_says_and_leaves_nothing() {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"])
        .arg(format!("{DIRECTORY}/tests/demo/guest"))
        .arg(env!("CARGO_BIN_EXE_l4lbd"))
        .output()
        .expect("unshare runs, as root");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
}
