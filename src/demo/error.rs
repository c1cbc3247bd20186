//! Reasons why the demonstration cannot be shown, or ends early.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the demonstration creates network namespaces, which needs root; run: sudo l4lbd demo")]
    NotRoot,
    #[error("the program {program} is not installed; install it with: apt-get install {package}")]
    MissingProgram { program: &'static str, package: &'static str },
    #[error("the demonstration has no data plane to show on this machine: {0}")]
    NoDataPlane(String),
    #[error("cannot {action}: {error}; in a container the demonstration needs --privileged")]
    Setup { action: String, error: io::Error },
    #[error("{problem}; the end of its log:\n{log}")]
    Daemon { problem: String, log: String },
    #[error("the demonstration's process for {0} has ended or does not answer")]
    ProcessLost(String),
    #[error("{agent} of the demonstration cannot do what it is told: {error}")]
    AgentFailed { agent: String, error: String },
    #[error("interrupted before the first connection, so there is no result")]
    Interrupted,
    #[error(
        "the control group {path} could not be removed: {reason}; once no process is in it, remove it with: rmdir {path}"
    )]
    CgroupLeft { path: PathBuf, reason: String },
    #[error("{error}; besides, {left}")]
    FailedAndLeft { error: Box<Error>, left: Box<Error> },
    #[error("cannot write to standard output or the terminal")]
    Output(#[from] io::Error),
}

impl Error {
    /// True if the cause is a kernel without a data plane, whatever else went wrong after that.
    pub fn is_no_data_plane(&self) -> bool {
        match self {
            Self::NoDataPlane(_) => true,
            Self::FailedAndLeft { error, .. } => error.is_no_data_plane(),
            _ => false,
        }
    }
}

/// Returns the error of a step in setting the demonstration up. `action` completes "cannot ...".
pub fn setup(action: &str, error: impl Into<io::Error>) -> Error {
    Error::Setup { action: action.to_owned(), error: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left() -> Box<Error> {
        Box::new(Error::CgroupLeft { path: "/sys/fs/cgroup/x".into(), reason: "busy".into() })
    }

    #[test]
    fn a_control_group_that_is_left_does_not_hide_that_there_is_no_data_plane() {
        let no_plane = || Error::NoDataPlane("no ip_vs".into());
        assert!(no_plane().is_no_data_plane());
        assert!(Error::FailedAndLeft { error: Box::new(no_plane()), left: left() }.is_no_data_plane());
        assert!(
            !Error::FailedAndLeft { error: Box::new(Error::Interrupted), left: left() }.is_no_data_plane()
        );
        assert!(!left().is_no_data_plane());
    }

    #[test]
    fn both_errors_are_printed_with_what_to_do() {
        let text = Error::FailedAndLeft { error: Box::new(Error::Interrupted), left: left() }.to_string();
        assert!(text.starts_with("interrupted before the first connection"), "{text}");
        assert!(text.ends_with("remove it with: rmdir /sys/fs/cgroup/x"), "{text}");
    }
}
