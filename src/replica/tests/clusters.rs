//! Clusters that change at random, and what must hold of their rows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::random::Random;
use crate::cluster::port_options::SCHEDULERS;
use crate::cluster::registry::{Described, NamedPort, RegisteredKey, RegisteredTask, Scheduler};
use crate::cluster::{
    Agent, Master, PortOptions, Protocol, Runtime, Task, TaskAddress, TaskKey, TaskPort, TaskState, VipLabel,
};
use crate::replica::decode::{Decoder, Replicated};
use crate::replica::encode::Encoder;
use crate::replica::table::{Generation, RowTable};

fn address(random: &mut Random) -> IpAddr {
    let bits = random.next();
    if random.once_in(3) {
        IpAddr::from(u128::from(bits).to_be_bytes())
    } else {
        IpAddr::from((bits as u32).to_be_bytes())
    }
}

fn text(random: &mut Random) -> String {
    let texts = ["", "web", "a.b", "\u{65e5}\u{672c}", "x y/z", "/:80", "LONG"];
    let text = texts[random.below(texts.len() as u64) as usize];
    if text == "LONG" { "n".repeat(random.below(400) as usize) } else { format!("{text}{}", random.below(4)) }
}

fn protocol(random: &mut Random) -> Protocol {
    if random.once_in(3) { Protocol::Udp } else { Protocol::Tcp }
}

fn sometimes<T>(random: &mut Random, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
    (!random.once_in(3)).then(|| value(random))
}

fn several<T>(random: &mut Random, most: u64, mut value: impl FnMut(&mut Random) -> T) -> Vec<T> {
    (0..random.below(most + 1)).map(|_| value(random)).collect()
}

fn options(random: &mut Random) -> PortOptions {
    let time = |random: &mut Random| Duration::from_nanos(random.below(3_600_000_000_000));
    PortOptions {
        scheduler: sometimes(random, |random| {
            SCHEDULERS[random.below(SCHEDULERS.len() as u64) as usize].to_owned()
        }),
        sticky_idle: random.once_in(2),
        drain: sometimes(random, time),
        weight: sometimes(random, |random| random.below(1001) as u16),
        no_ejection: random.once_in(2),
        slow_start: sometimes(random, time),
    }
}

fn port(random: &mut Random) -> TaskPort {
    let label =
        |random: &mut Random| VipLabel { key: format!("VIP_{}", random.below(3)), value: text(random) };
    TaskPort {
        name: text(random).into(),
        protocol: protocol(random),
        port: sometimes(random, |random| random.next() as u16),
        host_port: sometimes(random, |random| random.next() as u16),
        networks: several(random, 2, text).into_iter().collect(),
        is_in_container: random.once_in(2),
        is_allocated: random.once_in(2),
        labels: several(random, 3, label).into(),
        options: sometimes(random, |random| Box::new(options(random))),
    }
}

fn task(random: &mut Random, key: TaskKey, agent: &str) -> Task {
    let states = [TaskState::Preparing, TaskState::Running, TaskState::Killing, TaskState::Lost];
    let range = |random: &mut Random| (random.next() as u16, random.next() as u16);
    Task {
        app: if random.once_in(2) {
            crate::cluster::app_of(&key.task, None).into()
        } else {
            text(random).into()
        },
        key,
        agent_id: agent.into(),
        state: states[random.below(4) as usize],
        healthy: sometimes(random, |random| random.once_in(2)),
        runtime: if random.once_in(2) { Runtime::Docker } else { Runtime::Mesos },
        addresses: several(random, 3, |random| TaskAddress {
            address: address(random),
            network: sometimes(random, |random| text(random).into()),
        })
        .into(),
        ports: several(random, 2, port).into(),
        resources: several(random, 2, range).into(),
    }
}

fn name(random: &mut Random, key: &TaskKey, agent: &str) -> (RegisteredKey, Arc<RegisteredTask>) {
    let named = |random: &mut Random| NamedPort {
        label: text(random).into(),
        protocol: sometimes(random, protocol),
        number: random.next() as u16,
    };
    let described = Described {
        name: &text(random),
        is_published: random.once_in(2),
        addresses: several(random, 2, address),
        ports: sometimes(random, |random| several(random, 2, named)),
        resources: &several(random, 2, |random| (random.below(70_000), random.below(70_000))),
    };
    let (key, task) = RegisteredTask::new(key, agent.into(), described);
    let executor_ports = several(random, 2, |random| (random.next() as u16, random.next() as u16)).into();
    let mut task = RegisteredTask::clone(&task);
    task.executor_ports = executor_ports;
    task.is_kept = random.once_in(4);
    (key, Arc::new(task))
}

/// Changes something in a cluster.
fn edit(random: &mut Random, content: &mut Replicated) {
    let Replicated { snapshot, addresses4, addresses6 } = content;
    let agent = format!("S{}", random.below(8));
    let framework = format!("F{}", random.below(4));
    let key = TaskKey {
        framework: framework.as_str().into(),
        task: format!("t{}.{}", random.below(3), random.below(9)).into(),
    };
    let name_of_vip = format!("{}.marathon", random.below(9));
    let removes = random.once_in(3);
    match random.below(12) {
        0 if removes => snapshot.master = None,
        0 => {
            snapshot.master = Some(Master {
                id: text(random),
                elected_time: random.below(1 << 40) as f64 / 8.0,
                address: sometimes(random, address),
            })
        }
        1 if removes => drop(snapshot.agents.remove(&agent)),
        1 | 2 => {
            let (address, port) =
                (sometimes(random, address), sometimes(random, |random| random.next() as u16));
            snapshot.agents.insert(agent, Agent { hostname: text(random), address, port });
        }
        3 if removes => drop(snapshot.recovered.remove(&agent)),
        3 => drop(snapshot.recovered.insert(agent)),
        4 if removes => drop(snapshot.frameworks.remove(&framework)),
        4 => drop(snapshot.frameworks.insert(framework, text(random))),
        5 if removes => drop(snapshot.registered.remove(&framework)),
        5 => {
            let time =
                Timestamp::new(random.below(1 << 32) as i64 - (1 << 31), random.below(1_000_000_000) as i32);
            snapshot.registered.extend(time.ok().map(|time| (framework, time)));
        }
        6 => {
            let names = Arc::make_mut(&mut snapshot.names);
            let port = sometimes(random, |random| random.next() as u16);
            let scheduler = Scheduler { address: address(random), port };
            match removes {
                true => names.schedulers.remove(&framework),
                false => names.schedulers.insert(framework, scheduler),
            };
            names.leader = sometimes(random, |random| (address(random), random.next() as u16).into());
        }
        7 if removes => {
            addresses4.remove(&name_of_vip);
            addresses6.remove(&name_of_vip);
        }
        7 => {
            let address = address(random);
            let addresses = if address.is_ipv4() { addresses4 } else { addresses6 };
            addresses.insert(name_of_vip, address);
        }
        8 | 9 if removes => {
            snapshot.tasks.remove(&key);
            snapshot.kept.remove(&key);
        }
        8 | 9 => {
            if random.once_in(4) {
                snapshot.kept.insert(key.clone());
            }
            let task = task(random, key.clone(), &agent);
            snapshot.tasks.insert(key, Arc::new(task));
        }
        _ => {
            let names = Arc::make_mut(&mut snapshot.names);
            match removes {
                true => names.remove(&RegisteredKey::of(&key)),
                false => {
                    let (key, task) = name(random, &key, &agent);
                    names.add(key, task);
                }
            }
        }
    }
}

/// One case: after each of so many changes the rows tell the cluster, to a follower of changes as to one that reads
/// them all, and the digest that is kept up is that of the rows.
pub fn rows_and_back(seed: u64, changes: usize) {
    let mut random = Random::new(seed);
    let mut content = Replicated::default();
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut table = RowTable::new(Generation([7; 16]));
    for _ in 0..changes {
        for _ in 0..1 + random.below(3) {
            edit(&mut random, &mut content);
        }
        if random.once_in(10) {
            encoder = Encoder::resume(&table);
        }
        let rows = encoder.changes(&table, &content);
        for (key, value) in &rows {
            table.apply(key, value.as_ref());
            // A frame may end after each row, and what refers to another row is never there before it.
            assert_eq!(Decoder::of(&table).unreadable().len(), 0);
        }
        decoder.follow(&rows, &table);
        assert_eq!(encoder.left_out(), 0);
        let full = Decoder::of(&table);
        assert_eq!(full.content(), &content);
        assert_eq!(decoder.content(), &content);
        assert_eq!(RowTable::of(table.generation(), table.rows().clone()), table);
    }
}
