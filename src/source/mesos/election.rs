//! The election of masters in ZooKeeper.
//!
//! Each master holds an ephemeral node `json.info_SEQUENCE`; the lowest sequence leads. Changes are
//! learned from a watch, and the nodes are listed now and then as well, should a watch get lost. A
//! leader stays known while ZooKeeper does not answer: masters go on without it for a while.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zookeeper_client::{Client, EventType};

use crate::source::asked::AskedServers;
use crate::source::location::{Ensemble, ZOOKEEPER_PORT};

const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for ZooKeeper to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Interval at which the nodes are listed although no watch reported a change.
const LISTED_EVERY: Duration = Duration::from_secs(30);

/// Pause before ZooKeeper is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Outcome of an election, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElectionState {
    /// Root URL of the leading master.
    pub leader: Option<Url>,
    /// Reason why the leader is not known, or may be out of date.
    pub error: Option<String>,
}

/// An election that is followed until this value is dropped.
#[derive(Debug)]
pub struct Election {
    elected: watch::Receiver<ElectionState>,
    servers: AskedServers,
    _following: AbortOnDropHandle<()>,
}

impl Election {
    /// Starts to follow an election, which needs an async runtime. ZooKeeper does not know whether
    /// masters speak TLS, so that `scheme` says it.
    pub fn follow(ensemble: Ensemble, scheme: &'static str) -> Self {
        let (sender, elected) = watch::channel(ElectionState::default());
        let servers = AskedServers::default();
        let following = tokio::spawn(follow(ensemble, scheme, sender, servers.clone()));
        Self { elected, servers, _following: AbortOnDropHandle::new(following) }
    }

    /// Returns the addresses of the ZooKeeper servers that were asked.
    pub fn servers(&self) -> &AskedServers {
        &self.servers
    }

    /// Returns the present outcome; waits for the first one.
    pub async fn current(&mut self) -> ElectionState {
        let known = |elected: &ElectionState| *elected != ElectionState::default();
        match self.elected.wait_for(known).await {
            Ok(elected) => elected.clone(),
            Err(_) => ElectionState::default(),
        }
    }

    /// Waits until the leader is another one than at the last call of `current`.
    pub async fn changed(&mut self) {
        let before = self.elected.borrow_and_update().leader.clone();
        let other = |elected: &ElectionState| elected.leader.is_some() && elected.leader != before;
        if self.elected.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Opens one session after the other.
async fn follow(
    ensemble: Ensemble,
    scheme: &'static str,
    sender: watch::Sender<ElectionState>,
    asked: AskedServers,
) {
    loop {
        let Err(error) = session(&ensemble, scheme, &sender, &asked).await;
        // The last leader stays known: it may well lead on.
        let error = format!("{ensemble}: {error}");
        sender.send_if_modified(|elected| {
            let new = elected.error.as_ref() != Some(&error);
            if new {
                tracing::warn!(error, "cannot follow the election of masters, the last leader is asked on");
            }
            elected.error = Some(error);
            new
        });
        tokio::time::sleep(RETRY).await;
    }
}

/// Reason why an election cannot be followed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "no answer from ZooKeeper within {ANSWER:?}; is it running there, and does no firewall drop the packets?"
    )]
    Timeout,
    #[error("{0}{hint}", hint = hint(.0))]
    Client(#[from] zookeeper_client::Error),
    #[error("the name {0} is not found: {1}")]
    Name(String, std::io::Error),
    #[error("ZooKeeper ended the session; a new one is opened")]
    Session,
    #[error(
        "no master stands for election at {0}; is that the path of the masters' --zk, and does a master run?"
    )]
    NoMasters(String),
    #[error("{0} does not describe a master: {1}")]
    Master(String, String),
}

/// Returns the likely reason for an error of the client.
fn hint(error: &zookeeper_client::Error) -> &'static str {
    match error {
        zookeeper_client::Error::NoHosts => " (is ZooKeeper running at these addresses?)",
        zookeeper_client::Error::NoAuth | zookeeper_client::Error::AuthFailed => {
            " (is USER:PASSWORD in the zk:// URL of source.masters right?)"
        }
        _ => "",
    }
}

/// Publishes the outcomes of an election for as long as one session lasts.
async fn session(
    ensemble: &Ensemble,
    scheme: &str,
    sender: &watch::Sender<ElectionState>,
    asked: &AskedServers,
) -> Result<std::convert::Infallible, Error> {
    // Anew for each session: the client itself would resolve names without telling the addresses.
    let servers = in_time(async { Ok(resolve(&ensemble.servers, asked).await) }).await??;
    // Eagerly: after one round over all servers the reason can be told.
    let mut connector = Client::connector().with_session_timeout(SESSION_TIMEOUT).with_fail_eagerly();
    // The digest scheme, which is that of the masters' --zk=zk://USER:PASSWORD@...
    if let Some(credentials) = &ensemble.credentials {
        connector = connector.with_auth("digest", credentials.expose_secret().as_bytes());
    }
    let client = in_time(connector.connect(&servers.join(","))).await?;
    loop {
        let (nodes, watcher) = match in_time(client.list_and_watch_children(&ensemble.path)).await {
            Err(Error::Client(zookeeper_client::Error::NoNode)) => {
                return Err(Error::NoMasters(ensemble.path.clone()));
            }
            listed => listed?,
        };
        // The watch is set before the leader is read, so that no change falls in between.
        match first(&nodes) {
            // The last leader stays known: its successor is perhaps being elected.
            None => {
                let error = format!("{ensemble}: {}", Error::NoMasters(ensemble.path.clone()));
                publish(sender, |elected| elected.error = Some(error));
            }
            Some(node) => {
                let path = format!("{}/{node}", ensemble.path);
                match in_time(client.get_data(&path)).await {
                    // The node went just now, and the watch reports it.
                    Err(Error::Client(zookeeper_client::Error::NoNode)) => {}
                    data => {
                        let leader = master(&data?.0, scheme).map_err(|error| Error::Master(path, error))?;
                        publish(sender, |elected| {
                            *elected = ElectionState { leader: Some(leader), error: None }
                        });
                    }
                }
            }
        }
        tokio::select! {
            event = watcher.changed() => {
                // Nodes of the old session are of no use; a new one lists them again.
                if event.event_type == EventType::Session {
                    return Err(Error::Session);
                }
            }
            () = tokio::time::sleep(LISTED_EVERY) => {}
        }
    }
}

/// Returns the addresses of servers that are given as `HOST:PORT`. A name that is not found costs only itself.
async fn resolve(servers: &[String], asked: &AskedServers) -> Result<Vec<String>, Error> {
    let lookups = servers.iter().map(async |server| {
        let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
        let host = host.trim_matches(['[', ']']);
        asked.resolve(host, port.parse().unwrap_or(ZOOKEEPER_PORT)).await.map_err(|error| (host, error))
    });
    let (mut found, mut failed) = (Vec::new(), None);
    for looked_up in futures_util::future::join_all(lookups).await {
        match looked_up {
            Ok(addresses) => found.extend(addresses.iter().map(ToString::to_string)),
            Err((host, error)) => failed = Some(Error::Name(host.to_owned(), error)),
        }
    }
    failed.filter(|_| found.is_empty()).map_or(Ok(found), Err)
}

/// Applies a change, and wakes the readers if it makes a difference.
fn publish(sender: &watch::Sender<ElectionState>, change: impl FnOnce(&mut ElectionState)) {
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

/// Returns the node with the lowest sequence. Other nodes are those of old masters (`info_`) and of
/// the replicated log.
fn first(nodes: &[String]) -> Option<&String> {
    let sequence = |node: &String| node.strip_prefix("json.info_")?.parse::<u64>().ok();
    let numbered = nodes.iter().filter_map(|node| Some((sequence(node)?, node)));
    numbered.min().map(|(_, node)| node)
}

/// The content of a master's node.
#[derive(Deserialize)]
struct MasterInfo {
    #[serde(default)]
    address: Option<MasterAddress>,
    /// libprocess identity, for Mesos before 0.24, which had no address.
    #[serde(default)]
    pid: Option<String>,
}

#[derive(Deserialize)]
struct MasterAddress {
    ip: Option<IpAddr>,
    hostname: Option<String>,
    port: u16,
}

/// Returns the root URL of the master that a node describes. Its address is better than its name,
/// which may need the very DNS that this daemon serves.
fn master(data: &[u8], scheme: &str) -> Result<Url, String> {
    let info: MasterInfo = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let authority = match info.address {
        Some(MasterAddress { ip: Some(ip), port, .. }) => std::net::SocketAddr::new(ip, port).to_string(),
        Some(MasterAddress { hostname: Some(hostname), port, .. }) => format!("{hostname}:{port}"),
        _ => {
            let pid = info.pid.as_deref().and_then(|pid| pid.split_once('@'));
            pid.ok_or("it has no address")?.1.to_owned()
        }
    };
    Url::parse(&format!("{scheme}://{authority}")).map_err(|error| format!("{authority:?}: {error}"))
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

    #[tokio::test]
    async fn zookeeper_is_asked_at_the_addresses_that_are_known_of_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let servers = vec![format!("localhost:{port}"), "no-such-host.invalid:2181".to_owned()];
        let ensemble = Ensemble { servers, path: "/mesos".to_owned(), credentials: None };
        let election = Election::follow(ensemble, "http");
        let _asked = listener.accept().await.unwrap();
        let servers = election.servers().list();
        assert_eq!(servers.get(&IpAddr::from([127, 0, 0, 1])).map(String::as_str), Some("localhost"));
        let asked = AskedServers::default();
        let missing = resolve(&["no-such-host.invalid:2181".to_owned()], &asked).await.unwrap_err();
        assert!(missing.to_string().starts_with("the name no-such-host.invalid is not found"), "{missing}");
    }
}
