//! Checks of masters, agent and Marathon, and of the clocks.

use crate::doctor::facts::NodeFacts;
use crate::doctor::finding::Finding;
use crate::doctor::settings::DoctorSettings;

/// Seconds by which clocks may be apart: answers tell whole seconds, and take a moment.
const NEAR: u64 = 5;

/// Seconds from which on tokens and certificates are refused.
const FAR: u64 = 60;

pub fn source(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "source";
    let asked = facts.servers.iter().filter_map(|server| Some((server, server.state.as_ref()?)));
    let mut found: Vec<Finding> = asked
        .map(|(server, state)| match state {
            Ok(has) => Finding::ok(CHECK, format!("answers, and shows {has}")).at(server.url.as_str()),
            Err(error) => {
                let finding = Finding::fault(CHECK, error.as_str()).at(server.key);
                finding.mended_by(remedy(error, server.key, settings))
            }
        })
        .collect();
    if found.is_empty() {
        found.push(Finding::skipped(CHECK, "the configuration names no server"));
    }
    found
}

/// Returns what to try, by the words of the error.
fn remedy(error: &str, key: &'static str, settings: &DoctorSettings) -> String {
    let section = key.split('.').next().unwrap_or(key);
    let servers = match key {
        "marathon.urls" => &settings.marathon.urls,
        _ => &settings.source.masters,
    };
    let host = servers.iter().find_map(|server| Some(server.url()?.host_str()?.to_owned()));
    // Only what a host name or an address consists of goes into a command.
    let host = host.filter(|host| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)));
    match (error, host) {
        (error, _) if error.contains("401 Unauthorized") => {
            format!(
                "correct {section}.basic, {section}.token or {section}.service_account; l4lbd check && systemctl restart l4lbd"
            )
        }
        (error, _) if error.contains("403 Forbidden") || error.contains("rights") => format!(
            "give the principal of {section}.basic, {section}.token or {section}.service_account the rights to view \
             frameworks, tasks and executors (--acls of the server)"
        ),
        (error, Some(host)) if error.contains("lookup") || error.contains("resolve") => {
            format!("getent hosts {host}")
        }
        (error, Some(host)) if error.contains("unreachable") || error.contains("No route") => {
            format!("ip route get {host}")
        }
        (error, _) if error.contains("tls_ca") || error.contains("certificate") => {
            "correct source.tls_ca; l4lbd check && systemctl restart l4lbd".to_owned()
        }
        (_, _) => format!("start the server, or correct {key}; l4lbd check && systemctl restart l4lbd"),
    }
}

pub fn clocks(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "clock";
    let mut found = Vec::new();
    let mut compared = 0;
    for server in &facts.servers {
        let Ok(ahead) = &server.clock else { continue };
        compared += 1;
        let apart = ahead.unsigned_abs();
        if apart <= NEAR {
            continue;
        }
        let relation = if *ahead > 0 { "behind" } else { "ahead of" };
        let what = format!("this node's clock is {apart} s {relation} that of the server");
        let finding = match apart >= FAR {
            true => Finding::fault(CHECK, format!("{what}: tokens and certificates may be refused")),
            false => Finding::warning(CHECK, what),
        };
        found.push(
            finding.at(server.url.as_str()).mended_by("timedatectl set-ntp true; and the same on the server"),
        );
    }
    match (found.is_empty(), compared) {
        (true, 0) => vec![Finding::skipped(CHECK, "no server tells its time")],
        (true, _) => vec![Finding::ok(CHECK, format!("agrees with that of {compared} servers"))],
        (false, _) => found,
    }
}
