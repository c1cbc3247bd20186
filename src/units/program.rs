//! Programs of the node that are run to list or change something, such as `nft` and `resolvectl`.
//!
//! Each is given a deadline and a bound on what it prints, and its messages are in English whatever the node's
//! language is.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// Largest output in octets. Listings of firewalls with thousands of rules have a few million.
const MAX_PRINTED: u64 = 16 << 20;

/// Longest message of a failure in octets.
const MAX_SAID: u64 = 4096;

/// Reason why a program gave no output.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot run it: {0}")]
    Run(#[from] io::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Hangs(Duration),
    /// The program failed; the beginning of what it said, with its line ends.
    #[error("{}", .0.lines().next().unwrap_or("it fails and says nothing"))]
    Says(String),
}

/// Runs a program with `input` on its standard input, and returns what it prints.
///
/// It is killed when it takes longer than `patience`, and when the caller stops waiting.
///
/// # Errors
/// When it cannot be run, does not end, or fails. Output beyond 16 MiB makes it fail.
pub async fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[A],
    input: &str,
    patience: Duration,
) -> Result<String, Failure> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        // The service manager hears of the daemon from the daemon alone.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    // Taken out of the child, so that it can be waited for while they are read.
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends early says why on its own.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ended = async {
        // All at once, so that neither side waits for the other.
        let ((), printed, said) = tokio::join!(write, read(stdout, MAX_PRINTED), read(stderr, MAX_SAID));
        io::Result::Ok((child.wait().await?, printed?, said?))
    };
    let (status, printed, said) = timeout(patience, ended).await.map_err(|_| Failure::Hangs(patience))??;
    if status.success() { Ok(printed) } else { Err(Failure::Says(said)) }
}

/// Reads up to `limit` octets. With its end the pipe is closed, so that more output ends the program.
async fn read(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<String> {
    let mut octets = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit).read_to_end(&mut octets).await?;
    }
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn shell(script: &str, input: &str) -> Result<String, Failure> {
        run("sh", &["-c", script], input, PATIENCE).await
    }

    #[tokio::test]
    async fn output_of_a_program_that_reads_as_much_as_it_writes_is_whole() {
        let input = "0123456789\n".repeat(100_000);
        assert_eq!(shell("cat", &input).await.unwrap(), input);
        // One that reads nothing holds nobody up.
        assert_eq!(shell("echo done", &input).await.unwrap(), "done\n");
    }

    #[tokio::test]
    async fn program_that_hangs_is_given_up() {
        let failure = run("sleep", &["1000"], "", Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(failure, Failure::Hangs(_)), "{failure}");
    }

    #[tokio::test]
    async fn beginning_of_what_a_program_says_is_enough() {
        let failure = shell("head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1", "").await.unwrap_err();
        assert_eq!(failure.to_string().len() as u64, MAX_SAID);
        let failure = shell("echo no such table >&2; echo more >&2; exit 1", "").await.unwrap_err();
        assert_eq!(failure.to_string(), "no such table");
        assert_eq!(shell("exit 1", "").await.unwrap_err().to_string(), "it fails and says nothing");
    }

    #[tokio::test]
    async fn endless_output_ends_the_program() {
        let failure = shell("trap '' PIPE; yes || exit 1", "").await.unwrap_err();
        assert!(matches!(failure, Failure::Says(_)), "{failure}");
    }

    #[tokio::test]
    async fn program_that_is_missing_is_told_from_one_that_fails() {
        let failure = run("l4lbd-no-such-program", &[""; 0], "", PATIENCE).await.unwrap_err();
        assert!(matches!(failure, Failure::Run(_)), "{failure}");
    }
}
