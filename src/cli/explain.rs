//! `l4lbd explain`

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::status::{section, vips};
use crate::dns::zone::DEFAULT_ORIGIN;
use crate::mesos::{self, Format};
use crate::plan;
use crate::status;
use crate::store::Memory;
use crate::task::{Agent, Skipped, Snapshot};
use crate::vip::alloc::AddressRange;
use crate::vip::{Host, Rules, VipTable};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// State document: v0 /state of a master or an agent, v1 GET_STATE, or SUBSCRIBE events; - for
    /// standard input
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// auto, state, v1-state or v1-events
    #[arg(long, default_value = "auto", value_parser = format)]
    format: Choice,
    /// Show the backends as the node with this address sees them; also stands for the agent where the
    /// document does not name it
    #[arg(long, value_name = "IP")]
    node_address: Option<IpAddr>,
    /// Addresses of named IPv4 VIPs
    #[arg(long, value_name = "FIRST-LAST", default_value_t = AddressRange::DCOS_V4)]
    vip_range4: AddressRange,
    /// Addresses of named IPv6 VIPs
    #[arg(long, value_name = "FIRST-LAST", default_value_t = AddressRange::DCOS_V6)]
    vip_range6: AddressRange,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// A format, or to find it out.
#[derive(Clone, Copy, Debug)]
struct Choice(Option<Format>);

#[derive(Serialize)]
struct Explanation {
    vips: Vec<status::Vip>,
    skipped: Vec<Skipped>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let document =
            read(&self.state).map_err(|error| mesos::Error::Read { path: self.state.clone(), error })?;
        let mut snapshot =
            mesos::parse(&document, self.format.0).with_context(|| self.state.display().to_string())?;
        if let Some(address) = self.node_address {
            stand_in(&mut snapshot, address);
        }
        let explanation = self.explain(&snapshot);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &explanation).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            vips(&explanation.vips, jiff::Timestamp::now()).write(&mut out)?;
            section(&mut out, "SKIPPED", &explanation.skipped)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn explain(&self, snapshot: &Snapshot) -> Explanation {
        let table = VipTable::new(snapshot, &Rules::default());
        let mut memory = Memory::default();
        plan::assign(&mut memory, &table, &self.vip_range4, &self.vip_range6);
        let own: BTreeSet<IpAddr> = self.node_address.into_iter().collect();
        let mut vips = Vec::new();
        let mut skipped = table.skipped.clone();
        for (key, vip) in &table.vips {
            for ipv4 in [true, false] {
                let (address, name) = match &key.host {
                    Host::Literal(address) => (Some(*address), None),
                    Host::Named(name) => {
                        let leases = if ipv4 { &memory.leases4 } else { &memory.leases6 };
                        (leases.get(name), Some(format!("{name}.{DEFAULT_ORIGIN}")))
                    }
                };
                let backends: Vec<status::Backend> = vip
                    .backends
                    .iter()
                    .filter(|(backend, _)| backend.is_ipv4() == ipv4)
                    .map(|(seen, backend)| {
                        let here = backend.seen_from(*seen, &own);
                        status::Backend {
                            address: here.ip(),
                            port: here.port(),
                            weight: backend.weight(),
                            condition: None,
                            until: None,
                            task: backend.task.clone(),
                            agent: backend.agent.clone(),
                            connections: None,
                        }
                    })
                    .collect();
                match (address, backends.first()) {
                    (_, None) => {}
                    (Some(address), _) => {
                        let (protocol, port) = (key.protocol, key.port);
                        vips.push(status::Vip { name, protocol, address, port, scheduler: None, backends });
                    }
                    (None, Some(first)) => skipped.push(Skipped {
                        task: first.task.clone(),
                        value: Some(key.to_string()),
                        reason: "no address is free in the VIP range".to_owned(),
                        ..Skipped::default()
                    }),
                }
            }
        }
        Explanation { vips, skipped }
    }
}

/// Some documents of an agent do not say which agent it is.
fn stand_in(snapshot: &mut Snapshot, address: IpAddr) {
    if snapshot.agents.is_empty() {
        let agents = snapshot.tasks.values().map(|task| task.agent_id.clone());
        let agent = Agent { hostname: address.to_string(), address: Some(address) };
        snapshot.agents = agents.map(|id| (id, agent.clone())).collect();
    }
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path);
    }
    let mut document = Vec::new();
    io::stdin().read_to_end(&mut document)?;
    Ok(document)
}

fn format(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice(None)),
        _ => text.parse().map(|format| Choice(Some(format))),
    }
}
