//! Our nftables table, written and listed by the program `nft`, and what its counters say of firewalls.
//!
//! The rules are text ([`RuleSet`]), few and constant, and are compared as text. `nft` applies a script
//! as one transaction; it is also what an operator would use to look at the result. Listing takes a
//! process, so the table is listed again only when the generation of the rules has changed.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::dataplane::firewall::{Chains, Dropped, Firewall, Watch};
use crate::dataplane::rules::{RuleSet, TABLE};
use crate::netlink::nftables::Generations;
use crate::units::program::{self, Failure};

/// Names of the tables of iptables that are not in nftables. There without the module is no such file.
const OLD_TABLES: &str = "/proc/net/ip_tables_names";

/// Longest time for one call of `nft`, also on a busy node with many rules of other programs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Failure to list or replace the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run nft, which writes the netfilter rules: {0} (install the package nftables)")]
    Run(#[from] std::io::Error),
    #[error("nft refused the table inet {TABLE}: {0}")]
    Nft(String),
    #[error(
        "nft refused this node's own {families} networks in the table inet {TABLE}, which holds without them: \
         {refusal}. VIPs work, but not from a container to a backend on the same network; look for an odd \
         route or link with: ip route; ip -6 route"
    )]
    Partly { families: &'static str, refusal: String },
}

/// The rules in the kernel, through the `nft` command.
pub struct Netfilter {
    /// `None` if the kernel does not tell generations; every reading is a listing then.
    generations: Option<Generations>,
    /// Our table as it was listed last, with the generation of the rules at that time.
    listed: Option<(u32, Option<RuleSet>)>,
    /// The rules written last, and their listing: another version of nft may print them differently
    /// from what we expect.
    written: Option<(RuleSet, RuleSet)>,
    watch: Watch,
    /// Firewalls that drop packets of containers, with the generation of the rules at the time of the listing.
    firewalls: Option<(Option<u32>, Vec<Firewall>)>,
}

impl Netfilter {
    /// Prepares for the rules of the current network namespace.
    pub fn open() -> Self {
        let generations = Generations::open().inspect_err(|error| {
            tracing::debug!(%error, "generations of netfilter rules are unknown, each pass lists them");
        });
        Self {
            generations: generations.ok(),
            listed: None,
            written: None,
            watch: Watch::default(),
            firewalls: None,
        }
    }

    /// Returns our table, or `None` without one.
    ///
    /// # Errors
    /// When `nft` is missing, or may not list rules.
    pub async fn read(&mut self) -> Result<Option<RuleSet>, Error> {
        // Asked before listing: a change in between makes the next reading list again.
        let generation = self.generations.as_mut().and_then(|generations| generations.current().ok());
        let listed = match (&self.listed, generation) {
            (Some((known, rules)), Some(current)) if *known == current => rules.clone(),
            _ => {
                let rules = list().await?;
                self.listed = generation.map(|generation| (generation, rules.clone()));
                rules
            }
        };
        // Rules that are listed as those written last are those, in whatever form nft prints them.
        Ok(match (listed, &self.written) {
            (Some(listed), Some((written, as_listed))) if *as_listed == listed => Some(written.clone()),
            (listed, _) => listed,
        })
    }

    /// Returns which packets of containers a firewall drops, by the counters of our table; `None` for none, and
    /// where the kernel tells no counters.
    pub async fn dropped(&mut self) -> Option<Dropped> {
        let generations = self.generations.as_mut()?;
        // In this order: what is under way between the two has not arrived yet.
        let (arrived, reached) = (generations.counters(TABLE).ok()?, generations.counters(TABLE).ok()?);
        let generation = generations.current().ok();
        let (vips, dns) = self.watch.take(&arrived, &reached, generation, Instant::now());
        if !vips && !dns {
            // Forgotten, so that the next loss is warned of again.
            self.firewalls = None;
            return None;
        }
        // Listing takes a process, and the firewall is the same until the rules change.
        let firewalls = match &self.firewalls {
            Some((known, firewalls)) if *known == generation => firewalls.clone(),
            known => {
                if known.is_none() {
                    tracing::warn!(
                        vips,
                        dns,
                        "a firewall of this node drops what containers send to VIPs or to the DNS server; \
                         l4lbd status has the commands that let it pass"
                    );
                }
                // A loss is told even where the firewall cannot be named.
                let listing = nft(&["-j", "list", "chains"], "").await.unwrap_or_default();
                Chains::parse(&listing).firewalls(Path::new(OLD_TABLES).exists())
            }
        };
        self.firewalls = Some((generation, firewalls.clone()));
        Some(Dropped { vips, dns, firewalls })
    }

    /// Replaces our table in one transaction. If that is refused, the table gets as much as `nft` takes,
    /// because it keeps clients from what only seems to be a VIP.
    ///
    /// # Errors
    /// When `nft` is missing, or refuses the rules. The table is unchanged then, except for
    /// [`Error::Partly`].
    pub async fn replace(&mut self, rules: &RuleSet) -> Result<(), Error> {
        let refusal = match self.write(rules).await {
            Err(Error::Nft(refusal)) => refusal,
            done => return done,
        };
        for (families, part) in rules.with_less().filter(|(_, part)| part != rules) {
            // What an earlier attempt has left is not written again.
            let is_there = self.read().await?.as_ref() == Some(&part);
            if is_there || self.write(&part).await.is_ok() {
                return Err(Error::Partly { families, refusal });
            }
        }
        Err(Error::Nft(refusal))
    }

    async fn write(&mut self, rules: &RuleSet) -> Result<(), Error> {
        nft(&["-f", "-"], &rules.script()).await?;
        // Listed at once, before another program can change the table.
        self.written = list().await?.map(|listed| (rules.clone(), listed));
        Ok(())
    }

    /// Deletes our table; fine without one.
    ///
    /// # Errors
    /// When `nft` is missing, or may not change rules.
    pub async fn delete(&mut self) -> Result<(), Error> {
        self.written = None;
        nft(&["-f", "-"], &format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")).await.map(drop)
    }
}

async fn list() -> Result<Option<RuleSet>, Error> {
    // Without counters; with priorities as numbers, which versions of nft name differently, and protocols, which
    // it names where the node has /etc/protocols.
    match nft(&["-s", "-y", "-p", "list", "table", "inet", TABLE], "").await {
        Ok(text) => Ok(Some(RuleSet::listed(&text))),
        Err(Error::Nft(text)) if text.contains("No such file") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn nft(arguments: &[&str], script: &str) -> Result<String, Error> {
    program::run("nft", arguments, script, PATIENCE).await.map_err(|failure| match failure {
        Failure::Run(error) => Error::Run(error),
        // Below the first line nft quotes the script, which is long and ours.
        refused => Error::Nft(refused.to_string()),
    })
}
