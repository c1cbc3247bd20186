//! The masters of a cluster and the order in which they are asked: the elected one, the one that
//! answered last, those that are listed.

use std::sync::Arc;

use reqwest::Url;

use super::election::Election;
use crate::source::http::HttpClient;
use crate::source::location::below;
use crate::source::{Error, Location, settings};

/// The masters of a cluster, with the last known leader.
///
/// Has no `Debug`: URLs may hold credentials.
pub struct Masters {
    pub http: Arc<HttpClient>,
    listed: Vec<Url>,
    elections: Vec<Election>,
    /// URL that answered last.
    leader: Option<Url>,
}

impl Masters {
    /// Starts to follow the elections among `config.masters`, which needs an async runtime.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        let mut listed = Vec::new();
        let mut elections = Vec::new();
        let scheme = if config.tls_ca.is_some() { "https" } else { "http" };
        for location in &config.masters {
            match location {
                Location::Http(url) => listed.push(url.clone()),
                Location::Zk(ensemble) => elections.push(Election::follow(ensemble.clone(), scheme)),
                Location::File(_) => {}
            }
        }
        Ok(Self {
            http: Arc::new(HttpClient::new(&config.access(), config.timeout.0)?),
            listed,
            elections,
            leader: None,
        })
    }

    /// Returns the URLs of all known masters, the likeliest leader first, and the reasons why elections
    /// are not known.
    pub async fn candidates(&mut self) -> (Vec<Url>, Vec<String>) {
        let mut candidates = Vec::new();
        let mut failures = Vec::new();
        // The elected leader first: it is right unless an election is under way.
        for election in &mut self.elections {
            let elected = election.current().await;
            failures.extend(elected.error);
            candidates.extend(elected.leader);
        }
        candidates.extend(self.leader.clone());
        candidates.extend(self.listed.iter().cloned());
        // One master may be known by election, by its last answer and by configuration; the first place
        // counts.
        let mut seen = Vec::new();
        candidates.retain(|candidate| {
            let new = !seen.contains(&root(candidate));
            seen.push(root(candidate));
            new
        });
        (candidates, failures)
    }

    /// Sets the leader, by the URL that answered.
    pub fn set_leader(&mut self, answered: &Url) {
        self.leader = Some(answered.clone());
    }

    /// Forgets the leader.
    pub fn forget_leader(&mut self) {
        self.leader = None;
    }

    /// Waits until an election has another winner.
    pub async fn leader_changed(&mut self) {
        let changes = self.elections.iter_mut().map(|election| Box::pin(election.changed()));
        let changes: Vec<_> = changes.collect();
        match changes.is_empty() {
            true => std::future::pending().await,
            false => drop(futures_util::future::select_all(changes).await),
        }
    }
}

/// Returns the URL of a master's state document. A master is given by its address, with a path if a
/// proxy is in between; the whole URL of a state document is taken as it is.
pub fn state(master: &Url) -> Url {
    let path = master.path().trim_end_matches('/');
    match path.ends_with("/state") || path.ends_with("/state.json") {
        true => master.clone(),
        false => below(master, "/master/state"),
    }
}

/// Returns the URL of a master's v1 operator API.
pub fn operator(master: &Url) -> Url {
    below(&root(master), "/api/v1")
}

/// Returns a master's URL without the path of an API.
fn root(url: &Url) -> Url {
    let mut root = url.clone();
    let mut path = url.path().trim_end_matches('/');
    // In this order: `/master/state` ends in two of them.
    for suffix in ["/state", "/state.json", "/api/v1", "/master"] {
        path = path.strip_suffix(suffix).unwrap_or(path);
    }
    root.set_path(&format!("{path}/"));
    root.set_query(None);
    root
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
        let masters = ["http://u:p@m1:5050", "http://u:p@m2:5050", "http://u:p@m1:5050/"];
        let masters = masters.map(|m| m.parse().unwrap()).into();
        let config = settings::Source { masters, ..settings::Source::default() };
        let mut masters = Masters::new(&config).unwrap();
        masters.set_leader(&Url::parse("http://u:p@m2:5050/master/state").unwrap());
        let (candidates, failures) = masters.candidates().await;
        let candidates: Vec<&str> = candidates.iter().map(Url::as_str).collect();
        assert_eq!(candidates, ["http://u:p@m2:5050/master/state", "http://u:p@m1:5050/"]);
        assert!(failures.is_empty());
    }
}
