//! The daemon's socket by a file that may be broken: a file that is being edited hides no running daemon.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, DEFAULT_PATH, Error};

/// Location of the daemon's socket.
#[derive(Debug)]
pub struct FoundSocket {
    pub path: PathBuf,
    /// Error of the file, in spite of which the path was found or the default is taken.
    pub error: Option<Error>,
}

/// Finds the socket by the file at `path`; without a path by the default file, if there is one.
///
/// # Errors
/// Never, because the defaults are valid.
pub fn find(path: Option<&Path>) -> Result<FoundSocket, Error> {
    let error = match Config::load(path) {
        Ok(config) => return Ok(FoundSocket { path: config.daemon.socket, error: None }),
        Err(error) => error,
    };
    let bytes = std::fs::read(path.unwrap_or(Path::new(DEFAULT_PATH))).unwrap_or_default();
    let path = match written(&String::from_utf8_lossy(&bytes)) {
        Some(path) => path,
        None => Config::defaults()?.daemon.socket,
    };
    Ok(FoundSocket { path, error: Some(error) })
}

/// Returns the value of `daemon.socket`, if its own line can be read.
fn written(text: &str) -> Option<PathBuf> {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        if section.starts_with("[daemon]")
            && line.starts_with("socket")
            && let Ok(mut table) = line.parse::<Table>()
            && let Some(Value::String(path)) = table.remove("socket")
        {
            return Some(path.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_still_tells_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("l4lbd.toml");
        let found = |text: &str| {
            std::fs::write(&file, text).unwrap();
            find(Some(&file)).unwrap()
        };
        let good = found("[daemon]\nsocket = \"/x\"\n");
        assert!(good.error.is_none() && good.path == Path::new("/x"), "{good:?}");
        for (text, path) in [
            ("[source]\nmasters = [\n[daemon]\nsocket = \"/x\" # ours\n", "/x"),
            ("[source]\nsocket = \"/y\"\nintervall = 1\n[daemon]\nsocket = \"/x\"\n", "/x"),
            ("[daemon]\nsocket = \"/x", "/run/l4lbd/l4lbd.sock"),
            ("oops", "/run/l4lbd/l4lbd.sock"),
        ] {
            let found = found(text);
            assert!(found.error.is_some() && found.path == Path::new(path), "{text}: {found:?}");
        }
    }
}
