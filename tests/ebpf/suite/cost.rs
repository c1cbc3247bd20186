//! Work of the daemon in the kernel's maps.

use std::time::Instant;

use l4lbd::dataplane::ebpf::work;
use l4lbd::dataplane::{Op, RealServer};

use crate::toolkit::*;

pub fn of_a_change_is_that_of_its_service() {
    const SERVICES: u16 = 2_000;
    let mut plane = Plane::new();
    let keys: Vec<_> = (0..SERVICES).map(|number| tcp(&format!("10.99.0.1:{}", 1000 + number))).collect();
    let server = |port: u16| ([127, 0, 0, 1], port).into();
    plane.apply(&keys.iter().flat_map(|key| service(*key, &[server(1), server(2)])).collect::<Vec<_>>());
    // Tasks that are replaced, some of them halted before.
    let (start, before) = (Instant::now(), work());
    for key in &keys[..50] {
        plane.apply(&[weight(*key, server(2), 0)]);
        plane.apply(&[
            Op::DelServer(*key, server(2)),
            Op::AddServer(*key, server(3), RealServer::masquerade(1)),
        ]);
    }
    let after = work();
    let elements = after.elements - before.elements;
    assert!(elements < 100 * 60, "100 changes read and write {elements} elements of maps");
    // Programs are waited for once a second, and not for each change.
    let waits = after.waits - before.waits;
    assert!(waits <= start.elapsed().as_secs() + 1, "{waits} waits in {:?}", start.elapsed());
    // Who reads everything for once finds what the changes have made of it.
    let table = plane.read();
    for (number, key) in keys.iter().enumerate() {
        let servers: Vec<u16> = table.services[key].servers.keys().map(|server| server.port()).collect();
        assert_eq!(servers, if number < 50 { [1, 3] } else { [1, 2] });
    }
}
