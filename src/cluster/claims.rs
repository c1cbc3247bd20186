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
use std::sync::Arc;

use super::registry::{RegisteredKey, RegisteredTask, short_id};
use super::shared::{Change, Changes};
use super::{SharedMap, Snapshot, Task, TaskKey};

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
    let addresses: BTreeSet<IpAddr> = snapshot.agents.values().filter_map(|agent| agent.address).collect();
    let mut search = Search::new(snapshot, places, |address| addresses.contains(address));
    search.all(snapshot);
    search.found
}

/// Running tasks by their agents. Who has a place is on its machine, so that not all tasks are looked at for each
/// task that ends.
#[derive(Clone, Debug, Default)]
pub struct TasksByAgent {
    /// Tasks with VIPs by the ids of their agents, in their order.
    tasks: SharedMap<Arc<str>, Arc<[TaskKey]>>,
    /// All running tasks likewise.
    names: SharedMap<Arc<str>, Arc<[RegisteredKey]>>,
    /// Ids of the agents at each address.
    agents: BTreeMap<IpAddr, Vec<String>>,
}

impl TasksByAgent {
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut by_agent = Self::default();
        by_agent.follow(&Snapshot::default(), snapshot);
        by_agent
    }

    /// Goes on from the tasks of `before` to those of `after`.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot) {
        let tasks = before.tasks.changes(&after.tasks);
        note_changes(&mut self.tasks, tasks, |task| &task.agent_id);
        let names = before.names.tasks.changes(&after.names.tasks);
        note_changes(&mut self.names, names, |task| &task.agent);
        if before.agents != after.agents {
            self.agents.clear();
            for (id, agent) in &after.agents {
                let Some(address) = agent.address else { continue };
                self.agents.entry(address).or_default().push(id.clone());
            }
        }
    }

    /// Returns true for each of the places that a running task has, as [`holders`] finds it.
    pub fn are_taken(&self, snapshot: &Snapshot, places: &[Place]) -> Vec<bool> {
        let mut search = self.search(snapshot, places);
        for machine in
            places.iter().flat_map(|place| self.machines(snapshot, place)).collect::<BTreeSet<&str>>()
        {
            let tasks = self.tasks.get(machine).into_iter().flat_map(|keys| keys.iter());
            tasks.filter_map(|key| snapshot.tasks.get(key)).for_each(|task| search.task(snapshot, task));
            let names = self.names.get(machine).into_iter().flat_map(|keys| keys.iter());
            let names = names.filter_map(|key| snapshot.names.tasks.get_key_value(key));
            names.for_each(|(key, task)| search.registered(snapshot, key, task));
        }
        search.found.iter().map(Option::is_some).collect()
    }

    /// Returns true for each of the places that a running task of `news` has: some tasks of the snapshot that was
    /// followed last.
    pub fn are_taken_by(&self, news: &Snapshot, places: &[Place]) -> Vec<bool> {
        let mut search = self.search(news, places);
        search.all(news);
        search.found.iter().map(Option::is_some).collect()
    }

    fn search<'a>(&self, snapshot: &'a Snapshot, places: &'a [Place]) -> Search<'a> {
        Search::new(snapshot, places, |address| self.agents.contains_key(address))
    }

    /// Returns the ids of the agents whose tasks can have a place.
    fn machines<'a>(
        &'a self,
        snapshot: &Snapshot,
        place: &'a Place,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let at_agent = self.agents.get(&place.address.ip());
        // Elsewhere it is the same agent as before, by its id or by its address.
        let own = at_agent.is_none().then_some(&*place.agent).filter(|agent| !agent.is_empty());
        let address = own.and_then(|own| snapshot.agents.get(own)?.address);
        let alike = at_agent.or_else(|| self.agents.get(&address?));
        own.into_iter().chain(alike.into_iter().flatten().map(String::as_str))
    }
}

/// Takes changed tasks over into the lists of their agents.
fn note_changes<'s, K: Ord + Clone, T: PartialEq + 's>(
    lists: &mut SharedMap<Arc<str>, Arc<[K]>>,
    changes: Changes<'s, K, Arc<T>>,
    agent: impl Fn(&T) -> &Arc<str>,
) {
    // Collected first, so that the first picture makes each list once.
    let mut by_agent: BTreeMap<&Arc<str>, (BTreeSet<&K>, Vec<K>)> = BTreeMap::new();
    for change in changes {
        let (key, gone, come) = match change {
            Change::Added(key, come) => (key, None, Some(come)),
            Change::Changed(key, gone, come) => (key, Some(gone), Some(come)),
            Change::Removed(key, gone) => (key, Some(gone), None),
        };
        if let (Some(gone), Some(come)) = (gone, come)
            && agent(gone) == agent(come)
        {
            continue;
        }
        if let Some(gone) = gone {
            by_agent.entry(agent(gone)).or_default().0.insert(key);
        }
        if let Some(come) = come {
            by_agent.entry(agent(come)).or_default().1.push(key.clone());
        }
    }
    for (agent, (gone, come)) in by_agent {
        let known = lists.get(agent).into_iter().flat_map(|keys| keys.iter());
        let mut keys: Vec<K> = known.filter(|key| !gone.contains(key)).cloned().chain(come).collect();
        keys.sort_unstable();
        match keys.is_empty() {
            true => drop(lists.remove(agent)),
            false => drop(lists.insert(Arc::clone(agent), keys.into())),
        }
    }
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
    /// `is_agents` tells the addresses of agents.
    fn new(snapshot: &'a Snapshot, places: &'a [Place], is_agents: impl Fn(&IpAddr) -> bool) -> Self {
        let mut search = Self {
            places,
            ids: places.iter().map(|place| short_id(&place.task)).collect(),
            found: vec![None; places.len()],
            on_agents: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        for (number, place) in places.iter().enumerate() {
            let (address, port) = (place.address.ip(), place.address.port());
            if is_agents(&address) {
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

    /// Looks at all tasks.
    fn all(&mut self, snapshot: &'a Snapshot) {
        snapshot.tasks.values().for_each(|task| self.task(snapshot, task));
        snapshot.names.tasks.iter().for_each(|(key, task)| self.registered(snapshot, key, task));
    }

    fn task(&mut self, snapshot: &'a Snapshot, task: &'a Task) {
        // Those that are kept have given way.
        if !task.state.is_serving() || snapshot.kept.contains(&task.key) {
            return;
        }
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
        if task.is_kept {
            return;
        }
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
