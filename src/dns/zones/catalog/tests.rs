//! Which zone a name is in.

use super::*;
use crate::dns::protocol::wire::{MessageHeader, Query};
use crate::dns::settings::DnsSettings;
use crate::dns::testing;
use crate::dns::zones::vips::NamedService;
use hickory_proto::op::{Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::{Name, RecordType};

fn packet(name: &str) -> Vec<u8> {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn place(catalog: &Catalog, name: &str) -> Option<(ZoneKind, usize)> {
    let packet = packet(name);
    let query = Query::read(MessageHeader::read(&packet).unwrap(), &packet).unwrap();
    catalog.place(&query.name).map(|place| (place.content, place.depth))
}

#[test]
fn names_belong_to_the_longest_origin() {
    let catalog = testing::catalog(&DnsSettings::default());
    for (name, expected) in [
        ("web.marathon.l4lb.thisdcos.directory.", Some((ZoneKind::Vips, 3))),
        ("L4LB.thisdcos.global.", Some((ZoneKind::Vips, 3))),
        ("a.b.c.autoip.dcos.thisdcos.directory.", Some((ZoneKind::Dcos, 3))),
        ("leader.mesos.", Some((ZoneKind::Mesos, 1))),
        ("leader.mesos.thisdcos.directory.", Some((ZoneKind::Mesos, 3))),
        ("thisnode.thisdcos.directory.", Some((ZoneKind::Node, 3))),
        ("1.2.3.11.in-addr.arpa.", Some((ZoneKind::Reverse, 3))),
        ("thisdcos.directory.", None),
        ("mesos.example.", None),
        (".", None),
    ] {
        assert_eq!(place(&catalog, name), expected, "{name}");
    }
    let settings = DnsSettings {
        zone: "vips.example".to_owned(),
        aliases: vec!["lb.vips.example".to_owned()],
        tasks: false,
        ..DnsSettings::default()
    };
    let catalog = testing::catalog(&settings);
    for (name, expected) in [
        ("web.marathon.vips.example.", Some((ZoneKind::Vips, 2))),
        ("web.lb.vips.example.", Some((ZoneKind::Vips, 3))),
        ("web.marathon.l4lb.thisdcos.directory.", None),
        ("leader.mesos.", None),
        ("leader.dcos.thisdcos.directory.", None),
    ] {
        assert_eq!(place(&catalog, name), expected, "{name}");
    }
}

#[test]
fn what_is_not_known_is_not_denied() {
    let catalog = testing::catalog(&DnsSettings::default());
    let find = |catalog: &Catalog, name: &str| {
        let packet = packet(name);
        let query = Query::read(MessageHeader::read(&packet).unwrap(), &packet).unwrap();
        match catalog.place(&query.name).unwrap().find(&query.name, AnswerWindow::ALL) {
            Lookup::Missing => None,
            Lookup::NotLoaded => Some("not loaded".to_owned()),
            Lookup::Found(records) => Some(format!("{records:?}")),
        }
    };
    for name in [
        "x.l4lb.thisdcos.directory.",
        "1.0.0.11.in-addr.arpa.",
        "leader.mesos.",
        "thisnode.thisdcos.directory.",
    ] {
        assert_eq!(find(&catalog, name).as_deref(), Some("not loaded"), "{name}");
    }
    let service = NamedService { name: "web.m".to_owned(), address: [11, 0, 0, 1].into(), port: None };
    let (zone, _) = catalog.vips().with_services(1, [&service]);
    let catalog = catalog.with_vips(Arc::new(zone)).with_node([IpAddr::from([10, 0, 0, 1])]);
    assert!(catalog.is_node([IpAddr::from([10, 0, 0, 1])]) && !catalog.is_node([]));
    assert_eq!(find(&catalog, "x.l4lb.thisdcos.directory."), None);
    assert_eq!(find(&catalog, "thisnode.thisdcos.directory.").as_deref(), Some("[A(10.0.0.1)]"));
    assert_eq!(find(&catalog, "x.thisnode.thisdcos.directory."), None);
    assert_eq!(find(&catalog, "ns.l4lb.thisdcos.directory.").as_deref(), Some("[A(198.51.100.1)]"));
}
