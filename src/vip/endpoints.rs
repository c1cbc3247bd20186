//! Endpoints: the addresses at which a task's port is reached.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::cluster::{Runtime, Snapshot, Task, TaskAddress, TaskPort};

/// An address of a port: as seen from everywhere, and on the task's own node if that differs.
pub type Endpoint = (SocketAddr, Option<SocketAddr>);

/// Returns the addresses of a port: as seen from everywhere, and on the task's own node if that differs.
///
/// A port with a host port is at the agent's address, whatever the network; any other one is at each
/// of the task's addresses on the port's networks. A container whose address is not known is nowhere.
pub fn endpoints(snapshot: &Snapshot, task: &Task, port: &TaskPort) -> Result<Vec<Endpoint>, String> {
    let agent = snapshot.agents.get(&*task.agent_id);
    let agent_address = agent.and_then(|agent| agent.address);
    // The error names what is missing: an agent that the document lacks is mostly one that may not be seen.
    let agent_address = || match (agent, agent_address) {
        (_, Some(address)) => Ok(address),
        (Some(agent), None) => {
            Err(format!("the address of agent {} ({}) is not known", task.agent_id, agent.hostname))
        }
        (None, None) => {
            Err(format!("agent {} of this task is not in the state of the cluster", task.agent_id))
        }
    };
    if let Some(host_port) = port.host_port {
        let agent = agent_address()?;
        // There the host port is the task's own, and nothing is mapped.
        let on_host_network = matches!(&*task.addresses, [only] if only.address == agent);
        let local = match port.port {
            // Docker's own mapping also works from its node, so that only other runtimes need another
            // address.
            Some(number) if task.runtime != Runtime::Docker && !on_host_network => {
                let addresses = on_networks(&task.addresses, &port.networks);
                let same_family = addresses.iter().find(|address| address.is_ipv4() == agent.is_ipv4());
                same_family.map(|&address| SocketAddr::new(address, number))
            }
            _ => None,
        };
        return Ok(vec![(SocketAddr::new(agent, host_port), local)]);
    }
    let Some(number) = port.port else {
        return Err("the port has no number from 1 to 65535".to_owned());
    };
    if task.addresses.is_empty() {
        // The agent's port of this number is another program's.
        if port.is_in_container || !port.networks.is_empty() {
            return Err("the task has reported no address in its container's network yet".to_owned());
        }
        // Old versions of Mesos report no address for tasks on the host network.
        return Ok(vec![(SocketAddr::new(agent_address()?, number), None)]);
    }
    let addresses = on_networks(&task.addresses, &port.networks);
    // Any other address of the task could be of a network that this node does not reach.
    if addresses.is_empty() {
        let networks: Vec<&str> = port.networks.iter().map(String::as_str).collect();
        return Err(format!("the task has no address on network {}", networks.join(", ")));
    }
    Ok(addresses.into_iter().map(|address| (SocketAddr::new(address, number), None)).collect())
}

/// The addresses on the named networks. Where none has such a name, those without a name count:
/// not every runtime reports names.
fn on_networks(addresses: &[TaskAddress], networks: &BTreeSet<String>) -> Vec<IpAddr> {
    let select = |wanted: &dyn Fn(&TaskAddress) -> bool| -> Vec<IpAddr> {
        addresses.iter().filter(|address| wanted(address)).map(|address| address.address).collect()
    };
    if networks.is_empty() {
        return select(&|_| true);
    }
    let named = select(&|address| address.network.as_ref().is_some_and(|name| networks.contains(&**name)));
    if named.is_empty() { select(&|address| address.network.is_none()) } else { named }
}
