//! Redirects: the servers that may send a request elsewhere, and the servers it may go to.
//!
//! A redirect decides who gets the credentials and whose answer is believed, so that one wrong answer
//! must not hand both to a stranger. A listed server, or one that was elected, may redirect to:
//!
//! - another listed or elected server,
//! - any host, with the scheme and port of a listed or elected server (unless `source.redirects` has
//!   `"listed"`): a list of one master leads to the rest of them,
//! - what `source.redirects` lists.
//!
//! A server that only a redirect led to may not redirect further.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use reqwest::Url;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::cluster::shortened;
use crate::source::location::{Location, hide_credentials, without_credentials};

/// Longest `Location` in bytes; those of masters and Marathons have some hundred.
const MAX_LOCATION: usize = 2_000;

/// Word in `source.redirects` after which a port that is listed is not enough.
const LISTED: &str = "listed";

/// Scheme, host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlace {
    scheme: String,
    host: String,
    port: u16,
}

impl ServerPlace {
    /// Returns the place of a URL; `None` for one without a host or of a scheme without a known port.
    pub fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?.to_owned();
        Some(Self { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default()? })
    }

    fn has_port_of(&self, other: &Self) -> bool {
        (&self.scheme, self.port) == (&other.scheme, other.port)
    }
}

impl fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// Value of `source.redirects`: places to which redirects are followed beside the listed ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// True if the port of a listed server is not enough.
    only_listed: bool,
    places: Vec<ServerPlace>,
}

impl<'de> Deserialize<'de> for Redirects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(String),
            Many(Vec<String>),
        }

        let texts = match Written::deserialize(deserializer) {
            Ok(Written::One(text)) => vec![text],
            Ok(Written::Many(texts)) => texts,
            Err(_) => {
                return Err(D::Error::custom(
                    "must be a list of \"listed\" and URLs such as \"http://10.0.0.2:5050\"",
                ));
            }
        };
        let mut redirects = Self::default();
        for text in texts {
            if text == LISTED {
                redirects.only_listed = true;
                continue;
            }
            let location: Option<Location> = text.parse().ok();
            let place = location.as_ref().and_then(Location::url).and_then(ServerPlace::of);
            redirects.places.push(place.ok_or_else(|| {
                let text = hide_credentials(&text);
                D::Error::custom(format!(
                    "{text:?} is neither \"listed\", http://HOST:PORT nor https://HOST:PORT"
                ))
            })?);
        }
        Ok(redirects)
    }
}

/// Servers that one client asks by configuration or election, and the redirects that it follows.
#[derive(Debug, Default)]
pub struct TrustedServers {
    /// Key of the configuration that lists them, for errors.
    key: &'static str,
    listed: Vec<ServerPlace>,
    elected: RwLock<Vec<ServerPlace>>,
    redirects: Redirects,
}

impl TrustedServers {
    /// Trusts the servers that `key` lists.
    pub fn new<'a>(
        key: &'static str,
        listed: impl IntoIterator<Item = &'a Url>,
        redirects: Redirects,
    ) -> Self {
        let listed = listed.into_iter().filter_map(ServerPlace::of).collect();
        Self { key, listed, elected: RwLock::default(), redirects }
    }

    /// Replaces the servers that are elected at present.
    pub fn set_elected<'a>(&self, elected: impl IntoIterator<Item = &'a Url>) {
        let elected = elected.into_iter().filter_map(ServerPlace::of).collect();
        *self.elected.write().unwrap_or_else(PoisonError::into_inner) = elected;
    }

    /// Returns true for a URL of a listed or elected server.
    pub fn contains(&self, url: &Url) -> bool {
        ServerPlace::of(url).is_some_and(|place| self.any(|trusted| *trusted == place))
    }

    fn any(&self, holds: impl Fn(&ServerPlace) -> bool) -> bool {
        self.listed.iter().any(&holds)
            || self.elected.read().unwrap_or_else(PoisonError::into_inner).iter().any(&holds)
    }

    /// Returns the target of a redirect, with the credentials in the URL if the scheme stays.
    ///
    /// # Errors
    /// A text for an operator that says what to list.
    pub fn follow(&self, from: &Url, location: &str) -> Result<Url, String> {
        let shown = || shortened(hide_credentials(location));
        // Kept short as well, because the URL is shown wherever its server is named.
        if location.len() > MAX_LOCATION {
            let length = location.len();
            return Err(format!(
                "a redirect to {:?}, which is too long: {length} bytes of at most {MAX_LOCATION}",
                shown()
            ));
        }
        let mut to = from
            .join(location)
            .map_err(|error| format!("a redirect to {:?}, which is no URL: {error}", shown()))?;
        self.check(from, &to)?;
        if to.username().is_empty() && to.scheme() == from.scheme() {
            let _ = to.set_username(from.username());
            let _ = to.set_password(from.password());
        }
        Ok(to)
    }

    fn check(&self, from: &Url, to: &Url) -> Result<(), String> {
        let key = self.key;
        let refused = format!("a redirect to {:?} is not followed", shortened(without_credentials(to)));
        let Some(place) = ServerPlace::of(to) else {
            return Err(format!("{refused}: it is not http or https"));
        };
        if !self.contains(from) {
            let from = ServerPlace::of(from).map(|from| from.to_string()).unwrap_or_default();
            return Err(format!(
                "{refused}, because {from} is not listed itself: only a redirect led to it; if it is a server of \
                 yours, add {from:?} to {key}"
            ));
        }
        if self.any(|trusted| *trusted == place) || self.redirects.places.contains(&place) {
            return Ok(());
        }
        let place = shortened(place.to_string());
        match self.redirects.only_listed {
            true => Err(format!(
                "{refused}, because source.redirects allows listed servers only; if it is a server of yours, add \
                 {place:?} to {key} or source.redirects"
            )),
            false if self.any(|trusted| ServerPlace::of(to).is_some_and(|to| to.has_port_of(trusted))) => {
                Ok(())
            }
            false => Err(format!(
                "{refused}, because no listed server has its scheme and port; if it is a server of yours, add \
                 {place:?} to {key} or source.redirects"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn redirects(json: &str) -> Result<Redirects, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn trusted(json: &str) -> TrustedServers {
        let listed = [url("http://m1:5050"), url("https://proxy/mesos")];
        TrustedServers::new("source.masters", &listed, redirects(json).unwrap())
    }

    #[test]
    fn a_listed_server_redirects_to_listed_ports_and_to_what_is_allowed() {
        for (allowed, to, followed) in [
            // The default: the scheme and port of a listed server, on any host.
            ("[]", "//10.0.0.2:5050/master/state", true),
            ("[]", "https://10.0.0.2/", true),
            ("[]", "/elsewhere", true),
            ("[]", "http://10.0.0.2/", false),
            ("[]", "https://10.0.0.2:5050/", false),
            ("[]", "http://10.0.0.2:443/", false),
            ("[]", "ftp://10.0.0.2:5050/", false),
            // More places by configuration.
            (r#"["http://m2:8080"]"#, "http://m2:8080/x", true),
            (r#"["http://m2:8080"]"#, "http://m3:8080/x", false),
            (r#"["http://m2:8080"]"#, "http://m3:5050/x", true),
            // Nothing but what is listed.
            (r#"["listed"]"#, "http://m2:5050/", false),
            (r#""listed""#, "http://m2:5050/", false),
            (r#"["listed"]"#, "https://proxy/", true),
            (r#"["listed","http://m2:5050"]"#, "http://m2:5050/", true),
            (r#"["listed","http://m2:5050"]"#, "http://m3:5050/", false),
        ] {
            let answer = trusted(allowed).follow(&url("http://m1:5050/master/state"), to);
            assert_eq!(answer.is_ok(), followed, "{allowed} {to}: {answer:?}");
        }
    }

    #[test]
    fn a_server_that_a_redirect_led_to_redirects_nowhere() {
        let servers = trusted("[]");
        let from = url("http://10.0.0.66:5050/");
        for to in ["http://10.0.0.67:5050/", "http://m1:5050/", "/"] {
            let error = servers.follow(&from, to).unwrap_err();
            assert!(error.contains(r#"add "http://10.0.0.66:5050" to source.masters"#), "{error}");
        }
        // An election makes it one of the masters.
        servers.set_elected([&from]);
        assert!(servers.follow(&from, "http://10.0.0.67:5050/").is_ok());
        servers.set_elected([]);
        assert!(servers.follow(&from, "http://10.0.0.67:5050/").is_err());
    }

    #[test]
    fn credentials_of_a_url_go_along_while_the_scheme_stays() {
        let from = url("http://u:p@m1:5050");
        assert_eq!(trusted("[]").follow(&from, "//m2:5050/a").unwrap().as_str(), "http://u:p@m2:5050/a");
        assert_eq!(trusted("[]").follow(&from, "https://m2/a").unwrap().as_str(), "https://m2/a");
    }

    #[test]
    fn errors_are_short_and_say_what_to_list() {
        let from = url("http://m1:5050");
        let error = trusted("[]").follow(&from, "http://u:secret@evil/steal").unwrap_err();
        assert!(error.contains(r#"add "http://evil:80" to source.masters or source.redirects"#), "{error}");
        assert!(!error.contains("secret"), "{error}");
        let long = "x".repeat(100_000);
        for to in [
            format!("http://evil/{long}"),
            format!("http://{long}/"),
            format!("/{long}"),
            format!("http://[{long}"),
        ] {
            let error = trusted("[]").follow(&from, &to).unwrap_err();
            assert!(error.len() < 600, "{}", error.len());
        }
    }

    #[test]
    fn redirects_are_urls_or_the_word_listed() {
        for json in [r#"["m2:5050"]"#, r#"["file:/x"]"#, r#""all""#, "5", r#"["zk://z/mesos"]"#] {
            assert!(redirects(json).is_err(), "{json}");
        }
        let error = redirects(r#"["ftp://u:secret@m"]"#).unwrap_err();
        assert!(!error.contains("secret") && error.contains("listed"), "{error}");
    }
}
