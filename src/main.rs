//! The command line: arguments in, exit code out.

use std::process::ExitCode;

use l4lbd::cli::Cli;

fn main() -> ExitCode {
    match Cli::from_arguments().run() {
        Ok(code) => code,
        Err(error) => l4lbd::cli::report(&error),
    }
}
