//! Claims: which running task has an address and port that a backend without a running task has as well.
//!
//! Addresses are given anew: an agent comes back under another id, a port is freed and given to the next
//! task. A backend that is kept would then lead clients of one service to another one. But an executor may
//! report any address for its task. So a claim takes something from another task only where an agent vouches
//! for it:
//!
//! - at an agent's own address, the port must be among the resources of a task of that agent or of the task's
//!   executor, which the master gave out;
//! - at any other address, a task of the same agent must have had it before. An agent is the same by its id
//!   or by its address.
//!
//! For example, with a kept backend 10.0.0.1:31000 of agent S0 at 10.0.0.1:
//!
//! | running task | holds it |
//! |---|---|
//! | of agent S1 at 10.0.0.1, with the port 31000 among its resources | yes |
//! | of agent S1 at 10.0.0.1, which announces the port without having it | no |
//! | of agent S2 at 10.0.0.2, which reports the address 10.0.0.1 | no |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::registry::{RegisteredKey, RegisteredTask, short_id};
use super::{Snapshot, Task};

/// Address and port of a backend, with the task that has or had it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub address: SocketAddr,
    /// Framework of the task; `None` where only its id is known, which then stands for all of that id.
    pub framework: Option<String>,
    /// Id of the task, empty where it is not known.
    pub task: String,
    /// Id of its agent, empty where it is not known.
    pub agent: String,
    /// Set when the address is one of a container alone, all of whose ports are then the container's.
    pub is_containers: bool,
}

/// A running task that has a place, by its agent's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Id of the task, or its name where only that is known.
    pub task: String,
    /// Id of its agent.
    pub agent: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the running task {} of agent {}", self.task, self.agent)
    }
}

/// Returns the places that a task has according to its ports.
pub fn places<'t>(snapshot: &'t Snapshot, task: &'t Task) -> impl Iterator<Item = Place> + 't {
    let agent = snapshot.agents.get(&*task.agent_id).and_then(|agent| agent.address);
    let place = move |address: IpAddr, port: u16, is_containers: bool| Place {
        address: SocketAddr::new(address, port),
        framework: Some(task.key.framework.to_string()),
        task: task.key.task.to_string(),
        agent: task.agent_id.to_string(),
        is_containers,
    };
    task.ports.iter().flat_map(move |port| {
        let on_agent = port.host_port.and_then(|number| Some(place(agent?, number, false)));
        // A mapped port is also at the container's own address.
        let own = port.port.into_iter().flat_map(move |number| {
            task.addresses.iter().map(move |reported| {
                let is_containers = port.is_in_container || reported.network.is_some();
                place(reported.address, number, is_containers)
            })
        });
        // Old versions of Mesos report no address for tasks on the host network.
        let is_bare = port.host_port.is_none() && task.addresses.is_empty();
        let bare = port.port.filter(|_| is_bare).and_then(|number| Some(place(agent?, number, false)));
        on_agent.into_iter().chain(own).chain(bare)
    })
}

/// Returns true if the task has a port of its own agent's address among its resources.
pub fn is_vouched(snapshot: &Snapshot, task: &Task, place: SocketAddr) -> bool {
    let agent = snapshot.agents.get(&*task.agent_id).and_then(|agent| agent.address);
    let has_port = || task.resources.iter().any(|(first, last)| (*first..=*last).contains(&place.port()));
    agent == Some(place.ip()) && has_port()
}

/// Finds the running task that has each of the places, other than the place's own. Tasks that are kept have
/// none.
///
/// A place leaves the search when its holder is found, so that a task that claims all ports costs no more than
/// one that claims a single port.
pub fn holders<'a>(snapshot: &'a Snapshot, places: &'a [Place]) -> Vec<Option<Holder>> {
    // The usual case: nothing is kept and nothing leaves.
    if places.is_empty() {
        return Vec::new();
    }
    let mut search = Search::new(snapshot, places);
    let running =
        snapshot.tasks.values().filter(|task| task.state.is_serving() && !snapshot.kept.contains(&task.key));
    for task in running {
        search.task(snapshot, task);
    }
    for (key, task) in snapshot.names.tasks.iter().filter(|(_, task)| !task.is_kept) {
        search.registered(snapshot, key, task);
    }
    search.found
}

/// An agent, by its address and by its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Machine<'a> {
    Address(IpAddr),
    Id(&'a str),
}

/// Places by their port.
type ByPort = BTreeMap<u16, Vec<usize>>;

/// The places whose holder is not found yet, by their numbers.
struct Search<'a> {
    places: &'a [Place],
    /// Parts of the hashes of the places' task ids.
    ids: Vec<u64>,
    found: Vec<Option<Holder>>,
    /// Places at addresses of agents.
    on_agents: BTreeMap<IpAddr, ByPort>,
    /// Places at other addresses.
    elsewhere: BTreeMap<(IpAddr, Machine<'a>), ByPort>,
    /// Places of `elsewhere` that are a container's with all ports.
    containers: BTreeMap<(IpAddr, Machine<'a>), Vec<usize>>,
}

/// A running task and its agent.
struct Claimant<'c> {
    framework: &'c str,
    id: u64,
    /// Name for people.
    name: &'c str,
    agent: &'c str,
    address: Option<IpAddr>,
}

impl<'c> Claimant<'c> {
    fn holder(&self) -> Holder {
        Holder { task: self.name.to_owned(), agent: self.agent.to_owned() }
    }

    fn machines(&self) -> impl Iterator<Item = Machine<'c>> + use<'c> {
        std::iter::once(Machine::Id(self.agent)).chain(self.address.map(Machine::Address))
    }
}

impl<'a> Search<'a> {
    fn new(snapshot: &'a Snapshot, places: &'a [Place]) -> Self {
        let mut search = Self {
            places,
            ids: places.iter().map(|place| short_id(&place.task)).collect(),
            found: vec![None; places.len()],
            on_agents: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        let addresses: BTreeSet<IpAddr> =
            snapshot.agents.values().filter_map(|agent| agent.address).collect();
        for (number, place) in places.iter().enumerate() {
            let (address, port) = (place.address.ip(), place.address.port());
            if addresses.contains(&address) {
                search.on_agents.entry(address).or_default().entry(port).or_default().push(number);
                continue;
            }
            // An address that no agent is known to have had before can't be given anew by the same agent.
            if place.agent.is_empty() {
                continue;
            }
            let agent = snapshot.agents.get(&place.agent).and_then(|agent| agent.address);
            for machine in
                [Some(Machine::Id(&place.agent)), agent.map(Machine::Address)].into_iter().flatten()
            {
                let key = (address, machine);
                search.elsewhere.entry(key).or_default().entry(port).or_default().push(number);
                if place.is_containers {
                    search.containers.entry(key).or_default().push(number);
                }
            }
        }
        search
    }

    fn task(&mut self, snapshot: &'a Snapshot, task: &'a Task) {
        let address = snapshot.agents.get(&*task.agent_id).and_then(|agent| agent.address);
        // Most tasks of a cluster have none of the places.
        if !self.is_concerned(address, task.addresses.iter().map(|reported| reported.address)) {
            return;
        }
        let claimant = Claimant {
            framework: &task.key.framework,
            id: short_id(&task.key.task),
            name: &task.key.task,
            agent: &task.agent_id,
            address,
        };
        let ports = || {
            let own = task.ports.iter().filter_map(|port| port.port).map(|port| (port, port));
            own.chain(task.resources.iter().copied())
        };
        let given = task.resources.iter().copied();
        self.claim(&claimant, task.addresses.iter().map(|reported| reported.address), given, ports);
    }

    fn registered(&mut self, snapshot: &'a Snapshot, key: &'a RegisteredKey, task: &'a RegisteredTask) {
        let (agent, framework) = (&*task.agent, &*key.framework);
        let address = snapshot.agents.get(agent).and_then(|agent| agent.address);
        if !self.is_concerned(address, task.addresses.iter().copied()) {
            return;
        }
        let claimant = Claimant { framework, id: key.id, name: &task.label, agent, address };
        let announced = task.ports.as_deref().unwrap_or_default();
        let ports = || {
            let own = announced.iter().map(|port| (port.number, port.number));
            own.chain(task.resources.iter().copied())
        };
        let given = task.resources.iter().chain(&task.executor_ports).copied();
        self.claim(&claimant, task.addresses.iter().copied(), given, ports);
        // It announces no port, so that all ports of its container are its own.
        if announced.is_empty() {
            for address in task.addresses.iter() {
                for machine in claimant.machines() {
                    if let Some(open) = self.containers.get_mut(&(*address, machine)) {
                        settle(self.places, &self.ids, &mut self.found, open, &claimant);
                    }
                }
            }
        }
    }

    /// Returns true if a place is at one of these addresses.
    fn is_concerned(&self, agent: Option<IpAddr>, mut addresses: impl Iterator<Item = IpAddr>) -> bool {
        let first = |address| (address, Machine::Address(IpAddr::V4([0; 4].into())));
        let is_elsewhere = |address: IpAddr| {
            self.elsewhere.range(first(address)..).next().is_some_and(|((found, _), _)| *found == address)
        };
        agent.is_some_and(|address| self.on_agents.contains_key(&address)) || addresses.any(is_elsewhere)
    }

    /// Finds the places that a running task has: at its agent by the ports that it was `given`, at other addresses by all its
    /// ports.
    fn claim<P: Iterator<Item = (u16, u16)>>(
        &mut self,
        claimant: &Claimant<'a>,
        addresses: impl Iterator<Item = IpAddr>,
        given: impl Iterator<Item = (u16, u16)>,
        ports: impl Fn() -> P,
    ) {
        let Self { places, ids, found, on_agents, elsewhere, .. } = self;
        let mut settle_range = |open: &mut ByPort, range: RangeInclusive<u16>| {
            let numbers: Vec<u16> = open.range(range).map(|(port, _)| *port).collect();
            for number in numbers {
                if let Some(here) = open.get_mut(&number) {
                    settle(places, ids, found, here, claimant);
                    if here.is_empty() {
                        open.remove(&number);
                    }
                }
            }
        };
        // At an agent's address the master's word counts: which ports it gave to the task.
        if let Some(open) = claimant.address.and_then(|address| on_agents.get_mut(&address)) {
            for (first, last) in given {
                settle_range(open, first..=last);
            }
        }
        for address in addresses {
            for machine in claimant.machines() {
                if let Some(open) = elsewhere.get_mut(&(address, machine)) {
                    for (first, last) in ports() {
                        settle_range(open, first..=last);
                    }
                }
            }
        }
    }
}

/// Gives the open places to a running task, except for those that are its own.
fn settle(
    places: &[Place],
    ids: &[u64],
    found: &mut [Option<Holder>],
    open: &mut Vec<usize>,
    claimant: &Claimant<'_>,
) {
    open.retain(|number| {
        let (Some(place), Some(id), Some(found)) =
            (places.get(*number), ids.get(*number), found.get_mut(*number))
        else {
            return false;
        };
        let is_framework = place.framework.as_ref().is_none_or(|framework| framework == claimant.framework);
        // A task does not take its place from itself.
        if *id == claimant.id && is_framework {
            return true;
        }
        found.get_or_insert_with(|| claimant.holder());
        false
    });
}

#[cfg(test)]
mod tests;
