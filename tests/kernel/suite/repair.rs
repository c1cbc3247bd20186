//! What somebody else removed or changed is put back.

use anyhow::{Context, Result, ensure};

use super::{tests, web};
use crate::toolkit::await_some;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::lab::{Lab, REMOTE, THIRD, socket_address};
use crate::toolkit::state::{State, Task};

tests!["repair":
    ; ipvs:
    services,
    rules,
    routes,
    link,
    settings,
];

struct Repair {
    lab: Lab,
}

impl Repair {
    fn new() -> Result<Self> {
        Self::audited("1s")
    }

    /// On a daemon that only does what it is told of.
    fn told() -> Result<Self> {
        Self::audited("1h")
    }

    fn audited(audit: &'static str) -> Result<Self> {
        let mut lab = Lab::with_containers(&[11])?;
        lab.audit = audit;
        web::serve(&lab)?;
        lab.agent.serve("0.0.0.0:9191", "LOCAL")?;
        Ok(Self { lab })
    }

    fn start(&self) -> Result<Daemon<'_>> {
        self.lab.start(&State::of([
            Task::host("web-1", REMOTE, 8080).vip("10.99.0.80:80").vip("10.99.0.7:6666"),
            Task::host("web-2", THIRD, 8080).vip("10.99.0.80:80").healthy(false),
        ]))
    }

    /// Does the damage, and waits until everything is as it was and works.
    fn repaired_after(&self, damage: &str, look: &str) -> Result<()> {
        let agent = &self.lab.agent;
        let before = agent.run_line(look)?;
        agent.run_line(damage)?;
        let mut last = String::new();
        await_some("everything as it was", || {
            last = agent.run_line(look).unwrap_or_else(|error| error.to_string());
            Ok((sorted(&last) == sorted(&before)).then_some(()))
        })
        .with_context(|| format!("after {damage:?}\nbefore:\n{before}\nnow:\n{last}"))?;
        self.works().with_context(|| format!("after {damage:?} and its repair"))
    }

    fn works(&self) -> Result<()> {
        for client in [&self.lab.agent, self.lab.container(11)] {
            client.must_reach(Tcp, socket_address("10.99.0.80:80"), "B1")?;
            client.must_reach(Tcp, socket_address("10.99.0.7:6666"), "B1")?;
            client.must_be_refused(Tcp, socket_address("10.99.0.80:9191"))?;
        }
        Ok(())
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

fn services() -> Result<()> {
    let repair = Repair::new()?;
    let daemon = repair.start()?;
    for damage in [
        "ipvsadm -C",
        "ipvsadm -D -t 10.99.0.80:80",
        "ipvsadm -E -t 10.99.0.80:80 -s rr",
        "ipvsadm -d -t 10.99.0.80:80 -r 192.168.50.2:8080",
        "ipvsadm -e -t 10.99.0.80:80 -r 192.168.50.2:8080 -m -w 0",
        "ipvsadm -e -t 10.99.0.80:80 -r 192.168.50.3:8080 -m -w 7",
        "ipvsadm -a -t 10.99.0.80:80 -r 192.168.50.9:8080 -m",
    ] {
        repair.repaired_after(damage, "ipvsadm -Sn")?;
    }
    let status = daemon.status()?;
    ensure!(status.text.contains("repair"), "the status does not tell of repairs: {}", status.text);
    Ok(())
}

fn rules() -> Result<()> {
    let repair = Repair::told()?;
    let _daemon = repair.start()?;
    for damage in ["nft delete table inet l4lbd", "nft flush table inet l4lbd"] {
        repair.repaired_after(damage, "nft list ruleset")?;
    }
    Ok(())
}

fn routes() -> Result<()> {
    let repair = Repair::told()?;
    let _daemon = repair.start()?;
    for damage in [
        "ip route delete local 11.0.0.0/8 dev minuteman",
        "ip route delete local 10.99.0.7/32 dev minuteman",
        "ip route change local 11.0.0.0/8 dev minuteman table local src 172.17.1.1",
    ] {
        repair.repaired_after(damage, "ip route show table local")?;
    }
    repair.repaired_after(
        "ip -6 route delete local fd01:c::/64 dev minuteman",
        "ip -6 route show table local dev minuteman",
    )
}

fn link() -> Result<()> {
    let repair = Repair::told()?;
    let daemon = repair.start()?;
    for damage in [
        "ip address delete 198.51.100.1/32 dev minuteman",
        "ip link set minuteman down",
        "ip link delete minuteman",
    ] {
        repair.repaired_after(damage, "ip -brief -4 address show up dev minuteman")?;
    }
    daemon.await_dns()?;
    let answer = repair
        .lab
        .agent
        .run_line("dig @198.51.100.1 +time=5 +tries=3 none.marathon.l4lb.thisdcos.directory")?;
    ensure!(answer.contains("NXDOMAIN"), "names are not answered any more: {answer}");
    Ok(())
}

fn settings() -> Result<()> {
    let repair = Repair::new()?;
    let _daemon = repair.start()?;
    for key in [
        "net.ipv4.vs.conntrack",
        "net.ipv4.vs.expire_nodest_conn",
        "net.ipv4.vs.expire_quiescent_template",
        "net.ipv4.ip_forward",
    ] {
        let look = format!("sysctl -n {key}");
        let value = repair.lab.agent.run_line(&look)?;
        ensure!(value.trim() == "1", "{key} is {value}");
        repair.repaired_after(&format!("sysctl -qw {key}=0"), &look)?;
    }
    Ok(())
}
