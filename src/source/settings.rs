//! Settings of the sources: the sections `source` and `marathon` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use std::path::PathBuf;

use super::http::credentials::{Access, TokenScheme};
use super::http::redirects::Redirects;
use super::http::secret::SecretRef;
use super::{Location, Mode};
use crate::units::{Rate, Span};

/// Section `source`: masters, or the node's own agent.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct Source {
    /// Mesos masters, asked in turn until one answers. Each is the URL of a master, such as
    /// `http://10.0.0.1:5050`, or of the ZooKeeper ensemble in which masters elect their leader, such as
    /// `zk://10.0.0.1:2181,10.0.0.2:2181/mesos`, with `USER:PASSWORD@` before the first server if it wants a
    /// login. A single `file:/PATH` reads a state document from disk instead. `[]` asks no master; marathon.urls or
    /// the mode agent is needed then.
    #[config(default = ["http://leader.mesos:5050"])]
    pub masters: Vec<Location>,

    /// Way in which the state of the cluster is read. `poll`: state documents of the masters, every
    /// source.interval. `stream`: events of a master's v1 operator API; a master can serve few such clients, so
    /// use it on some nodes, not on hundreds. `agent`: this node's own tasks from source.agent every
    /// source.interval, all other tasks from the masters every source.resync.
    #[config(default = "poll")]
    pub mode: Mode,

    /// Time between two requests for the state, at least 100ms. Varied by up to 20 % so that nodes do not ask
    /// all at once, and longer if source.budget demands it.
    #[config(default = "2s")]
    pub interval: Span,

    /// Time between two requests for the whole state in the modes stream and agent, at least 100ms. Longer if
    /// source.budget demands it.
    #[config(default = "1m")]
    pub resync: Span,

    /// URL of this node's own Mesos agent, which is asked in the mode agent.
    #[config(default = "http://127.0.0.1:5051")]
    pub agent: Location,

    /// Further servers to which a redirect of masters, agent or Marathon may lead, such as
    /// `["http://10.0.0.2:8080"]`. Always allowed: listed or elected servers, and any host with the scheme and port
    /// of one. With `"listed"` in the list, any host is no longer allowed.
    #[config(default = [])]
    pub redirects: Redirects,

    /// Longest time for one complete answer of a master, an agent or Marathon, at least 100ms. After it the
    /// request counts as failed.
    #[config(default = "30s")]
    pub timeout: Span,

    /// Longest pause between failed requests, at least 100ms. The first pause is source.interval, or
    /// marathon.interval for Marathon, and each further one is twice as long, up to this.
    #[config(default = "30s")]
    pub max_backoff: Span,

    /// Time for which backends stay after a fail-over of the Mesos master although their agents have not
    /// registered with the new one.
    #[config(default = "15m")]
    pub failover_hold: Span,

    /// Number of state documents in a row that are held back because more than half of all tasks have gone
    /// without a trace, as with missing rights or a broken proxy; the next one is believed. 0 believes the first
    /// document.
    #[config(default = 5)]
    pub mass_loss_polls: u32,

    /// Bytes per second that the masters may send to all nodes of the cluster together, such as 50MB or 512kB.
    /// With many agents and large documents every node asks less often to stay within it.
    #[config(default = "50MB")]
    pub budget: Rate,

    /// Place of the USER:PASSWORD for masters and agent: `file:/PATH` or `env:NAME`, read again for every
    /// request. Only one of source.basic, source.token and source.service_account can be set. A user in the URL of
    /// a master has precedence.
    ///
    /// Example: `"file:/etc/l4lbd/password"`
    pub basic: Option<SecretRef>,

    /// Place of the token for masters and agent: `file:/PATH` or `env:NAME`, read again for every request. Only
    /// one of source.basic, source.token and source.service_account can be set.
    ///
    /// Example: `"file:/etc/l4lbd/token"`
    pub token: Option<SecretRef>,

    /// Form in which source.token is sent: `bearer` as "Authorization: Bearer TOKEN", `token` as
    /// "Authorization: token=TOKEN", which DC/OS expects.
    #[config(default = "bearer")]
    pub token_scheme: TokenScheme,

    /// Place of the secret of a DC/OS service account for masters and agent: `file:/PATH` or `env:NAME`. The
    /// secret is a JSON object with uid, private_key and login_endpoint; a login with it gives the token that is
    /// sent. Only one of source.basic, source.token and source.service_account can be set.
    ///
    /// Example: `"file:/etc/l4lbd/service-account.json"`
    pub service_account: Option<SecretRef>,

    /// PEM file with the authorities that sign the certificates of masters, agent and Marathon, instead of the
    /// system's, which Debian has in the package ca-certificates. If set, masters that are found through ZooKeeper
    /// are asked by https.
    ///
    /// Example: `"/etc/l4lbd/ca.pem"`
    pub tls_ca: Option<PathBuf>,

    /// PEM file with the certificate of this client and its chain, for masters, agent and Marathon that require
    /// one. Needs source.tls_key.
    ///
    /// Example: `"/etc/l4lbd/cert.pem"`
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the private key of source.tls_cert.
    ///
    /// Example: `"/etc/l4lbd/key.pem"`
    pub tls_key: Option<PathBuf>,
}

impl Source {
    /// True if Marathon is the only source.
    pub fn is_marathon_alone(&self) -> bool {
        self.masters.is_empty() && self.mode != Mode::Agent
    }

    /// Returns the credentials and the TLS settings for masters and agent.
    pub fn access(&self) -> Access {
        Access {
            basic: self.basic.clone(),
            token: self.token.clone(),
            token_scheme: self.token_scheme,
            service_account: self.service_account.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
        }
    }
}

/// Section `marathon`: Marathon beside masters, or alone.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct Marathon {
    /// URLs of Marathon, such as `["http://10.0.0.1:8080"]`; one that answers is enough. Its health and readiness
    /// checks then count in addition to the checks of Mesos. With `source.masters = []` Marathon is the only
    /// source. `[]` does not ask Marathon.
    #[config(default = [])]
    pub urls: Vec<Location>,

    /// Longest time between two requests to Marathon, at least 100ms. An event of Marathon leads to a request
    /// at once.
    #[config(default = "10s")]
    pub interval: Span,

    /// Place of the USER:PASSWORD for Marathon: `file:/PATH` or `env:NAME`, read again for every request. Only one
    /// of marathon.basic, marathon.token and marathon.service_account can be set. The TLS settings are those for
    /// masters, such as source.tls_ca.
    ///
    /// Example: `"file:/etc/l4lbd/marathon-password"`
    pub basic: Option<SecretRef>,

    /// Place of the token for Marathon: `file:/PATH` or `env:NAME`, read again for every request. Only one of
    /// marathon.basic, marathon.token and marathon.service_account can be set.
    ///
    /// Example: `"file:/etc/l4lbd/marathon-token"`
    pub token: Option<SecretRef>,

    /// Form in which marathon.token is sent: `bearer` as "Authorization: Bearer TOKEN", `token` as
    /// "Authorization: token=TOKEN", which DC/OS expects.
    #[config(default = "bearer")]
    pub token_scheme: TokenScheme,

    /// Place of the secret of a DC/OS service account for Marathon: `file:/PATH` or `env:NAME`. The secret is
    /// a JSON object with uid, private_key and login_endpoint; a login with it gives the token that is sent. Only
    /// one of marathon.basic, marathon.token and marathon.service_account can be set.
    ///
    /// Example: `"file:/etc/l4lbd/service-account.json"`
    pub service_account: Option<SecretRef>,
}

impl Marathon {
    /// Returns Marathon's own credentials, with the TLS settings of `source`.
    pub fn access(&self, source: &Source) -> Access {
        Access {
            basic: self.basic.clone(),
            token: self.token.clone(),
            token_scheme: self.token_scheme,
            service_account: self.service_account.clone(),
            ..source.access()
        }
    }
}

#[cfg(test)]
mod defaults {
    use confique::Config;

    use super::{Marathon, Source};

    impl Default for Source {
        fn default() -> Self {
            Self::builder().load().unwrap()
        }
    }

    impl Default for Marathon {
        fn default() -> Self {
            Self::builder().load().unwrap()
        }
    }
}
