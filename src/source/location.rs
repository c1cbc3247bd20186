//! Locations of the cluster's state: a master, a ZooKeeper ensemble, or a file; and operations on URLs.

use std::fmt;
use std::path::PathBuf;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Port of a ZooKeeper server that is given without one.
pub const ZOOKEEPER_PORT: u16 = 2181;

/// Location of the cluster's state, as configured.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Location {
    /// A master, agent or Marathon, perhaps with a user and a password.
    Http(Url),
    /// The election of masters.
    Zk(Ensemble),
    /// A state document on disk.
    File(PathBuf),
}

/// ZooKeeper servers, and the node below which masters stand for election.
#[derive(Clone, Debug)]
pub struct Ensemble {
    /// `HOST:PORT`, at least one.
    pub servers: Vec<String>,
    /// Path of the node, such as `/mesos`.
    pub path: String,
    /// `USER:PASSWORD` of the digest scheme.
    pub credentials: Option<SecretString>,
}

/// Reason why a text is no location.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is neither http://HOST:PORT, https://HOST:PORT, zk://HOST:PORT/PATH nor file:/PATH{detail}"
)]
pub struct LocationError {
    /// Without credentials.
    text: String,
    detail: String,
}

impl Location {
    /// Returns the URL of a server; `None` for an election or a file.
    pub fn url(&self) -> Option<&Url> {
        match self {
            Self::Http(url) => Some(url),
            Self::Zk(_) | Self::File(_) => None,
        }
    }
}

impl TryFrom<String> for Location {
    type Error = LocationError;

    fn try_from(text: String) -> Result<Self, LocationError> {
        text.parse()
    }
}

impl std::str::FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let error = |detail: String| LocationError { text: hide_credentials(text), detail };
        if let Some(path) = text.strip_prefix("file:") {
            // file:/path and file:///path are the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(error(String::new())) } else { Ok(Self::File(path.into())) };
        }
        if let Some(rest) = text.strip_prefix("zk://") {
            return Ensemble::parse(rest).map(Self::Zk).map_err(|detail| {
                error(format!(": {detail}, such as zk://10.0.0.1:2181,10.0.0.2:2181/mesos"))
            });
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Http(url)),
            // Also of leader.mesos:5050, where the host looks like a scheme.
            _ if !text.contains("://") => Err(error(": http:// is missing".to_owned())),
            Ok(_) => Err(error(String::new())),
            Err(detail) => Err(error(format!(": {detail}"))),
        }
    }
}

impl PartialEq for Ensemble {
    fn eq(&self, other: &Self) -> bool {
        // A secret itself has no comparison.
        let credentials = self.credentials.as_ref().map(ExposeSecret::expose_secret);
        let others = other.credentials.as_ref().map(ExposeSecret::expose_secret);
        self.servers == other.servers && self.path == other.path && credentials == others
    }
}

impl Eq for Ensemble {}

impl Ensemble {
    /// Parses the part behind `zk://`.
    fn parse(text: &str) -> Result<Self, &'static str> {
        // The last one: a password may contain it.
        let (credentials, rest) = match text.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, text),
        };
        if credentials.is_some_and(|credentials| !credentials.contains(':')) {
            return Err("credentials must be USER:PASSWORD");
        }
        let (servers, path) = rest.split_once('/').ok_or("the path is missing")?;
        let path = path.trim_end_matches('/');
        if path.is_empty() || path.split('/').any(str::is_empty) {
            return Err("the path is missing");
        }
        let servers: Option<Vec<String>> = servers.split(',').map(server).collect();
        Ok(Self {
            servers: servers.ok_or("a server must be HOST:PORT")?,
            path: format!("/{path}"),
            credentials: credentials.map(SecretString::from),
        })
    }
}

/// Returns a server with its port, which may be left out.
fn server(text: &str) -> Option<String> {
    let text = text.trim();
    // Colons of an address in brackets are not in front of a port.
    let bare_v6 = text.starts_with('[') && text.ends_with(']');
    match text.rsplit_once(':').filter(|_| !bare_v6) {
        Some((host, port)) => {
            (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| text.to_owned())
        }
        None => (!text.is_empty()).then(|| format!("{text}:{ZOOKEEPER_PORT}")),
    }
}

/// Shows no credentials.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(&without_credentials(url)),
            Self::Zk(ensemble) => write!(f, "{ensemble}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Shows no credentials, unlike `Url`.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zk://{}{}", self.servers.join(","), self.path)
    }
}

/// Returns a URL as people may see it.
pub fn without_credentials(url: &Url) -> String {
    let mut shown = url.clone();
    // These fail only for URLs that have no host, hence no credentials.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.as_str().trim_end_matches('/').to_owned()
}

/// Returns a text that need not be a URL without what could be credentials in one.
pub fn hide_credentials(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        (None, Some((_, rest))) => rest.to_owned(),
        _ => text.to_owned(),
    }
}

/// Returns the URL of a path below another URL.
pub fn below(root: &Url, path: &str) -> Url {
    let mut url = root.clone();
    url.set_path(&format!("{}{path}", root.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> Result<String, String> {
        text.parse::<Location>().map(|location| location.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn locations() {
        assert_eq!(show("http://user:secret@m1:5050").unwrap(), "http://m1:5050");
        assert_eq!(show("file:/tmp/state.json").unwrap(), "file:/tmp/state.json");
        assert_eq!(show("file:///tmp/state.json").unwrap(), "file:/tmp/state.json");
        for text in ["m1:5050", "file:", "", "http://"] {
            assert!(show(text).is_err(), "{text}");
        }
        for text in ["m1:5050", "10.0.0.1:5050", "user:secret@m1"] {
            assert!(show(text).unwrap_err().ends_with(": http:// is missing"), "{text}");
        }
    }

    #[test]
    fn ensembles() {
        assert_eq!(show("zk://z1/mesos").unwrap(), "zk://z1:2181/mesos");
        assert_eq!(show("zk://u:secret@z1:1,[::1]/a/b/").unwrap(), "zk://z1:1,[::1]:2181/a/b");
        let Location::Zk(ensemble) = "zk://u:p@ss@z1:1/mesos".parse().unwrap() else { panic!() };
        assert_eq!(ensemble.credentials.unwrap().expose_secret(), "u:p@ss");
        for text in [
            "zk://",
            "zk://z1",
            "zk://z1/",
            "zk:///mesos",
            "zk://z1:x/mesos",
            "zk://u@z1/mesos",
            "zk://z1//a",
        ] {
            assert!(show(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for text in
            ["zk://user:secret@z1", "ftp://user:secret@m1", "http://user:secret@", "user:secret@m1:5050"]
        {
            let error = show(text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", "zk://u:secret@z1/mesos".parse::<Location>().unwrap()).contains("secret"));
    }
}
