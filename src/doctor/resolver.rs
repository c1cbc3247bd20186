//! Resolvers of libc: which names they ask which server for, and what they make of the answers. Pure.
//!
//! Resolvers differ in what they do with a refusal. glibc asks the next server, and in the end for the name as it
//! is. musl asks all servers at once and takes a refusal for silence: with a search domain that is asked for first,
//! the lookup ends after its timeout, whatever the name itself would give.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::dataplane::host::resolv::ResolverFile;

/// Servers that resolvers of libc use (`MAXNS`).
const MAX_SERVERS: usize = 3;

/// Names that are asked for at most, so that a long list of search domains costs no more.
const MAX_CANDIDATES: usize = 7;

/// Library that resolves names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
    Unknown,
}

/// Reaction of a server to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Addresses(Vec<IpAddr>),
    /// The name exists without an address of that kind.
    NoData,
    /// There is no such name (NXDOMAIN).
    NoName,
    /// An error, such as REFUSED.
    Code(String),
    Silence,
    /// The question could not be sent, or a port is closed.
    Unreachable(String),
}

/// Answer of a server, with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameReply {
    pub said: Said,
    pub millis: u64,
}

/// Result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskOutcome {
    Found {
        addresses: Vec<IpAddr>,
        server: SocketAddr,
    },
    /// Every server that counts says that there is no such name.
    NotThere {
        server: SocketAddr,
        name: String,
    },
    /// musl took an error for silence at this name.
    Refused {
        server: SocketAddr,
        name: String,
        code: String,
    },
    /// No server said anything of use.
    Silent(String),
}

/// Returns the servers of a file as they are asked; without one it is that of the node itself (resolv.conf(5)).
pub fn servers(file: &ResolverFile) -> Vec<SocketAddr> {
    let own = (Ipv4Addr::LOCALHOST, 53).into();
    // A link-local server needs its link, and VIPs are never behind one.
    let listed = file.nameservers.iter().filter(|nameserver| !nameserver.is_link_local());
    let listed: Vec<SocketAddr> =
        listed.map(|nameserver| (nameserver.address, 53).into()).take(MAX_SERVERS).collect();
    if file.nameservers.is_empty() { vec![own] } else { listed }
}

/// Returns the names that are asked for, in their order.
pub fn candidates(libc: Libc, file: &ResolverFile, name: &str) -> Vec<String> {
    let bare = name.trim_end_matches('.').to_owned();
    if name.ends_with('.') {
        return vec![bare];
    }
    let dots = bare.matches('.').count();
    let with_domains = file.search.iter().map(|domain| format!("{bare}.{}", domain.trim_end_matches('.')));
    let with_domains: Vec<String> = with_domains.take(MAX_CANDIDATES).collect();
    match dots >= file.ndots {
        // musl does not search for a name with enough dots.
        true if libc == Libc::Musl => vec![bare],
        true => std::iter::once(bare).chain(with_domains).collect(),
        false => with_domains.into_iter().chain([bare]).collect(),
    }
}

/// Returns what a lookup comes to. Questions without an entry in `replies` count as silence.
pub fn lookup(
    libc: Libc,
    file: &ResolverFile,
    name: &str,
    replies: &BTreeMap<(SocketAddr, String), NameReply>,
) -> AskOutcome {
    let servers = servers(file);
    let mut last = AskOutcome::Silent("no nameserver answers".to_owned());
    for candidate in candidates(libc, file, name) {
        let said = |server: &SocketAddr| replies.get(&(*server, candidate.clone()));
        let is_conclusive =
            |reply: &&NameReply| matches!(reply.said, Said::Addresses(_) | Said::NoData | Said::NoName);
        let mut answers =
            servers.iter().filter_map(|server| Some((server, said(server).filter(is_conclusive)?)));
        let taken = match libc {
            // All are asked at once, and the first answer counts.
            Libc::Musl => answers.min_by_key(|(_, reply)| reply.millis),
            // They are asked in turn.
            Libc::Glibc | Libc::Unknown => answers.next(),
        };
        match taken {
            Some((server, NameReply { said: Said::Addresses(addresses), .. })) => {
                return AskOutcome::Found { addresses: addresses.clone(), server: *server };
            }
            Some((server, _)) => {
                last = AskOutcome::NotThere { server: *server, name: candidate };
            }
            None => {
                let mut codes = servers.iter().filter_map(|server| match said(server) {
                    Some(NameReply { said: Said::Code(code), .. }) => Some((*server, code.clone())),
                    _ => None,
                });
                let unreachable = servers.iter().find_map(|server| match said(server) {
                    Some(NameReply { said: Said::Unreachable(error), .. }) => {
                        Some(format!("{server}: {error}"))
                    }
                    _ => None,
                });
                last = match codes.next() {
                    Some((server, code)) => AskOutcome::Refused { server, name: candidate, code },
                    None => {
                        AskOutcome::Silent(unreachable.unwrap_or_else(|| "no nameserver answers".to_owned()))
                    }
                };
                // The whole lookup ends there.
                if libc == Libc::Musl {
                    return last;
                }
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const NAME: &str = "web.marathon.l4lb.thisdcos.directory";

    fn reply(said: Said, millis: u64) -> NameReply {
        NameReply { said, millis }
    }

    /// Replies of a server that knows the name alone, and refuses the rest.
    fn refusing(file: &ResolverFile, server: &str) -> BTreeMap<(SocketAddr, String), NameReply> {
        let server: SocketAddr = server.parse().unwrap();
        let said = |name: &String| match name == NAME {
            true => Said::Addresses(vec!["11.0.0.7".parse().unwrap()]),
            false => Said::Code("REFUSED".to_owned()),
        };
        let names = candidates(Libc::Glibc, file, NAME);
        names.into_iter().map(|name| ((server, name.clone()), reply(said(&name), 1))).collect()
    }

    #[test]
    fn musl_fails_at_a_refused_search_domain_and_glibc_does_not() {
        let file = ResolverFile::parse("nameserver 198.51.100.1\nsearch svc.cluster.local\noptions ndots:5");
        let replies = refusing(&file, "198.51.100.1:53");
        let AskOutcome::Refused { name, code, .. } = lookup(Libc::Musl, &file, NAME, &replies) else {
            panic!()
        };
        assert_eq!((name, code.as_str()), (format!("{NAME}.svc.cluster.local"), "REFUSED"));
        assert!(matches!(lookup(Libc::Glibc, &file, NAME, &replies), AskOutcome::Found { .. }));
        // With enough dots it is asked for as it is.
        let plain = ResolverFile { ndots: 1, ..file };
        assert!(matches!(lookup(Libc::Musl, &plain, NAME, &replies), AskOutcome::Found { .. }));
    }

    #[test]
    fn glibc_believes_the_first_server_and_musl_the_fastest() {
        let file = ResolverFile::parse("nameserver 10.0.0.2\nnameserver 198.51.100.1");
        let mut replies = refusing(&file, "198.51.100.1:53");
        let other: SocketAddr = "10.0.0.2:53".parse().unwrap();
        replies.insert((other, NAME.to_owned()), reply(Said::NoName, 20));
        let refused = AskOutcome::NotThere { server: other, name: NAME.to_owned() };
        assert_eq!(lookup(Libc::Glibc, &file, NAME, &replies), refused);
        assert!(matches!(lookup(Libc::Musl, &file, NAME, &replies), AskOutcome::Found { .. }));
        replies.insert((other, NAME.to_owned()), reply(Said::NoName, 0));
        assert_eq!(lookup(Libc::Musl, &file, NAME, &replies), refused);
        // One that is silent hides nothing, and one that refuses has glibc ask the next one.
        for said in [Said::Silence, Said::Code("REFUSED".to_owned())] {
            replies.insert((other, NAME.to_owned()), reply(said, 2500));
            assert!(matches!(lookup(Libc::Glibc, &file, NAME, &replies), AskOutcome::Found { .. }));
        }
    }

    #[test]
    fn a_name_with_a_dot_at_its_end_is_searched_nowhere() {
        let file = ResolverFile::parse("search a.example b.example.\noptions ndots:9");
        assert_eq!(candidates(Libc::Glibc, &file, "web."), ["web"]);
        assert_eq!(candidates(Libc::Glibc, &file, "web"), ["web.a.example", "web.b.example", "web"]);
        assert_eq!(servers(&file), ["127.0.0.1:53".parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn no_file_makes_many_questions(text in "(nameserver|search|domain|options)?[ -~\\n]{0,200}", ndots in 0usize..20) {
            let file = ResolverFile::parse(&format!("{text}\noptions ndots:{ndots}"));
            for libc in [Libc::Glibc, Libc::Musl, Libc::Unknown] {
                prop_assert!(candidates(libc, &file, NAME).len() <= MAX_CANDIDATES + 1);
                prop_assert!(servers(&file).len() <= MAX_SERVERS);
                lookup(libc, &file, NAME, &BTreeMap::new());
            }
        }
    }
}
