//! Labels that were probably meant otherwise: they give a VIP by the rules, but hardly the one that their
//! author had in mind. A warning says what became of each.
//!
//! For example, `010.1.2.3:80` is no address, because of its leading zero, and becomes the name
//! `010.1.2.3.marathon`; `web.marathon.l4lb.thisdcos.directory:80` gets framework and zone a second time.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::label::LabelHost;
use super::policy::LabelPolicy;
use crate::cluster::dns_label::{MAX_LABEL, fragment, label};
use crate::cluster::{Skipped, Task, TaskPort, VipLabel, shortened};

/// Warnings about labels that a status lists; the rest is counted.
const MAX_SHOWN: usize = 50;

/// Labels of one task that are kept: one task cannot fill the list.
const OF_A_TASK: usize = 3;

/// Dropped characters that a warning names.
const NAMED_CHARACTERS: usize = 5;

/// A label that was probably meant otherwise, as one task has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Doubt {
    label: Skipped,
    /// Number of ports that have the same label.
    ports: usize,
}

/// Labels that were probably meant otherwise, each once for all tasks that have it, by framework.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoubtfulLabels {
    of_frameworks: BTreeMap<String, BTreeMap<(String, String), Doubt>>,
    /// Labels that found no place.
    beyond: usize,
    /// Places that the last task has taken, with its id.
    last: (String, usize),
}

impl DoubtfulLabels {
    /// Notes a label that has become the VIP `vip`, if it was probably meant otherwise. Tasks come in their
    /// order, so that every node keeps the same labels.
    pub fn note(
        &mut self,
        (task, port): (&Task, &TaskPort),
        written: &VipLabel,
        host: &LabelHost<'_>,
        (framework, vip): (&str, &impl Display),
        policy: &LabelPolicy,
    ) {
        let LabelHost::Named(host) = *host else { return };
        let Some(doubt) = doubt(host, framework, &policy.domains) else { return };
        let found = self.of_frameworks.entry(task.key.framework.to_string()).or_default();
        let place = (vip.to_string(), written.value.clone());
        if let Some(known) = found.get_mut(&place) {
            known.ports += 1;
            return;
        }
        if *self.last.0 != *task.key.task {
            self.last = (task.key.task.to_string(), 0);
        }
        if found.len() >= MAX_SHOWN || self.last.1 >= OF_A_TASK {
            self.beyond += 1;
            return;
        }
        self.last.1 += 1;
        let label = Skipped {
            task: shortened(task.key.task.to_string()),
            port: Some(shortened(port.describe())),
            label: Some(shortened(written.key.clone())),
            value: Some(shortened(written.value.clone())),
            reason: format!("{doubt}; it became the VIP {vip}, a name in {}", policy.zone),
            ..Skipped::default()
        };
        found.insert(place, Doubt { label, ports: 1 });
    }

    /// Returns a warning for each label, as many as are shown. Frameworks take turns, so that one with many
    /// such labels hides none of another's.
    pub fn warnings(&self) -> Vec<String> {
        let mut frameworks: Vec<_> = self.of_frameworks.values().map(|found| found.values()).collect();
        let total: usize = self.of_frameworks.values().map(BTreeMap::len).sum();
        let mut warnings = Vec::new();
        while warnings.len() < total.min(MAX_SHOWN) {
            let turn = frameworks.iter_mut().filter_map(Iterator::next).map(Doubt::warning);
            warnings.extend(turn.take(MAX_SHOWN));
        }
        let left_out = warnings.len().saturating_sub(MAX_SHOWN) + (total - warnings.len()) + self.beyond;
        warnings.truncate(MAX_SHOWN);
        if left_out > 0 {
            warnings.push(format!("{left_out} more labels were probably meant otherwise"));
        }
        warnings
    }
}

impl Doubt {
    fn warning(&self) -> String {
        match self.ports - 1 {
            0 => self.label.to_string(),
            more => format!("{} ({more} more ports have this label)", self.label),
        }
    }
}

/// Returns the reasons why a label with this host was probably meant otherwise, with what to write instead;
/// `domains` are the zones in which names are served. `None` for a label that says what it means.
fn doubt(host: &str, framework: &str, domains: &[String]) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
    // Nearly all labels, and there may be a hundred thousand of them.
    if host.len() <= MAX_LABEL && host.bytes().all(is_plain) {
        return None;
    }
    let mut reasons = Vec::new();
    if is_like_an_address(host) {
        reasons.push(
            "looks like an IPv4 address and is none: an address has four numbers from 0 to 255, without leading \
             zeros and with nothing before or behind them"
                .to_owned(),
        );
    }
    let name = fragment(host);
    let is_below = |zone: &str| name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
    let framework = fragment(framework);
    if let Some(zone) = domains.iter().find(|zone| is_below(&zone.trim_matches('.').to_ascii_lowercase())) {
        reasons.push(format!(
            "ends in {zone} like a full domain name: leave framework and zone out, they are added to every name"
        ));
    } else if !framework.is_empty() && is_below(&framework) {
        reasons.push(format!("ends in {framework}: leave the framework out, it is added to every name"));
    }
    let dropped: Vec<char> = host.chars().filter(|c| !is_kept(*c)).collect();
    if !dropped.is_empty() {
        let shown: String = dropped.iter().take(NAMED_CHARACTERS).collect();
        let more = if dropped.len() > NAMED_CHARACTERS { " and more" } else { "" };
        reasons.push(format!("loses {shown:?}{more}: names in DNS have a-z, 0-9 and dashes"));
    }
    let letters = |text: &str| text.bytes().filter(u8::is_ascii_alphanumeric).count();
    if host.split('.').any(|part| letters(&label(part)) < letters(part)) {
        reasons.push(format!("is cut: a part of a name in DNS has {MAX_LABEL} characters at most"));
    }
    if host.split('.').any(str::is_empty) {
        reasons.push("has an empty part, which vanishes: write one dot between two parts".to_owned());
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Returns true for a character that a name keeps, or that paths of apps have by custom.
fn is_kept(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_./".contains(character)
}

/// Returns true for digits and dots, perhaps with a slash such as that of an app's id or of a network.
fn is_like_an_address(host: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || b"./".contains(&byte);
    host.contains('.') && host.bytes().any(|byte| byte.is_ascii_digit()) && host.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::{Agent, Runtime, Snapshot, TaskAddress, TaskKey, TaskState};
    use crate::cluster::{Few, Protocol};
    use crate::vip::VipTable;

    fn domains() -> Vec<String> {
        ["l4lb.thisdcos.directory", "mesos"].map(str::to_owned).to_vec()
    }

    fn task(framework: &str, id: &str, labels: &[&str]) -> Task {
        let address: IpAddr = [10, 0, 0, 1].into();
        let labels = labels.iter().map(|value| VipLabel { key: "VIP_0".into(), value: (*value).to_owned() });
        let port = TaskPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: None,
            host_port: Some(8080),
            networks: [].into(),
            is_in_container: false,
            is_allocated: true,
            labels: labels.collect(),
            options: None,
        };
        Task {
            key: TaskKey { framework: framework.into(), task: id.into() },
            app: id.into(),
            agent_id: "S".into(),
            state: TaskState::Running,
            healthy: None,
            runtime: Runtime::Mesos,
            addresses: vec![TaskAddress { address, network: None }].into(),
            ports: vec![port].into(),
            resources: Few::default(),
        }
    }

    fn warnings(tasks: Vec<Task>) -> Vec<String> {
        let agent = Agent { hostname: "a".into(), address: Some([10, 0, 0, 1].into()), port: None };
        let snapshot = Snapshot {
            agents: [("S".to_owned(), agent)].into_iter().collect(),
            frameworks: [("F", "marathon"), ("G", "other")]
                .map(|(id, n)| (id.into(), n.into()))
                .into_iter()
                .collect(),
            tasks: tasks.into_iter().map(|task| (task.key.clone(), task.into())).collect(),
            ..Snapshot::default()
        };
        VipTable::new(&snapshot, &LabelPolicy::default()).doubtful.warnings()
    }

    #[test]
    fn labels_that_were_meant_otherwise_are_told_from_others() {
        for (host, said) in [
            ("010.1.2.3", "looks like an IPv4 address"),
            ("1.2", "looks like an IPv4 address"),
            ("1.2.3.4.5", "looks like an IPv4 address"),
            ("256.1.1.1", "looks like an IPv4 address"),
            ("/10.1.2.3", "looks like an IPv4 address"),
            ("10.1.2.0/24", "looks like an IPv4 address"),
            ("web.marathon.l4lb.thisdcos.directory", "ends in l4lb.thisdcos.directory"),
            ("web.marathon.L4LB.thisdcos.directory.", "ends in l4lb.thisdcos.directory"),
            ("web.marathon.mesos", "ends in mesos"),
            ("/web.marathon", "ends in marathon"),
            ("/My_\u{c4}pp", "loses \"\u{c4}\""),
            ("tcp://web", "loses \":\""),
            ("/fd00::7", "loses \"::\""),
            ("web%20app\u{1b}", "loses \"%\\u{1b}\""),
            (&"x".repeat(64), "is cut"),
            ("a..b", "has an empty part"),
            ("web.", "has an empty part"),
            (".web", "has an empty part"),
        ] {
            let doubt = doubt(host, "marathon", &domains());
            assert!(doubt.as_ref().is_some_and(|doubt| doubt.contains(said)), "{host}: {doubt:?}");
        }
        for host in [
            "/web",
            "web",
            "/Team/My_App-1",
            "web.dev",
            "/team/api.v2",
            "v1.2",
            "80",
            "mesos",
            "x.l4lb",
            "webmarathon",
            "-web-",
            &"x".repeat(63),
        ] {
            assert_eq!(doubt(host, "marathon", &domains()), None, "{host}");
        }
    }

    #[test]
    fn warning_tells_task_label_and_what_became_of_it() {
        let label = "/My_\u{c4}pp:80";
        let tasks = vec![task("F", "a", &[label, "/web:80"]), task("F", "b", &[label])];
        let expected = "a port http 8080/tcp VIP_0=/My_\u{c4}pp:80: loses \"\u{c4}\": names in DNS have a-z, 0-9 and dashes; \
                        it became the VIP tcp my-pp.marathon:80, a name in l4lb.thisdcos.directory \
                        (1 more ports have this label)";
        assert_eq!(warnings(tasks), [expected]);
    }

    #[test]
    fn one_task_or_framework_does_not_fill_the_list() {
        let many: Vec<String> = (0..200).map(|n| format!("1.{n}:80")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let found = warnings(vec![task("F", "a", &many), task("F", "b", &["1.2.3:80"])]);
        assert_eq!(found.len(), OF_A_TASK + 2);
        assert!(found.iter().any(|warning| warning.starts_with("b port")), "{found:#?}");
        assert_eq!(found.last().unwrap(), "197 more labels were probably meant otherwise");
        let mut tasks: Vec<Task> =
            (0..100).map(|n| task("F", &format!("a{n}"), &[&format!("1.{n}:80")])).collect();
        tasks.push(task("G", "z", &["1.2.3:80"]));
        let found = warnings(tasks);
        assert_eq!(found.len(), MAX_SHOWN + 1);
        assert!(found[1].starts_with("z port"), "{found:#?}");
        assert_eq!(found.last().unwrap(), "51 more labels were probably meant otherwise");
    }

    proptest! {
        #[test]
        fn every_lost_letter_is_told(host in "[a-zA-Z0-9\u{e4}\u{f6}:!_-]{1,80}") {
            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
            if letters(&label(&host)) < letters(&host) {
                prop_assert!(doubt(&host, "marathon", &domains()).is_some());
            }
        }
    }
}
