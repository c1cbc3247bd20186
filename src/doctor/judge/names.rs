//! Checks of resolvers: this node's and those of containers.

use std::net::{IpAddr, SocketAddr};

use crate::dataplane::host::resolv::ResolverFile;
use crate::doctor::facts::{NodeFacts, PlaceFacts};
use crate::doctor::finding::Finding;
use crate::doctor::resolver::{AskOutcome, Said, lookup, servers};
use crate::doctor::settings::DoctorSettings;

/// Command that puts forwarding on, where musl takes a refusal for silence.
const FORWARD: &str =
    "set dns.forward = \"system\" in /etc/l4lbd/l4lbd.toml, then: l4lbd check && systemctl restart l4lbd";

pub fn node(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "resolver";
    let Some(listener) = settings.listen.first() else {
        return vec![Finding::skipped(CHECK, "the DNS server is switched off (dns.listen = [])")];
    };
    let ((name, address), resolver) = match (&facts.name, &facts.resolver) {
        (Ok(name), Ok(resolver)) => (name, resolver),
        (Err(reason), _) | (_, Err(reason)) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    // The resolver of libc is the truth; the file and its servers only say why.
    if resolver.resolved.as_ref().is_ok_and(|found| found.contains(address)) {
        return vec![Finding::ok(CHECK, format!("this node resolves {name}"))];
    }
    let what = match &resolver.resolved {
        Ok(found) if found.is_empty() => "no address".to_owned(),
        Ok(found) => listed(found),
        Err(error) => format!("no address ({error})"),
    };
    let why = why(&resolver.place, name, Some(*address), settings);
    // A file with servers of its own says that systemd-resolved is not asked, even where it runs.
    let asks_resolved =
        resolver.has_resolved && resolver.place.file.as_ref().is_ok_and(ResolverFile::asks_resolved);
    let reason = facts.daemon.status.as_ref().ok().and_then(|status| status.dns.resolved.clone());
    let reason = reason.filter(|_| asks_resolved);
    let finding = match reason {
        Some(reason) => {
            Finding::fault(CHECK, format!("{name} has {what} here and should be {address}: {reason}"))
        }
        None => Finding::fault(CHECK, format!("{name} has {what} here and should be {address}: {why}")),
    };
    let listener = listener.ip();
    vec![finding.at("/etc/resolv.conf").mended_by(match asks_resolved {
        true => format!(
            "resolvectl dns {link} {listener} && resolvectl domain {link} '~thisdcos.directory'; for good: the polkit rule \
             of l4lbd-names(7)",
            link = settings.kernel.link
        ),
        false if settings.forwards => format!("sed -i '1i nameserver {listener}' /etc/resolv.conf"),
        false => format!("{FORWARD} && sed -i '1i nameserver {listener}' /etc/resolv.conf"),
    })]
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().take(4).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns why a place does not get the right address of a name, in words; the address is not known of a name that
/// no VIP has.
pub fn why(place: &PlaceFacts, name: &str, address: Option<IpAddr>, settings: &DoctorSettings) -> String {
    let file = match &place.file {
        Ok(file) => file,
        Err(reason) => return reason.clone(),
    };
    let order: Vec<String> = servers(file).iter().map(|server| server.ip().to_string()).collect();
    let order = order.join(", ");
    match lookup(place.libc, file, name, &place.replies) {
        AskOutcome::Found { addresses, .. } if address.is_none_or(|address| addresses.contains(&address)) => {
            format!("its nameservers know it ({order}), but programs do not ask them (nsswitch.conf, nscd)")
        }
        AskOutcome::Found { addresses, server } => {
            format!("{server} gives {} (nameservers: {order})", listed(&addresses))
        }
        AskOutcome::NotThere { server, name } => {
            let place = order_of(&servers(file), settings);
            format!(
                "{server} says that there is no {name}{place} (nameservers: {order}; ndots: {})",
                file.ndots
            )
        }
        AskOutcome::Refused { server, name, code } => {
            format!("{server} answers {code} to {name} (nameservers: {order})")
        }
        AskOutcome::Silent(reason) => format!("{reason} (nameservers: {order})"),
    }
}

/// Returns a remark on the place of our server in the list.
fn order_of(servers: &[SocketAddr], settings: &DoctorSettings) -> &'static str {
    match servers.iter().position(|server| settings.listen.contains(server)) {
        Some(0) => "",
        Some(_) => ", and is asked before l4lbd",
        None => ", and l4lbd is not among the nameservers",
    }
}

pub fn containers(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "containers";
    if settings.listen.is_empty() {
        return vec![Finding::skipped(CHECK, "the DNS server is switched off (dns.listen = [])")];
    }
    let ((name, address), containers) = match (&facts.name, &facts.containers) {
        (Ok(name), Ok(containers)) => (name, containers),
        (Err(reason), _) | (_, Err(reason)) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    if containers.is_empty() {
        return vec![Finding::ok(CHECK, "there is no container with a network of its own")];
    }
    let judged = containers.iter().map(|(place, facts)| match facts {
        Ok(facts) => of_container(settings, facts, name, *address).at(place.as_str()),
        Err(reason) => Finding::skipped(CHECK, reason.as_str()).at(place.as_str()),
    });
    judged.collect()
}

/// Judges the resolver of one container.
pub fn of_container(settings: &DoctorSettings, place: &PlaceFacts, name: &str, address: IpAddr) -> Finding {
    const CHECK: &str = "containers";
    let file = match &place.file {
        Ok(file) => file,
        Err(reason) => return Finding::skipped(CHECK, format!("its resolver is not known: {reason}")),
    };
    let listed = servers(file);
    let ours = listed.iter().find(|server| settings.listen.contains(server));
    match lookup(place.libc, file, name, &place.replies) {
        AskOutcome::Found { addresses, .. } if addresses.contains(&address) => {
            Finding::ok(CHECK, format!("resolves {name}"))
        }
        // The container asks this daemon, which refuses the name with the search domain.
        AskOutcome::Refused { server, name: asked, code } if Some(&server) == ours && asked != *name => Finding::fault(
            CHECK,
            format!(
                "even names of VIPs fail after 5 s: musl asks for {asked} first (ndots: {}, search: {}), {server} \
                 answers {code}, and musl takes that for silence",
                file.ndots,
                file.search.join(" ")
            ),
        )
        .mended_by(format!("{FORWARD}; or run the container with ndots:1 (docker run --dns-opt ndots:1)")),
        outcome => {
            let why = why(place, name, Some(address), settings);
            let is_silent = |server: &SocketAddr| {
                let reply = place.replies.get(&(*server, name.to_owned()));
                reply.is_some_and(|reply| matches!(reply.said, Said::Silence | Said::Unreachable(_)))
            };
            match (ours, outcome) {
                (Some(server), _) if is_silent(server) => Finding::fault(
                    CHECK,
                    format!("does not resolve {name}: {server} does not answer there ({why})"),
                )
                .mended_by("let it through the firewall (l4lbd check has the commands), or see CONTAINER NETWORKS in l4lbd-networks(7)"),
                _ => Finding::warning(CHECK, format!("does not resolve {name}: {why}")).mended_by(format!(
                    "run it with --dns {}, and set dns.forward; see RESOLVERS in l4lbd-names(7)",
                    settings.listen.first().map_or_else(|| "198.51.100.1".to_owned(), |server| server.ip().to_string())
                )),
            }
        }
    }
}
