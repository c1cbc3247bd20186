//! Secrets by reference.
//!
//! The configuration holds only a [`SecretRef`], the place of a secret. It is read again for every
//! use, so that a new password or token counts at once. What is read is a [`SecretString`], which
//! shows nothing in `Debug` and is wiped from memory when it is dropped.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

/// Longest secret that is read, in bytes; service accounts with long keys stay far below.
const MAX_LENGTH: usize = 64 * 1024;

/// Place of a secret: `file:/PATH` or `env:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SecretRef {
    File(PathBuf),
    Env(String),
}

/// Reason why a secret cannot be read; never contains one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text may be the secret itself, so that it is not repeated.
    #[error("a secret must be given by its place, file:/PATH or env:NAME")]
    Place,
    #[error(
        "cannot read the secret in {path}: {error}; check that the file exists and that l4lbd may read it"
    )]
    File { path: PathBuf, error: std::io::Error },
    #[error("the environment variable {0}, which should hold a secret, is not set or not text")]
    Env(String),
    #[error("the secret in {0} is empty")]
    Empty(SecretRef),
    #[error("the secret in {0} is longer than 64 KiB; is that the right file?")]
    TooLong(SecretRef),
}

impl FromStr for SecretRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            // file:/path and file:///path are the same.
            Some(("file", path)) if path.starts_with('/') => {
                Ok(Self::File(path.strip_prefix("//").unwrap_or(path).into()))
            }
            // A variable of the environment cannot have such a name.
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Env(name.to_owned()))
            }
            _ => Err(Error::Place),
        }
    }
}

impl TryFrom<String> for SecretRef {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

impl SecretRef {
    /// Reads the secret as it is now, without the white space around it.
    pub async fn read(&self) -> Result<SecretString, Error> {
        let text = match self {
            Self::File(path) => {
                read(path).await.map_err(|error| Error::File { path: path.clone(), error })?
            }
            Self::Env(name) => Zeroizing::new(std::env::var(name).map_err(|_| Error::Env(name.clone()))?),
        };
        match text.trim() {
            "" => Err(Error::Empty(self.clone())),
            text if text.len() > MAX_LENGTH => Err(Error::TooLong(self.clone())),
            text => Ok(SecretString::from(text)),
        }
    }
}

/// Reads a file up to one byte more than a secret may have.
async fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    // Room for all of it: a text that grows leaves copies of itself in memory.
    let mut text = Zeroizing::new(String::with_capacity(MAX_LENGTH + 1));
    let mut file = tokio::fs::File::open(path).await?.take(MAX_LENGTH as u64 + 1);
    file.read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn places() {
        assert_eq!("file:/etc/token".parse::<SecretRef>().unwrap(), SecretRef::File("/etc/token".into()));
        assert_eq!("file:///etc/token".parse::<SecretRef>().unwrap(), SecretRef::File("/etc/token".into()));
        assert_eq!("env:TOKEN".parse::<SecretRef>().unwrap(), SecretRef::Env("TOKEN".to_owned()));
        for text in ["hunter2", "file:token", "env:", "user:hunter2", ""] {
            let error = text.parse::<SecretRef>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = SecretRef::File(path.clone());
        assert!(secret.read().await.unwrap_err().to_string().contains("token"));
        for text in ["one\n", " two "] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret.read().await.unwrap().expose_secret(), text.trim());
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.read().await.is_err());
    }

    #[tokio::test]
    async fn the_length_of_a_secret_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for (length, is_read) in [(MAX_LENGTH, true), (MAX_LENGTH + 1, false), (MAX_LENGTH * 3, false)] {
            std::fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(SecretRef::File(path.clone()).read().await.is_ok(), is_read, "{length}");
        }
        let endless = SecretRef::File("/dev/zero".into()).read().await.unwrap_err();
        assert!(matches!(endless, Error::TooLong(_)), "{endless}");
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", Some(SecretString::from("hunter2"))).contains("hunter2"));
    }
}
