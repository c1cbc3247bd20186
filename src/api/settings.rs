//! Settings of HTTP over TCP: the section `http` of the configuration file.
//!
//! Declares each key once: the doc comment is its help, the attribute its default.

use std::net::SocketAddr;

use crate::source::http::secret::SecretRef;
use crate::units;

/// Section `http`.
#[derive(Clone, Debug, PartialEq, confique::Config)]
pub struct HttpSettings {
    /// Address and port of an HTTP server that shows this node: a web page for people, an interface for programs
    /// (l4lbd-http(7)), and metrics for Prometheus at /metrics. Nothing can be changed there. Off if not set. Other machines reach any address
    /// but those of loopback, and then http.token must be set. There is no TLS: put a proxy in front if the network
    /// is not trusted.
    ///
    /// Example: `"127.0.0.1:62080"`
    #[config(deserialize_with = units::socket_address)]
    pub listen: Option<SocketAddr>,

    /// Names by which programs reach that server, without a port, such as `["node7.example.com"]`; localhost and
    /// addresses are always allowed. A request with another name in its Host header is refused, because the web page
    /// of a stranger could make a browser send it.
    #[config(default = [])]
    pub hosts: Vec<String>,

    /// Place of the token that each request must have in the header Authorization, as `Bearer TOKEN`, and that the web
    /// page asks for: `file:/PATH`
    /// or `env:NAME`, read again for every request.
    ///
    /// Example: `"file:/etc/l4lbd/http-token"`
    pub token: Option<SecretRef>,

    /// Most VIPs of which metrics tell about each backend. With more VIPs, each framework and each of its apps has a
    /// fair share, and the backends of all other VIPs are summed up in one series "other".
    #[config(default = 1000)]
    pub backends: usize,
}
