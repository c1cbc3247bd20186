//! What a configuration can't be, although each of its values is of the right kind.

use std::net::IpAddr;
use std::time::Duration;

use super::Config;
use crate::source::{Location, Mode};

impl Config {
    /// What single keys can't tell.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        for (path, servers) in [
            ("source.agent", std::slice::from_ref(&self.source.agent)),
            ("marathon.urls", &self.marathon.urls),
        ] {
            let are_http = servers.iter().all(|server| server.url().is_some());
            check(are_http, &format!("{path}: must be http://HOST:PORT or https://HOST:PORT"));
        }
        if let Some((path, host)) = self.source_within(&super::WHOLE) {
            check(
                false,
                &format!(
                    "{path}: {host} is a name that this daemon answers, and can't be found by asking itself"
                ),
            );
        }
        let files = self.source.masters.iter().filter(|master| matches!(master, Location::File(_))).count();
        let others = self.source.mode == Mode::Agent || !self.marathon.urls.is_empty();
        check(!self.source.masters.is_empty() || others, "source.masters: at least one is needed");
        check(
            files == 0 || self.source.masters.len() == 1,
            "source.masters: a file: can't be mixed with others",
        );
        for (section, access) in [("source", &self.source.access), ("marathon", &self.marathon.access)] {
            let ways = [&access.basic, &access.token, &access.service_account];
            check(
                ways.iter().filter(|way| way.is_some()).count() <= 1,
                &format!("{section}: only one of basic, token and service_account can be set"),
            );
        }
        let access = &self.source.access;
        check(
            access.tls_cert.is_some() == access.tls_key.is_some(),
            "source: tls_cert and tls_key need each other",
        );
        for (path, span) in [
            ("source.interval", self.source.interval),
            ("source.resync", self.source.resync),
            ("marathon.interval", self.marathon.interval),
            ("source.timeout", self.source.timeout),
            ("source.max_backoff", self.source.max_backoff),
            ("ipvs.audit", self.ipvs.audit),
        ] {
            check(span.0 >= Duration::from_millis(100), &format!("{path}: must be at least 100ms"));
        }
        for (path, span) in [
            ("ipvs.tcp_timeout", self.ipvs.tcp_timeout),
            ("ipvs.tcp_fin_timeout", self.ipvs.tcp_fin_timeout),
            ("ipvs.udp_timeout", self.ipvs.udp_timeout),
        ] {
            // The kernel counts in jiffies, in a signed 32-bit number.
            let possible = (1..=1_000_000).contains(&span.0.as_secs());
            check(possible, &format!("{path}: must be from 1s to 1000000s"));
        }
        check(self.node.address.is_none_or(|a| a.is_ipv4()), "node.address: must be an IPv4 address");
        check(self.node.address6.is_none_or(|a| a.is_ipv6()), "node.address6: must be an IPv6 address");
        check(self.vips.range4.is_ipv4(), "vips.range4: must be IPv4");
        check(!self.vips.range6.is_ipv4(), "vips.range6: must be IPv6");
        for (path, range) in [("vips.range4", &self.vips.range4), ("vips.range6", &self.vips.range6)] {
            if let Some(kind) = range.reserved() {
                check(false, &format!("{path}: {range} contains {kind}, which no VIP can have"));
            }
        }
        let in_range =
            |address: IpAddr| self.vips.range4.contains(address) || self.vips.range6.contains(address);
        check(!self.node.address.is_some_and(in_range), "node.address: is inside of the VIP range");
        check(!self.node.address6.is_some_and(in_range), "node.address6: is inside of the VIP range");
        check(
            !self.dns.listen.iter().any(|listen| in_range(listen.ip())),
            "dns.listen: an address is inside of the VIP range",
        );
        check(
            (1..=15).contains(&self.ipvs.link.len())
                && self.ipvs.link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
            "ipvs.link: must have 1 to 15 letters, digits, dots or dashes",
        );
        check(
            (1..=15).contains(&self.ipvs.scheduler.len())
                && self.ipvs.scheduler.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
            "ipvs.scheduler: must be the short name of a scheduler, such as wlc or rr",
        );
        if let Err(error) = self.zone() {
            problems.push(format!("dns.zone: {error}"));
        } else if let Err(error) = self.catalog() {
            problems.push(format!("dns.aliases: {error}"));
        }
        problems
    }
}
