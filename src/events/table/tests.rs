//! What is told of repairs; the rest is tested with whole passes in [`crate::reconcile`].

use super::*;
use crate::cluster::Protocol;
use crate::dataplane::{RealServer, Scheduling, Service};

#[test]
fn many_drains_are_listed_in_fair_shares() {
    let drain = |app: &str| Happening {
        framework: "F".to_owned(),
        app: app.to_owned(),
        ..Happening::new(EventKind::DrainBegun, "")
    };
    let mut all = vec![drain("loud"); 2 * MOST];
    all.extend(vec![drain("quiet"); 3]);
    let listed = fair(all, "drains began or ended");
    assert_eq!(listed.iter().filter(|what| what.app == "quiet").count(), 3);
    assert_eq!(listed.len(), MOST + 1);
    assert_eq!(listed[MOST].text, "at least 256 more drains began or ended at once, which are not listed");
}

#[test]
fn a_repair_says_what_was_found() {
    let key = ServiceKey { protocol: Protocol::Tcp, address: [11, 0, 0, 1].into(), port: 80 };
    let server: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let scheduling = |scheduler: &str| Scheduling { scheduler: scheduler.to_owned(), flags: 0 };
    let service = Service {
        scheduling: scheduling("rr"),
        servers: [(server, RealServer::masquerade(5))].into_iter().collect(),
    };
    let actual = State { services: [(key, service.into())].into_iter().collect(), ..State::default() };
    for (op, expected) in [
        (
            Op::SetServer(key, server, RealServer::masquerade(1)),
            "server 10.0.0.1:80 had weight 5 instead of 1",
        ),
        (Op::SetServer(key, server, RealServer::masquerade(5)), "another way of forwarding"),
        (Op::SetService(key, scheduling("wlc")), "the scheduler was rr instead of wlc"),
        (
            Op::AddServer(key, "10.0.0.2:80".parse().unwrap(), RealServer::masquerade(1)),
            "10.0.0.2:80 was missing",
        ),
        (Op::DelServer(key, server), "10.0.0.1:80 was there that should not be"),
        (Op::AddService(key, scheduling("wlc")), "the virtual service was missing"),
    ] {
        let text = found(&op, &actual);
        assert!(text.contains(expected), "{text}");
    }
}
