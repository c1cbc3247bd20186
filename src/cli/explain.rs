//! `l4lbd explain`: what this node would make of a document, by its configuration and the addresses that it has
//! given before.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::ConfigFile;
use super::status::{section, vips};
use crate::cluster::{Agent, Skipped, Snapshot};
use crate::config::Config;
use crate::daemon::wiring;
use crate::mesos::{self, Format};
use crate::plan;
use crate::status;
use crate::store::{Persisted, Store};
use crate::vip::alloc::AddressRange;
use crate::vip::{Host, VipTable};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
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
    /// Addresses of named IPv4 VIPs, instead of vips.range4
    #[arg(long, value_name = "FIRST-LAST")]
    vip_range4: Option<AddressRange>,
    /// Addresses of named IPv6 VIPs, instead of vips.range6
    #[arg(long, value_name = "FIRST-LAST")]
    vip_range6: Option<AddressRange>,
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
        let config = self.config.load()?;
        let document =
            read(&self.state).map_err(|error| mesos::Error::Read { path: self.state.clone(), error })?;
        let mut snapshot =
            mesos::parse(&document, self.format.0).with_context(|| self.state.display().to_string())?;
        if let Some(address) = self.node_address {
            stand_in(&mut snapshot, address);
        }
        let memory = match Store::new(&config.daemon.state_dir).leases() {
            Ok(memory) => memory,
            // Only root may read it, and anybody may want an explanation.
            Err(error) => {
                writeln!(io::stderr(), "l4lbd: {error}; addresses are those of a node that has given none")?;
                Persisted::default()
            }
        };
        let explanation = self.explain(&snapshot, &config, memory);
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

    fn explain(&self, snapshot: &Snapshot, config: &Config, mut memory: Persisted) -> Explanation {
        let table = VipTable::new(snapshot, &wiring::label_policy(config));
        let range4 = self.vip_range4.unwrap_or(config.vips.range4);
        let range6 = self.vip_range6.unwrap_or(config.vips.range6);
        memory.leases4.confine(&range4);
        memory.leases6.confine(&range6);
        plan::assign(&mut memory, &table, &range4, &range6);
        let own: BTreeSet<IpAddr> = self.node_address.into_iter().collect();
        let mut vips = Vec::new();
        let mut skipped = table.skipped.clone();
        for (key, vip) in &table.vips {
            for ipv4 in [true, false] {
                let (address, name) = match &key.host {
                    Host::Literal(address) => (Some(*address), None),
                    Host::Named(name) => {
                        let leases = if ipv4 { &memory.leases4 } else { &memory.leases6 };
                        (leases.get(name), Some(format!("{name}.{}", config.dns.zone)))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A task with addresses of both families that asks for a name and for an address.
    const DOCUMENT: &str = r#"{
        "id": "M", "elected_time": 1.0,
        "slaves": [{"id": "S", "hostname": "10.0.0.1", "pid": "slave(1)@10.0.0.1:5051"}],
        "frameworks": [{"id": "F", "name": "marathon", "tasks": [{
            "id": "web.1", "framework_id": "F", "slave_id": "S", "state": "TASK_RUNNING",
            "statuses": [{"state": "TASK_RUNNING", "timestamp": 1.0, "container_status": {"network_infos": [
                {"ip_addresses": [{"ip_address": "10.0.0.1"}, {"ip_address": "fd00::1"}]}]}}],
            "discovery": {"ports": {"ports": [{"number": 8080, "protocol": "tcp", "labels": {"labels": [
                {"key": "VIP_0", "value": "/web:80"}, {"key": "VIP_1", "value": "10.99.0.1:80"}]}}]}}
        }]}]
    }"#;

    const CONFIG: &str = r#"
        [vips]
        range4 = "10.64.0.0-10.64.255.255"
        ipv6 = false
        deny = ["10.99.0.0/16"]

        [dns]
        zone = "l4lb.example"
    "#;

    /// What is said of the document on a node that remembers this.
    fn explained(memory: Persisted, vip_range4: Option<AddressRange>) -> Explanation {
        let args = Args {
            config: ConfigFile { config: None },
            state: "-".into(),
            format: Choice(None),
            node_address: None,
            vip_range4,
            vip_range6: None,
            json: false,
        };
        let config = Config::parse(Path::new("l4lbd.toml"), CONFIG).unwrap();
        args.explain(&mesos::parse(DOCUMENT.as_bytes(), None).unwrap(), &config, memory)
    }

    #[test]
    fn this_node_s_configuration_decides() {
        let Explanation { vips, skipped } = explained(Persisted::default(), None);
        let [vip] = vips.as_slice() else { panic!("{vips:?}") };
        assert_eq!(vip.name.as_deref(), Some("web.marathon.l4lb.example"));
        assert!(vip.address.to_string().starts_with("10.64."), "{}", vip.address);
        let skipped: Vec<String> = skipped.iter().map(Skipped::to_string).collect();
        let [denied] = skipped.as_slice() else { panic!("{skipped:?}") };
        assert!(denied.contains("VIP_1=10.99.0.1:80"), "{denied}");
        assert!(denied.ends_with("is in 10.99.0.0/16, which the operator denies (vips.deny)"), "{denied}");
    }

    #[test]
    fn an_address_that_was_given_stays_while_it_is_in_the_range() {
        let mut memory = Persisted::default();
        memory.leases4.assign(&"10.64.0.9-10.64.0.9".parse().unwrap(), ["web.marathon"], []);
        let address = |explanation: Explanation| explanation.vips[0].address;
        assert_eq!(address(explained(memory.clone(), None)), IpAddr::from([10, 64, 0, 9]));
        let elsewhere = address(explained(memory, Some(AddressRange::DCOS_V4)));
        assert!(AddressRange::DCOS_V4.contains(elsewhere), "{elsewhere}");
    }
}
