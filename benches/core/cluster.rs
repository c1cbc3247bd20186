//! A cluster of any size, as the `/master/state` document of a Mesos 1.11 master.
//!
//! Tasks are written the way Mesos writes those of a Marathon app on the host network: about 1.1 kB
//! each, of which a reader needs a tenth.

use l4lbd::cluster::Snapshot;
use l4lbd::mesos::{self, Format};

/// Number of agents; tasks go round them.
const AGENTS: usize = 1000;

const HEAD: &str = r#"{"version":"1.11.0","git_sha":"04bc7ee1984d86fbb0bd782ccc69ce44c13ae4b9","build_time":1606232317.0,"start_time":1795232373.554079,"elected_time":1795232373.5556102,"id":"e38a01a7-4163-4f0b-9233-acb7a5689dbe","pid":"master@10.0.0.1:5050","hostname":"m1","capabilities":["AGENT_UPDATE","AGENT_DRAINING","QUOTA_V2"],"activated_slaves":1000.0,"flags":{"agent_ping_timeout":"15secs","allocator":"hierarchical","hostname_lookup":"true","zk_session_timeout":"10secs"},"slaves":["#;

const AGENT: &str = r#"{"id":"e38a01a7-4163-4f0b-9233-acb7a5689dbe-S@AGENT@","hostname":"agent-@AGENT@","port":5051,"attributes":{},"pid":"slave(1)@@ADDRESS@:5051","registered_time":1795232373.5913039,"resources":{"disk":1000.0,"mem":10000000.0,"gpus":0.0,"cpus":10000.0,"ports":"[1-65000]"},"used_resources":{"disk":0.0,"mem":400.0,"gpus":0.0,"cpus":1.0,"ports":"[10009-10009, 10019-10019, 10029-10029, 10039-10039, 10049-10049]"},"offered_resources":{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":0.0},"reserved_resources":{},"active":true,"deactivated":false,"version":"1.11.0","capabilities":["MULTI_ROLE","HIERARCHICAL_ROLE","RESERVATION_REFINEMENT","AGENT_DRAINING"]}"#;

const MIDDLE: &str = r#"],"recovered_slaves":[],"frameworks":[{"id":"e38a01a7-4163-4f0b-9233-acb7a5689dbe-0000","name":"marathon","used_resources":{"disk":0.0,"mem":4000.0,"gpus":0.0,"cpus":10.0},"hostname":"m1","webui_url":"","active":true,"connected":true,"recovered":false,"user":"root","failover_timeout":600.0,"checkpoint":true,"registered_time":1795232376.680178,"unregistered_time":0.0,"roles":["*"],"tasks":["#;

const TASK: &str = r#"{"id":"scale_b@BATCH@_app@APP@.instance-917ec042-1efb-42d9-a839-@NUMBER@._app.1","name":"app@APP@.b@BATCH@.scale","framework_id":"e38a01a7-4163-4f0b-9233-acb7a5689dbe-0000","executor_id":"","slave_id":"e38a01a7-4163-4f0b-9233-acb7a5689dbe-S@AGENT@","state":"TASK_RUNNING","resources":{"disk":0.0,"mem":4.0,"gpus":0.0,"cpus":0.01,"ports":"[@PORT@-@PORT@]"},"role":"*","statuses":[{"state":"TASK_STARTING","timestamp":1795232397.928059,"container_status":{"container_id":{"value":"79521768-37b5-44ce-b572-@NUMBER@"},"network_infos":[{"ip_addresses":[{"protocol":"IPv4","ip_address":"@ADDRESS@"}]}]}},{"state":"TASK_RUNNING","timestamp":1795232398.0609276,"container_status":{"container_id":{"value":"79521768-37b5-44ce-b572-@NUMBER@"},"network_infos":[{"ip_addresses":[{"protocol":"IPv4","ip_address":"@ADDRESS@"}]}]},"healthy":true}],"labels":[{"key":"owner","value":"team-2"}],"discovery":{"visibility":"FRAMEWORK","name":"app@APP@.b@BATCH@.scale","ports":{"ports":[{"number":@PORT@,"name":"http","protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"@VIP@:80"}]}}]}}}"#;

const TAIL: &str = r#"],"unreachable_tasks":[],"completed_tasks":[],"offers":[],"executors":[]}],"completed_frameworks":[],"orphan_tasks":[],"unregistered_frameworks":[]}"#;

/// What VIPs are called.
#[derive(Clone, Copy)]
pub enum Vips {
    Named,
    /// Addresses outside of the VIP range.
    Literal,
}

/// The document of a cluster with `vips` VIPs of `backends` tasks each.
pub fn document(vips: usize, backends: usize, kind: Vips) -> Vec<u8> {
    let mut text = String::from(HEAD);
    for agent in 0..AGENTS {
        comma(&mut text, agent);
        text += &AGENT.replace("@AGENT@", &agent.to_string()).replace("@ADDRESS@", &address(agent));
    }
    text += MIDDLE;
    for number in 0..vips * backends {
        let (app, agent) = (number / backends, number % AGENTS);
        let vip = match kind {
            Vips::Named => format!("/scale/b{}/app{app}", app / 1000),
            Vips::Literal => format!("172.20.{}.{}", app / 250, app % 250 + 1),
        };
        comma(&mut text, number);
        text += &TASK
            .replace("@BATCH@", &(app / 1000).to_string())
            .replace("@APP@", &app.to_string())
            .replace("@NUMBER@", &format!("{number:012}"))
            .replace("@AGENT@", &agent.to_string())
            .replace("@ADDRESS@", &address(agent))
            .replace("@PORT@", &(31000 + number / AGENTS).to_string())
            .replace("@VIP@", &vip);
    }
    text += TAIL;
    text.into_bytes()
}

/// The same cluster, read.
pub fn snapshot(vips: usize, backends: usize, kind: Vips) -> Snapshot {
    let snapshot = mesos::parse(&document(vips, backends, kind), Some(Format::State)).unwrap();
    assert_eq!((snapshot.tasks.len(), snapshot.skipped.len()), (vips * backends, 0));
    snapshot
}

fn comma(text: &mut String, index: usize) {
    if index > 0 {
        text.push(',');
    }
}

fn address(agent: usize) -> String {
    format!("10.0.{}.{}", agent / 250 + 1, agent % 250 + 1)
}
