//! What a listing has, beside what a question gets.

use std::sync::Arc;

use super::*;
use crate::cluster::Protocol;
use crate::dns::settings::DnsSettings;
use crate::dns::testing;
use crate::dns::zones::Directory;
use crate::dns::zones::tasks::TaskZone;
use crate::dns::zones::vips::{NamedService, Zone};
use crate::mesos;

/// A cluster with VIPs, tasks of two frameworks, discovery names, ports and a long name.
fn catalog() -> Catalog {
    let long = "x".repeat(63);
    let document = format!(
        r#"{{"id":"M","elected_time":1,"leader":"master@10.0.0.9:5050",
            "slaves":[{{"id":"A-S1","hostname":"n1","pid":"slave(1)@10.0.0.1:5051"}}],
            "frameworks":[
              {{"id":"F1","name":"marathon","pid":"scheduler@10.0.0.7:15101","tasks":[
                {{"id":"w.1","name":"web","framework_id":"F1","slave_id":"A-S1","state":"TASK_RUNNING",
                  "discovery":{{"name":"web.dev","ports":{{"ports":[{{"number":8080,"name":"http","protocol":"tcp"}}]}}}}}},
                {{"id":"l.1","name":"{long}","framework_id":"F1","slave_id":"A-S1","state":"TASK_RUNNING",
                  "resources":{{"ports":"[31000-31001]"}}}}]}},
              {{"id":"F2","name":"dev.team","tasks":[
                {{"id":"b.1","name":"bare","framework_id":"F2","slave_id":"A-S1","state":"TASK_RUNNING"}}]}}]}}"#
    );
    let snapshot = mesos::parse(document.as_bytes(), None).unwrap();
    let zone = TaskZone::new(Directory::new(&snapshot), &[[10, 0, 0, 9].into()], 1);
    let settings = DnsSettings::default();
    let service = |name: &str, last| NamedService {
        name: name.to_owned(),
        address: [11, 0, 0, last].into(),
        port: Some((Protocol::Tcp, 80).into()),
    };
    let services = [service("web.marathon", 1), service("api.marathon", 2)];
    let (vips, _) = Zone::new(&settings.zone).unwrap().with_services(1, &services);
    testing::catalog(&settings)
        .with_vips(Arc::new(vips))
        .with_tasks(Arc::new(zone))
        .with_node([[10, 0, 0, 1].into()])
}

fn listed(catalog: &Catalog, pattern: &str) -> Vec<ServedName> {
    let filter = NameFilter::parse(pattern);
    let mut names = Vec::new();
    for zone in catalog.zones() {
        for origin in zone.origins.iter().take(if zone.kind == ZoneKind::Reverse { 9 } else { 1 }) {
            names.extend(catalog.names(zone.kind, origin, &filter));
        }
    }
    names
}

#[test]
fn a_name_is_listed_with_what_a_question_for_it_gets() {
    let catalog = catalog();
    let names = listed(&catalog, "");
    for name in &names {
        assert_eq!(catalog.look_up(&name.name), name.records, "{}", name.name);
        assert!(!name.records.is_empty());
    }
    let hosts = |wanted: &str| -> Vec<&str> {
        let name = names.iter().find(|name| name.name == wanted);
        let name = name.unwrap_or_else(|| panic!("{wanted} is missing of {names:#?}"));
        name.records.iter().map(|record| &*record.host).collect()
    };
    assert_eq!(hosts("web.marathon.l4lb.thisdcos.directory"), ["11.0.0.1"]);
    assert_eq!(
        hosts("_80._web._tcp.marathon.l4lb.thisdcos.directory"),
        ["web.marathon.l4lb.thisdcos.directory:80"]
    );
    assert_eq!(hosts("1.0.0.11.in-addr.arpa"), ["web.marathon.l4lb.thisdcos.directory"]);
    assert_eq!(hosts("thisnode.thisdcos.directory"), ["10.0.0.1"]);
    assert_eq!(hosts("bare.dev.team.mesos.thisdcos.directory"), ["10.0.0.1"]);
    assert_eq!(hosts("bare.dev-team.agentip.dcos.thisdcos.directory"), ["10.0.0.1"]);
    // A target is listed itself.
    for service in ["_web.dev._tcp.marathon", "_http._web-dev._tcp.marathon"] {
        for target in hosts(&format!("{service}.mesos.thisdcos.directory")) {
            assert_eq!(hosts(target.strip_suffix(":8080").unwrap()), ["10.0.0.1"]);
        }
    }
    // A service of a name that fills its label has no name, but its task has one of its own.
    let is_canonical =
        |name: &&ServedName| name.name.starts_with("xxx") && name.name.contains("-s1.marathon.mesos");
    assert_eq!(names.iter().filter(is_canonical).count(), 1);
}

#[test]
fn names_are_asked_for_by_pattern_by_first_labels_and_in_full() {
    let catalog = catalog();
    let names = |pattern: &str| -> Vec<String> {
        let mut names: Vec<String> = listed(&catalog, pattern).into_iter().map(|name| name.name).collect();
        names.sort();
        names
    };
    let vip = "web.marathon.l4lb.thisdcos.directory";
    assert_eq!(names("Web.marathon."), [vip]);
    assert_eq!(names(vip), [vip]);
    assert_eq!(names("*.marathon.l4lb.*").len(), 8, "{:?}", names("*.marathon.l4lb.*"));
    assert_eq!(names("web"), [vip]);
    assert!(names("we").is_empty() && names("no*such").is_empty());
}

#[test]
fn each_zone_has_its_origins_in_their_order() {
    let zones = catalog().zones();
    let origins = |kind| zones.iter().find(|zone| zone.kind == kind).unwrap().origins.clone();
    assert_eq!(origins(ZoneKind::Vips)[0], "l4lb.thisdcos.directory");
    assert_eq!(origins(ZoneKind::Vips).len(), 4);
    assert_eq!(origins(ZoneKind::Mesos)[2], "mesos");
    assert!(zones.iter().all(|zone| zone.loaded));
}
