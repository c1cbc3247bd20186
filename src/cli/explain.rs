//! `l4lbd explain`: what this node would make of a document, by its configuration and the addresses that it has
//! given before.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;

use super::ConfigFile;
use crate::cluster::{Agent, Snapshot};
use crate::config::Config;
use crate::daemon::wiring;
use crate::dataplane::kernel::capabilities;
use crate::dataplane::{Node, PlaneKind};
use crate::mesos::{self, Format};
use crate::plan::PlannerSettings;
use crate::status::explain::{Situation, explain};
use crate::status::text::{line, section, vips};
use crate::store::{Persisted, Store};
use crate::vip::alloc::AddressRange;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// State document: /state of a master or an agent, GET_STATE or SUBSCRIBE events of the v1 API; - for
    /// standard input
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Format of the document: state, v1-state, v1-events, or auto to find it out
    #[arg(long, default_value = "auto", value_parser = format)]
    format: FormatChoice,
    /// Show the backends as the node with this address sees them; also the agent's address where the document
    /// names no agent
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
struct FormatChoice(Option<Format>);

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load()?;
        let document =
            read(&self.state).map_err(|error| mesos::Error::Read { path: shown(&self.state), error })?;
        let mut snapshot = mesos::parse(&document, self.format.0)
            .with_context(|| shown(&self.state).display().to_string())?;
        // Before planning: backends without an agent's address would all be skipped.
        if let Some(address) = self.node_address {
            stand_in(&mut snapshot, address);
        }
        let persisted = match Store::new(&config.daemon.state_dir).leases() {
            Ok(persisted) => persisted,
            // Only root may read it, but an explanation needs no rights.
            Err(error) => {
                writeln!(io::stderr(), "l4lbd: {error}; addresses are those of a node that has given none")?;
                Persisted::default()
            }
        };
        let explanation = explain(snapshot, self.situation(&config, persisted)?, Timestamp::now());
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &explanation).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            for reason in &explanation.reasons {
                line(&mut out, format_args!("! {reason}"))?;
            }
            vips(&explanation.vips, Timestamp::now()).write(&mut out)?;
            section(&mut out, "WARNINGS", &explanation.warnings)?;
            section(&mut out, "SKIPPED", &explanation.skipped)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the situation of the node that the arguments and the configuration describe.
    fn situation(&self, config: &Config, persisted: Persisted) -> anyhow::Result<Situation> {
        let mut config = config.clone();
        config.vips.range4 = self.vip_range4.unwrap_or(config.vips.range4);
        config.vips.range6 = self.vip_range6.unwrap_or(config.vips.range6);
        let settings = wiring::planner(&config);
        Ok(Situation {
            node: node(self.node_address, &settings, config.dataplane.kind.0.unwrap_or_default()),
            settings,
            persisted,
            zone: wiring::zone(&config)?,
            origin: config.dns.zone.clone(),
        })
    }
}

/// A node that is known by its addresses alone. Where none is given, addresses that no host has
/// (RFC 5737, RFC 3849) stand for its own.
fn node(given: Option<IpAddr>, settings: &PlannerSettings, plane: PlaneKind) -> Node {
    let own = |ipv4: bool, configured: Option<IpAddr>, unknown: IpAddr| {
        given.filter(|address| address.is_ipv4() == ipv4).or(configured).unwrap_or(unknown)
    };
    let v4 = own(true, settings.node.v4, IpAddr::from([192, 0, 2, 1]));
    let v6 = own(false, settings.node.v6, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    Node {
        capabilities: capabilities(plane),
        addresses: loopback.into_iter().chain([v4, v6]).collect(),
        default_source4: Some(v4),
        default_source6: Some(v6),
        forwards_ipv6: true,
        ..Node::default()
    }
}

/// Some documents of an agent do not say which agent it is.
fn stand_in(snapshot: &mut Snapshot, address: IpAddr) {
    if snapshot.agents.is_empty() {
        let agents = snapshot.tasks.values().map(|task| task.agent_id.to_string());
        let agent = Agent { hostname: address.to_string(), address: Some(address), port: None };
        snapshot.agents = agents.map(|id| (id, agent.clone())).collect();
    }
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns the place of a document as errors name it.
fn shown(path: &Path) -> PathBuf {
    if is_standard_input(path) { "standard input".into() } else { path.to_owned() }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !is_standard_input(path) {
        return std::fs::read(path);
    }
    let mut document = Vec::new();
    io::stdin().read_to_end(&mut document)?;
    Ok(document)
}

fn format(text: &str) -> Result<FormatChoice, String> {
    match text {
        "auto" => Ok(FormatChoice(None)),
        _ => text.parse().map(|format| FormatChoice(Some(format))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Skipped;
    use crate::status::explain::Explanation;

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
    fn explained(persisted: Persisted, vip_range4: Option<AddressRange>) -> Explanation {
        let args = Args {
            config: ConfigFile { config: None },
            state: "-".into(),
            format: FormatChoice(None),
            node_address: None,
            vip_range4,
            vip_range6: None,
            json: false,
        };
        let config = Config::parse(Path::new("l4lbd.toml"), CONFIG).unwrap();
        let situation = args.situation(&config, persisted).unwrap();
        explain(mesos::parse(DOCUMENT.as_bytes(), None).unwrap(), situation, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn this_node_s_configuration_decides() {
        let Explanation { vips, skipped, .. } = explained(Persisted::default(), None);
        let [vip] = vips.as_slice() else { panic!("{vips:?}") };
        assert_eq!(vip.name.as_deref(), Some("web.marathon.l4lb.example"));
        assert!(vip.address.to_string().starts_with("10.64."), "{}", vip.address);
        let skipped: Vec<String> = skipped.iter().map(Skipped::to_string).collect();
        let [denied] = skipped.as_slice() else { panic!("{skipped:?}") };
        assert!(denied.contains("VIP_1=10.99.0.1:80"), "{denied}");
        assert!(denied.ends_with("is in 10.99.0.0/16, which the operator denies (vips.deny)"), "{denied}");
    }

    #[test]
    fn errors_name_the_standard_input() {
        assert_eq!(shown(Path::new("-")), Path::new("standard input"));
        assert_eq!(shown(Path::new("/state.json")), Path::new("/state.json"));
    }

    #[test]
    fn an_address_that_was_given_stays_while_it_is_in_the_range() {
        let mut persisted = Persisted::default();
        persisted.leases4.assign(&"10.64.0.9-10.64.0.9".parse().unwrap(), ["web.marathon"], []);
        let address = |explanation: Explanation| explanation.vips[0].address;
        assert_eq!(address(explained(persisted.clone(), None)), IpAddr::from([10, 64, 0, 9]));
        let elsewhere = address(explained(persisted, Some(AddressRange::DCOS_V4)));
        assert!(AddressRange::DCOS_V4.contains(elsewhere), "{elsewhere}");
    }
}
