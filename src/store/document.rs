//! The form of files that are replaced as a whole: JSON with a version and the moment of the writing.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::units::steady::Moment;

/// Format of the files; another one is not read.
pub(super) const VERSION: u32 = 1;

/// File with its content.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredDocument<T> {
    pub version: u32,
    /// Moment of the writing; files of earlier versions have none.
    #[serde(default)]
    pub written: Option<Moment>,
    /// Token by which a file of changes refers to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    pub content: T,
}

/// Reason why the content of a file is of no use.
pub(super) enum Unusable {
    Damaged(String),
    /// Format of a later version.
    Later(u32),
}

/// Returns a file's bytes, with the token by which changes refer to it.
pub(super) fn encode<T: Serialize>(token: Option<&str>, content: &T) -> io::Result<Vec<u8>> {
    let (written, journal) = (Some(Moment::now()), token.map(str::to_owned));
    Ok(serde_json::to_vec(&StoredDocument { version: VERSION, written, journal, content })?)
}

/// Reads a file's bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<StoredDocument<T>, Unusable> {
    let damaged = |error: serde_json::Error| Unusable::Damaged(error.to_string());
    // The content of another version may have any shape, so the version is read first.
    let StoredDocument { version, written, journal, content } =
        serde_json::from_slice::<StoredDocument<&RawValue>>(bytes).map_err(damaged)?;
    match version {
        VERSION => {
            let content = serde_json::from_str(content.get()).map_err(damaged)?;
            Ok(StoredDocument { version, written, journal, content })
        }
        later if later > VERSION => Err(Unusable::Later(later)),
        other => Err(Unusable::Damaged(format!("version {other} instead of {VERSION}"))),
    }
}
