//! Follows the election of masters in ZooKeeper.
//!
//! Each master holds an ephemeral node `json.info_SEQUENCE`; the lowest sequence leads. Changes are
//! learned from a watch, and the nodes are listed now and then as well, should a watch get lost. A
//! leader stays known while ZooKeeper is away: masters outlive it for a while.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zookeeper_client::{Client, EventType};

use crate::source::location::Ensemble;

const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for ZooKeeper to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the nodes are listed although no change was told.
const LISTED_EVERY: Duration = Duration::from_secs(30);

/// Pause before ZooKeeper is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Who leads, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elected {
    /// Root URL of the leading master.
    pub leader: Option<Url>,
    /// Why that is not known, or may be old.
    pub error: Option<String>,
}

/// An election that is being followed until this is dropped.
#[derive(Debug)]
pub struct Election {
    elected: watch::Receiver<Elected>,
    _following: AbortOnDropHandle<()>,
}

impl Election {
    /// Starts to follow; needs an async runtime. ZooKeeper does not tell whether masters speak TLS.
    pub fn follow(ensemble: Ensemble, scheme: &'static str) -> Self {
        let (sender, elected) = watch::channel(Elected::default());
        let following = tokio::spawn(follow(ensemble, scheme, sender));
        Self { elected, _following: AbortOnDropHandle::new(following) }
    }

    /// Who leads now; waits until anything is known at all.
    pub async fn current(&mut self) -> Elected {
        let known = |elected: &Elected| *elected != Elected::default();
        match self.elected.wait_for(known).await {
            Ok(elected) => elected.clone(),
            Err(_) => Elected::default(),
        }
    }

    /// Waits until another leader is known than when `current` was last called.
    pub async fn changed(&mut self) {
        let before = self.elected.borrow_and_update().leader.clone();
        let other = |elected: &Elected| elected.leader.is_some() && elected.leader != before;
        if self.elected.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }
}

async fn follow(ensemble: Ensemble, scheme: &'static str, sender: watch::Sender<Elected>) {
    loop {
        let Err(error) = session(&ensemble, scheme, &sender).await;
        let error = format!("{ensemble}: {error}");
        sender.send_if_modified(|elected| {
            let new = elected.error.as_ref() != Some(&error);
            if new {
                tracing::warn!(error, "cannot follow the election of masters");
            }
            elected.error = Some(error);
            new
        });
        tokio::time::sleep(RETRY).await;
    }
}

/// Why an election can't be followed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Client(#[from] zookeeper_client::Error),
    #[error("the session ended")]
    Session,
    #[error("no master stands for election at {0}; is that the path of the masters' --zk?")]
    NoMasters(String),
    #[error("{0} does not describe a master: {1}")]
    Master(String, String),
}

async fn session(
    ensemble: &Ensemble,
    scheme: &str,
    sender: &watch::Sender<Elected>,
) -> Result<std::convert::Infallible, Error> {
    let mut connector = Client::connector().with_session_timeout(SESSION_TIMEOUT).with_fail_eagerly();
    if let Some(credentials) = &ensemble.credentials {
        connector = connector.with_auth("digest", credentials.expose().as_bytes());
    }
    let client = in_time(connector.connect(&ensemble.servers.join(","))).await?;
    loop {
        let (nodes, watcher) = match in_time(client.list_and_watch_children(&ensemble.path)).await {
            Err(Error::Client(zookeeper_client::Error::NoNode)) => {
                return Err(Error::NoMasters(ensemble.path.clone()));
            }
            listed => listed?,
        };
        match first(&nodes) {
            None => {
                let error = format!("{ensemble}: {}", Error::NoMasters(ensemble.path.clone()));
                publish(sender, |elected| elected.error = Some(error));
            }
            Some(node) => {
                let path = format!("{}/{node}", ensemble.path);
                match in_time(client.get_data(&path)).await {
                    // It went just now, and the watch will tell.
                    Err(Error::Client(zookeeper_client::Error::NoNode)) => {}
                    data => {
                        let leader = master(&data?.0, scheme).map_err(|error| Error::Master(path, error))?;
                        publish(sender, |elected| *elected = Elected { leader: Some(leader), error: None });
                    }
                }
            }
        }
        tokio::select! {
            event = watcher.changed() => {
                if event.event_type == EventType::Session {
                    return Err(Error::Session);
                }
            }
            () = tokio::time::sleep(LISTED_EVERY) => {}
        }
    }
}

fn publish(sender: &watch::Sender<Elected>, change: impl FnOnce(&mut Elected)) {
    sender.send_if_modified(|elected| {
        let before = elected.clone();
        change(elected);
        if elected.leader != before.leader {
            let leader = elected.leader.as_ref().map(Url::as_str);
            tracing::info!(leader, "another master was elected");
        }
        *elected != before
    });
}

async fn in_time<T>(asked: impl Future<Output = Result<T, zookeeper_client::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Timeout),
    }
}

/// The node with the lowest sequence. Others there are of old masters (`info_`) and of the
/// replicated log.
fn first(nodes: &[String]) -> Option<&String> {
    let sequence = |node: &String| node.strip_prefix("json.info_")?.parse::<u64>().ok();
    let numbered = nodes.iter().filter_map(|node| Some((sequence(node)?, node)));
    numbered.min().map(|(_, node)| node)
}

#[derive(Deserialize)]
struct MasterInfo {
    #[serde(default)]
    address: Option<Address>,
    /// Before Mesos 0.24 there was no address.
    #[serde(default)]
    pid: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    ip: Option<IpAddr>,
    hostname: Option<String>,
    port: u16,
}

/// The root URL of the master that a node describes. Its address is better than its name, which may
/// need the very DNS that this daemon is a part of.
fn master(data: &[u8], scheme: &str) -> Result<Url, String> {
    let info: MasterInfo = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let place = match info.address {
        Some(Address { ip: Some(ip), port, .. }) => std::net::SocketAddr::new(ip, port).to_string(),
        Some(Address { hostname: Some(hostname), port, .. }) => format!("{hostname}:{port}"),
        _ => {
            let pid = info.pid.as_deref().and_then(|pid| pid.split_once('@'));
            pid.ok_or("it has no address")?.1.to_owned()
        }
    };
    Url::parse(&format!("{scheme}://{place}")).map_err(|error| format!("{place:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_sequence_leads() {
        let nodes = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = nodes(&["info_0000000001", "log_replicas", "json.info_0000000010", "json.info_0000000009"]);
        assert_eq!(first(&all).unwrap(), "json.info_0000000009");
        // Ten digits are a minimum, so that their order as text is not the one that counts.
        let grown = nodes(&["json.info_10000000000", "json.info_9999999999"]);
        assert_eq!(first(&grown).unwrap(), "json.info_9999999999");
        assert_eq!(first(&nodes(&["json.info_", "info_0000000001"])), None);
    }

    #[test]
    fn masters() {
        let url = |text: &str| master(text.as_bytes(), "http").map(|url| url.to_string());
        let real = r#"{"address":{"hostname":"localhost","ip":"127.0.0.1","port":5153},"capabilities":[],
            "hostname":"localhost","id":"c7b2","ip":16777343,"pid":"master@127.0.0.1:5153","port":5153}"#;
        assert_eq!(url(real).unwrap(), "http://127.0.0.1:5153/");
        assert_eq!(url(r#"{"address":{"ip":"fd00::1","port":5050}}"#).unwrap(), "http://[fd00::1]:5050/");
        assert_eq!(url(r#"{"address":{"hostname":"m1","port":5050}}"#).unwrap(), "http://m1:5050/");
        assert_eq!(url(r#"{"pid":"master@10.0.0.1:5050"}"#).unwrap(), "http://10.0.0.1:5050/");
        assert!(url("{}").is_err() && url("").is_err() && url("\u{0}").is_err());
    }

    #[tokio::test]
    async fn without_zookeeper_there_is_a_reason_and_no_leader() {
        // Takes connections and ends them.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let ensemble =
            Ensemble { servers: vec![server.clone()], path: "/mesos".to_owned(), credentials: None };
        let mut election = Election::follow(ensemble, "http");
        let elected = election.current().await;
        assert_eq!(elected.leader, None);
        assert!(elected.error.unwrap().contains(&server));
    }
}
