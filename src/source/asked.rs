//! Addresses of the servers that are asked: what their names were resolved to, and what redirects, elections
//! and the configuration give by address.
//!
//! No VIP may have such an address. A name may lead to another address each time, so that an address counts
//! for a while after it was met last.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;

use crate::cluster::shortened;

/// Addresses that are remembered; a name of one's own servers has a few.
const MAX_ADDRESSES: usize = 256;

/// Time for which an address counts that is not met again.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// Addresses of servers with the names by which they were asked. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct AskedServers(Arc<Mutex<BTreeMap<IpAddr, MetServer>>>);

/// A server, and the time at which its address was met last.
#[derive(Debug)]
struct MetServer {
    name: String,
    met_at: Instant,
}

impl AskedServers {
    /// Notes what a name was resolved to.
    pub fn note(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let met_at = Instant::now();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            servers.insert(address.to_canonical(), MetServer { name: shortened(name.to_owned()), met_at });
        }
        servers.retain(|_, server| server.met_at.elapsed() < KEPT);
        // An answer may name any number, and other ones each time.
        while servers.len() > MAX_ADDRESSES
            && let Some(oldest) = servers.iter().min_by_key(|(_, server)| server.met_at).map(|(ip, _)| *ip)
        {
            servers.remove(&oldest);
        }
    }

    /// Notes the server of a URL, if the URL has its address; a name is noted when it is resolved.
    pub fn note_url(&self, url: &Url) {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse().ok();
        self.note(host, address);
    }

    /// Resolves a name, and notes its addresses.
    ///
    /// # Errors
    /// Those of the system's resolver.
    pub async fn resolve(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name, port)).await?.collect();
        self.note(name, found.iter().map(SocketAddr::ip));
        Ok(found)
    }

    /// Returns the addresses that count now, each with the name of its server.
    pub fn list(&self) -> BTreeMap<IpAddr, String> {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let met = servers.iter().filter(|(_, server)| server.met_at.elapsed() < KEPT);
        met.map(|(address, server)| (*address, server.name.clone())).collect()
    }
}

/// Resolver of the HTTP client.
impl Resolve for AskedServers {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            // The client puts the URL's port in the place of 0.
            let found = this.resolve(name.as_str(), 0).await?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_count_for_a_while_and_are_bounded() {
        let servers = AskedServers::default();
        servers.note("m", [address(1), address(2)]);
        servers.note_url(&Url::parse("http://[fd00::1]:5050/x").unwrap());
        servers.note_url(&Url::parse("http://m:5050").unwrap());
        let names: Vec<String> = servers.list().into_values().collect();
        assert_eq!(names, ["m", "m", "[fd00::1]"]);
        tokio::time::advance(KEPT / 2).await;
        // The name has another address by now.
        servers.note("m", [address(2)]);
        tokio::time::advance(KEPT / 2).await;
        assert_eq!(servers.list().into_keys().collect::<Vec<_>>(), [address(2)]);
        for number in 0..1000 {
            servers.note("m", [address(number)]);
        }
        assert_eq!(servers.list().len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn names_are_noted_with_all_their_addresses() {
        let servers = AskedServers::default();
        let found = servers.resolve("localhost", 80).await.unwrap();
        assert!(
            found.iter().all(|found| servers.list().contains_key(&found.ip().to_canonical())),
            "{found:?}"
        );
        assert!(servers.list().values().all(|name| name == "localhost"));
    }
}
