//! The masters of a cluster and the order in which they are asked: the elected one, the one that
//! answered last, those that are listed.
//!
//! A master that is neither listed nor elected is known by a redirect. It is believed for [`BELIEVED`],
//! then a listed or elected one must lead there again: one wrong redirect must not decide for ever.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::time::Instant;

use super::election::Election;
use crate::source::http::{Call, HttpClient, TrustedServers};
use crate::source::location::{below, without_credentials};
use crate::source::traffic::Traffic;
use crate::source::{Error, Location, settings};

/// Question that only the leader answers.
pub const GET_MASTER: Call<'_> = Call::Post(r#"{"type":"GET_MASTER"}"#);

/// Time for which a master is believed to which only a redirect led.
pub const BELIEVED: Duration = Duration::from_secs(5 * 60);

/// The master that answered last.
struct KnownLeader {
    url: Url,
    /// Last time at which a listed or elected server vouched for it: by being the leader itself, or by a
    /// redirect.
    vouched_at: Instant,
    /// Server whose redirect led there; `None` for a server that is listed or elected.
    led_by: Option<Url>,
}

/// The masters of a cluster, with the last known leader.
///
/// Has no `Debug`: URLs may hold credentials.
pub struct Masters {
    pub http: Arc<HttpClient>,
    listed: Vec<Url>,
    elections: Vec<Election>,
    leader: Option<KnownLeader>,
}

impl Masters {
    /// Starts to follow the elections among `config.masters`, which needs an async runtime.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        Self::counting(config, Arc::default())
    }

    /// Does the same, and counts into `traffic`.
    pub fn counting(config: &settings::Source, traffic: Arc<Traffic>) -> Result<Self, Error> {
        Self::listed_in("source.masters", config, traffic)
    }

    /// Does the same with `key` as the key of the configuration that lists them.
    pub fn listed_in(
        key: &'static str,
        config: &settings::Source,
        traffic: Arc<Traffic>,
    ) -> Result<Self, Error> {
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
        let servers = TrustedServers::new(key, &listed, config.redirects.clone());
        let http = HttpClient::new(&config.access(), servers, config.timeout.0)?;
        Ok(Self { http: Arc::new(http.counting(traffic)), listed, elections, leader: None })
    }

    /// Returns the addresses of all servers that were asked, those of elections among them.
    pub fn servers(&self) -> BTreeMap<IpAddr, String> {
        let elections = self.elections.iter().flat_map(|election| election.servers().list());
        elections.chain(self.http.asked().list()).collect()
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
        self.http.servers().set_elected(&candidates);
        if self.is_leader_overdue() {
            self.leader = None;
        }
        candidates.extend(self.leader.as_ref().map(|leader| leader.url.clone()));
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

    /// Sets the leader, by the URL that was asked and the one that answered.
    pub fn set_leader(&mut self, asked: &Url, answered: &Url) {
        let servers = self.http.servers();
        let now = Instant::now();
        let (vouched_at, led_by) = match &self.leader {
            _ if servers.contains(answered) => (now, None),
            _ if servers.contains(asked) => (now, Some(asked.clone())),
            // Asked by itself, so that nothing vouches for it anew.
            Some(leader) => (leader.vouched_at, leader.led_by.clone()),
            None => (now, None),
        };
        self.leader = Some(KnownLeader { url: answered.clone(), vouched_at, led_by });
    }

    /// Returns true if the leader is one that was neither listed nor elected, and that no listed or
    /// elected server has led to for [`BELIEVED`].
    pub fn is_leader_overdue(&self) -> bool {
        let is_overdue = |leader: &KnownLeader| {
            !self.http.servers().contains(&leader.url) && leader.vouched_at.elapsed() >= BELIEVED
        };
        self.leader.as_ref().is_some_and(is_overdue)
    }

    /// Returns true if a listed or elected master still leads to the leader, which then is believed
    /// anew.
    pub async fn confirm_leader(&mut self) -> bool {
        let Some(known) = self.leader.take() else { return false };
        let (candidates, _) = self.candidates().await;
        for candidate in candidates {
            let asked = operator(&candidate);
            let Ok((answered, _)) = self.http.document(&asked, GET_MASTER).await else { continue };
            if root(&answered) == root(&known.url) {
                self.leader = Some(known);
                self.set_leader(&asked, &answered);
                return true;
            }
        }
        false
    }

    /// Returns the URL of an answer for people, with the server whose redirect led there.
    pub fn origin(&self, answered: &Url) -> String {
        let shown = without_credentials(answered);
        match self.leader.as_ref().and_then(|leader| leader.led_by.as_ref()) {
            Some(led_by) => format!("{shown} (redirected to by {}, not listed)", without_credentials(led_by)),
            None => shown,
        }
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
        let leader = Url::parse("http://u:p@m2:5050/master/state").unwrap();
        masters.set_leader(&leader, &leader);
        let (candidates, failures) = masters.candidates().await;
        let candidates: Vec<&str> = candidates.iter().map(Url::as_str).collect();
        assert_eq!(candidates, ["http://u:p@m2:5050/master/state", "http://u:p@m1:5050/"]);
        assert!(failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_redirect_is_believed_for_a_while_however_often_its_target_answers() {
        let url = |text: &str| Url::parse(text).unwrap();
        let config = settings::Source {
            masters: vec!["http://m1:5050".parse().unwrap()],
            ..settings::Source::default()
        };
        let mut masters = Masters::new(&config).unwrap();
        let (listed, led_to) = (url("http://m1:5050/master/state"), url("http://m2:5050/master/state"));
        masters.set_leader(&listed, &led_to);
        assert_eq!(
            masters.origin(&led_to),
            "http://m2:5050/master/state (redirected to by http://m1:5050/master/state, not listed)"
        );
        for _ in 0..2 {
            tokio::time::advance(BELIEVED / 2 - Duration::from_secs(1)).await;
            assert_eq!(masters.candidates().await.0.len(), 2);
            masters.set_leader(&led_to, &led_to);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(masters.candidates().await.0, [url("http://m1:5050/")]);
        // The listed one leads there again.
        masters.set_leader(&listed, &led_to);
        assert_eq!(masters.candidates().await.0.len(), 2);
        // A listed one needs nothing to vouch for it.
        masters.set_leader(&listed, &listed);
        assert_eq!(masters.origin(&listed), "http://m1:5050/master/state");
        tokio::time::advance(BELIEVED * 2).await;
        assert!(!masters.is_leader_overdue());
    }
}
