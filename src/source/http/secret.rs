//! Secrets, and where they are kept.
//!
//! A [`Secret`] is never shown by accident: it has no `Display`, and its `Debug` hides it. The
//! configuration holds only a [`Keeper`], the place of a secret; it is read again for every use, so
//! that a new password or token counts at once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Longest secret that is read; service accounts with long keys stay far below.
const MAX_LENGTH: usize = 64 * 1024;

/// A text that is not for people's eyes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Where a secret is kept: `file:/PATH` or `env:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Keeper {
    File(PathBuf),
    Env(String),
}

/// Why there is no secret; never contains one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was written may be a secret itself, so that it is not repeated.
    #[error("a secret must be given by its place, file:/PATH or env:NAME")]
    Place,
    #[error("cannot read the secret in {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the environment variable {0}, which should hold a secret, is not set or not text")]
    Env(String),
    #[error("the secret in {0} is empty")]
    Empty(Keeper),
    #[error("the secret in {0} is longer than 64 KiB; is that the right file?")]
    TooLong(Keeper),
}

impl FromStr for Keeper {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => {
                Ok(Self::File(path.strip_prefix("//").unwrap_or(path).into()))
            }
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Env(name.to_owned()))
            }
            _ => Err(Error::Place),
        }
    }
}

impl TryFrom<String> for Keeper {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

impl Keeper {
    /// What is kept there now, without the white space around it.
    pub async fn read(&self) -> Result<Secret, Error> {
        let text = match self {
            Self::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|error| Error::File { path: path.clone(), error })?,
            Self::Env(name) => std::env::var(name).map_err(|_| Error::Env(name.clone()))?,
        };
        match text.trim() {
            "" => Err(Error::Empty(self.clone())),
            text if text.len() > MAX_LENGTH => Err(Error::TooLong(self.clone())),
            text => Ok(Secret::new(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!("file:/etc/token".parse::<Keeper>().unwrap(), Keeper::File("/etc/token".into()));
        assert_eq!("file:///etc/token".parse::<Keeper>().unwrap(), Keeper::File("/etc/token".into()));
        assert_eq!("env:TOKEN".parse::<Keeper>().unwrap(), Keeper::Env("TOKEN".to_owned()));
        for text in ["hunter2", "file:token", "env:", "user:hunter2", ""] {
            let error = text.parse::<Keeper>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let keeper = Keeper::File(path.clone());
        assert!(keeper.read().await.unwrap_err().to_string().contains("token"));
        for text in ["one\n", " two "] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(keeper.read().await.unwrap().expose(), text.trim());
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(keeper.read().await.is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", Some(Secret::new("hunter2"))).contains("hunter2"));
    }
}
