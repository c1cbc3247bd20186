//! Which masters to ask, and in which order: who was elected, who answered last, who is listed.

use std::sync::Arc;

use reqwest::Url;

use super::election::Election;
use crate::source::http::Http;
use crate::source::{Error, Location, settings};

/// Masters, and the one that led when somebody last knew.
#[derive(Debug)]
pub struct Masters {
    pub http: Arc<Http>,
    listed: Vec<Url>,
    elections: Vec<Election>,
    /// What answered last.
    leader: Option<Url>,
}

impl Masters {
    /// Starts to follow elections where there are some; needs an async runtime then.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        let mut listed = Vec::new();
        let mut elections = Vec::new();
        let scheme = if config.access.tls_ca.is_some() { "https" } else { "http" };
        for location in &config.masters {
            match location {
                Location::Http(url) => listed.push(url.clone()),
                Location::Zk(ensemble) => elections.push(Election::follow(ensemble.clone(), scheme)),
                Location::File(_) => {}
            }
        }
        Ok(Self {
            http: Arc::new(Http::new(&config.access, config.timeout.0)?),
            listed,
            elections,
            leader: None,
        })
    }

    /// URLs of all masters that are known, the likeliest leader first; and why others are not.
    pub async fn candidates(&mut self) -> (Vec<Url>, Vec<String>) {
        let mut candidates = Vec::new();
        let mut failures = Vec::new();
        for election in &mut self.elections {
            let elected = election.current().await;
            failures.extend(elected.error);
            candidates.extend(elected.leader);
        }
        candidates.extend(self.leader.clone());
        candidates.extend(self.listed.iter().cloned());
        let mut seen = Vec::new();
        candidates.retain(|candidate| {
            let new = !seen.contains(&root(candidate));
            seen.push(root(candidate));
            new
        });
        (candidates, failures)
    }

    /// Notes who leads, by the URL that answered.
    pub fn found(&mut self, answered: &Url) {
        self.leader = Some(answered.clone());
    }

    /// Forgets who leads.
    pub fn lost(&mut self) {
        self.leader = None;
    }

    /// Waits until an election has another outcome.
    pub async fn changed(&mut self) {
        let changes = self.elections.iter_mut().map(|election| Box::pin(election.changed()));
        let changes: Vec<_> = changes.collect();
        match changes.is_empty() {
            true => std::future::pending().await,
            false => drop(futures_util::future::select_all(changes).await),
        }
    }
}

/// Where a master has its state document. A master is given by its address, with a path where a proxy
/// is in between; the whole URL of a state document is taken as it is.
pub fn state(master: &Url) -> Url {
    let path = master.path().trim_end_matches('/');
    match path.ends_with("/state") || path.ends_with("/state.json") {
        true => master.clone(),
        false => below(master, "/master/state"),
    }
}

/// Where a master has the v1 operator API.
pub fn operator(master: &Url) -> Url {
    below(&root(master), "/api/v1")
}

/// A master's URL without the path of an API.
fn root(url: &Url) -> Url {
    let mut root = url.clone();
    let mut path = url.path().trim_end_matches('/');
    for suffix in ["/state", "/state.json", "/api/v1", "/master"] {
        path = path.strip_suffix(suffix).unwrap_or(path);
    }
    root.set_path(&format!("{path}/"));
    root.set_query(None);
    root
}

/// A URL below another one.
pub fn below(root: &Url, path: &str) -> Url {
    let mut url = root.clone();
    url.set_path(&format!("{}{path}", root.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let state = |text: &str| state(&Url::parse(text).unwrap()).to_string();
        assert_eq!(state("http://m:5050"), "http://m:5050/master/state");
        assert_eq!(state("http://m:5050/"), "http://m:5050/master/state");
        assert_eq!(state("https://u:p@proxy/mesos/"), "https://u:p@proxy/mesos/master/state");
        assert_eq!(state("http://m:5050/state"), "http://m:5050/state");
        let operator = |text: &str| operator(&Url::parse(text).unwrap()).to_string();
        for master in ["", "/", "/state", "/master/state", "/master/state.json?x=1", "/master/api/v1"] {
            assert_eq!(operator(&format!("http://m:5050{master}")), "http://m:5050/api/v1");
        }
        assert_eq!(operator("https://proxy/mesos/"), "https://proxy/mesos/api/v1");
    }

    #[tokio::test]
    async fn every_master_is_asked_once_and_the_last_leader_first() {
        let mut config = crate::config::Config::default().source;
        config.masters = ["http://u:p@m1:5050", "http://u:p@m2:5050", "http://u:p@m1:5050/"]
            .map(|m| m.parse().unwrap())
            .into();
        let mut masters = Masters::new(&config).unwrap();
        masters.found(&Url::parse("http://u:p@m2:5050/master/state").unwrap());
        let (candidates, failures) = masters.candidates().await;
        let candidates: Vec<&str> = candidates.iter().map(Url::as_str).collect();
        assert_eq!(candidates, ["http://u:p@m2:5050/master/state", "http://u:p@m1:5050/"]);
        assert!(failures.is_empty());
    }
}
