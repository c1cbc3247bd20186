//! What somebody else removed or changed is put back.

use anyhow::{Context, Result, anyhow, ensure};

use super::{tests, web};
use crate::toolkit::await_some;
use crate::toolkit::daemon::Daemon;
use crate::toolkit::helper::Transport::Tcp;
use crate::toolkit::lab::{Lab, REMOTE, THIRD, socket_address};
use crate::toolkit::state::{State, Task};

tests!["repair":
    all_that_names_need,
    sockets_of_names,
    plan_of_all_that_names_need,
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
        repair.repaired_after(damage, "nft --stateless list ruleset")?;
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

/// Addresses of the name server in these tests.
const LISTEN: &str = "[dns]\nlisten = [\"198.51.100.1:53\", \"[fd02::53]:53\"]\nresolved = \"off\"";

/// Asks at both addresses, over both transports.
fn names_are_answered(lab: &Lab) -> Result<()> {
    for server in ["198.51.100.1", "fd02::53"] {
        for option in ["+notcp", "+tcp"] {
            let answer = lab.agent.run_line(&format!(
                "dig @{server} {option} +time=2 +tries=1 none.marathon.l4lb.thisdcos.directory"
            ))?;
            ensure!(answer.contains("NXDOMAIN"), "{server} {option} answers {answer}");
        }
    }
    Ok(())
}

/// Waits until names are answered again. What was damaged may answer for a moment.
fn names_are_answered_again(lab: &Lab, damage: &str, is_damaged: impl Fn() -> bool) -> Result<()> {
    let mut last = String::new();
    await_some("names are answered again", || {
        let answered = if is_damaged() { Err(anyhow!("not repaired")) } else { names_are_answered(lab) };
        last = answered.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        Ok(answered.ok())
    })
    .with_context(|| format!("after {damage:?}: {last}"))
}

/// Damage that takes away what packets need to get to the name server.
const DAMAGE: &[&str] = &[
    "ip route delete table local local 198.51.100.1 dev minuteman",
    "ip route flush table local dev minuteman",
    "ip -6 route delete table local local fd02::53 dev minuteman",
    "ip -6 route flush table local dev minuteman",
    "ip address delete 198.51.100.1/32 dev minuteman",
    "ip address delete fd02::53/128 dev minuteman",
    "ip address flush dev minuteman",
    "ip link set minuteman down",
    "ip link delete minuteman",
];

/// True if the routes of both addresses of the name server are there.
fn has_ways_to_names(lab: &Lab) -> bool {
    // A question for a link that is gone fails, and then there is none of them.
    let shown = ["route show", "-6 route show"]
        .map(|what| lab.agent.run_line(&format!("ip {what} table local dev minuteman")).unwrap_or_default());
    let [v4, v6] = shown;
    v4.contains("local 198.51.100.1 ") && v6.contains("local fd02::53 ")
}

fn all_that_names_need() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.audit = "1h";
    let daemon = lab.start_with(&State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]), LISTEN)?;
    daemon.await_dns()?;
    names_are_answered(&lab)?;
    for damage in DAMAGE {
        lab.agent.run_line(damage)?;
        names_are_answered_again(&lab, damage, || !has_ways_to_names(&lab))?;
    }
    let status = daemon.status()?;
    ensure!(!status.degraded && status.text.contains("repair"), "after all repairs: {}", status.text);
    Ok(())
}

/// With the sockets gone that it listens on, whoever closed them.
fn sockets_of_names() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = lab.start_with(&State::default(), LISTEN)?;
    daemon.await_dns()?;
    for kind in ["--tcp --listening", "--udp --all", "--tcp --listening"] {
        let kill = format!("ss --kill --no-header --numeric {kind} sport = 53");
        let killed = lab.agent.run_line(&kill)?;
        ensure!(killed.contains("198.51.100.1"), "{kill} killed nothing: {killed:?}");
        names_are_answered_again(&lab, &kill, || false)?;
    }
    Ok(())
}

/// What is gone is an operation of the next pass, and so of the command that shows it.
fn plan_of_all_that_names_need() -> Result<()> {
    let lab = Lab::new()?;
    let state = State::of([Task::host("web", REMOTE, 8080).vip("/web:80")]);
    lab.start_with(&state, LISTEN)?.terminate()?;
    let plan = || lab.l4lbd(&["plan"]);
    let planned = plan()?;
    ensure!(planned.contains("# 0 operations"), "something is planned where all is well: {planned}");
    for (damage, operation) in [
        ("ip route delete table local local 198.51.100.1 dev minuteman", "add route local 198.51.100.1"),
        ("ip -6 route flush table local dev minuteman", "add route local fd02::53"),
        ("ip address delete 198.51.100.1/32 dev minuteman", "add address 198.51.100.1"),
        ("ip address delete fd02::53/128 dev minuteman", "add address fd02::53"),
        ("ip link set minuteman down", "set link up"),
        ("ip link delete minuteman", "add link"),
    ] {
        lab.agent.run_line(damage)?;
        let planned = plan()?;
        ensure!(planned.contains(operation), "after {damage:?} the plan is {planned}");
        lab.l4lbd(&["run", "--once"])?;
        let planned = plan()?;
        ensure!(planned.contains("# 0 operations"), "{damage:?} was not repaired: {planned}");
    }
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
