//! Pins: what stays when the daemon ends, and what the next one does with it.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use l4lbd::dataplane::ebpf::{Ebpf, Error, Options};
use l4lbd::dataplane::{Op, RealServer, Route};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::helper::Helper;
use crate::place;
use crate::toolkit::*;

pub fn a_killed_daemon() {
    let vip = tcp("10.99.0.1:80");
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    let options = options();
    let texts = servers.map(|server| server.to_string());
    let mut daemon = Helper::start(&[
        "load",
        options.cgroup.as_ref().unwrap().to_str().unwrap(),
        options.pins.to_str().unwrap(),
        "10.99.0.1:80",
        &texts[0],
        &texts[1],
    ]);
    assert_eq!(daemon.line(), "ready");
    let mut before = connect(address(vip)).unwrap();
    daemon.kill();
    assert!(is_alive(&mut before.0));
    let mut meanwhile = connect(address(vip)).unwrap();
    refused(TcpStream::connect("10.99.0.1:81"));
    let mut plane = Plane::open(options);
    let table = plane.read();
    assert_eq!(table.services[&vip].servers.keys().copied().collect::<Vec<_>>(), {
        let mut sorted = servers.to_vec();
        sorted.sort();
        sorted
    });
    assert_eq!(table.networks, ["10.99.0.0/24".parse().unwrap()].into());
    assert_eq!(plane.total(), 2);
    assert!(is_alive(&mut before.0) && is_alive(&mut meanwhile.0));
    assert_eq!(before.0.peer_addr().unwrap(), address(vip));
    drop((before, meanwhile));
    assert_eq!(plane.total(), 0);
    // The adopted service can be changed: the next connection reaches another server.
    let third = tcp_server("127.0.0.1");
    let mut ops = vec![Op::AddServer(vip, third, l4lbd::dataplane::RealServer::masquerade(1))];
    ops.extend(servers.map(|server| Op::DelServer(vip, server)));
    plane.apply(&ops);
    assert_eq!(connect(address(vip)).unwrap().1, third.port());
}

pub fn an_upgrade_in_place() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    plane.apply(&service(vip, &[tcp_server("127.0.0.1")]));
    let pin = plane.options.pins.join("v1/connect4");
    let inode = fs::metadata(&pin).unwrap().ino();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (stream, _) = connect(address(vip)).expect("no connect may fail");
                assert_eq!(stream.peer_addr().unwrap(), address(vip));
            }
        });
        for _ in 0..10 {
            plane.reopen();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::metadata(&pin).unwrap().ino(), inode, "the link is the same");
    assert_eq!(plane.total(), 0);
}

/// A version before these maps counts connections and shows VIPs by the other ones.
pub fn of_a_version_that_has_fewer_maps() {
    let mut plane = Plane::new();
    let (vip, datagrams) = (tcp("10.99.0.1:80"), udp("10.99.0.1:53"));
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    plane.apply(&service(vip, &servers));
    plane.apply(&service(datagrams, &[udp_server("127.0.0.1")]));
    let mut held = connect(address(vip)).unwrap();
    let connected = udp_socket(address(datagrams));
    connected.connect(address(datagrams)).unwrap();
    let table = plane.read();
    for name in ["active", "unconnected", "more", "connected"] {
        fs::remove_file(plane.options.pins.join("v1").join(name)).unwrap();
    }
    // What only looks at it changes nothing.
    assert_eq!(Ebpf::look(&plane.options).unwrap(), table);
    plane.reopen();
    assert_eq!(plane.read(), table);
    assert_eq!(held.0.peer_addr().unwrap(), address(vip));
    assert!(is_alive(&mut held.0));
    ask(&connected).unwrap();
    assert_eq!(connected.peer_addr().unwrap(), address(datagrams));
    let unconnected = udp_socket(address(datagrams));
    assert_eq!(ask_at(&unconnected, address(datagrams)).unwrap().1, address(datagrams));
    plane.apply(&[Op::DelService(vip)]);
    assert!(!is_alive(&mut held.0));
}

/// Earlier versions remember the servers of connected UDP sockets in a map of their own, and have two more.
pub fn of_a_version_that_noted_datagrams_elsewhere() {
    let mut plane = Plane::new();
    let (vip, server) = (udp("10.99.0.1:53"), udp_server("127.0.0.1"));
    plane.apply(&service(vip, &[server]));
    let sockets = [(); 3].map(|()| udp_socket(address(vip)));
    sockets.iter().for_each(|socket| socket.connect(address(vip)).unwrap());
    let directory = plane.options.pins.join("v1");
    let pin = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let bpftool = |line: &[&str]| {
        let output = Command::new("bpftool").args(line).output().expect("bpftool, from tests/setup");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    fs::remove_file(pin("connected")).unwrap();
    let shape = ["type", "lru_hash", "key", "8", "value", "4", "entries"];
    bpftool(
        &[&["map", "create", &pin("datagrams")], shape.as_slice(), &["65536", "name", "datagrams"]].concat(),
    );
    for (unused, entries) in [("overflow", "32768"), ("replies", "65536")] {
        bpftool(&[&["map", "create", &pin(unused)], shape.as_slice(), &[entries, "name", unused]].concat());
    }
    // The first server of all has the id 0.
    for socket in &sockets {
        let cookie: Vec<String> = cookie(socket).to_ne_bytes().iter().map(u8::to_string).collect();
        let cookie: Vec<&str> = cookie.iter().map(String::as_str).collect();
        let pinned = pin("datagrams");
        let update = [&["map", "update", "pinned", &pinned, "key"], cookie.as_slice()].concat();
        bpftool(&[update.as_slice(), &["value", "0", "0", "0", "0"]].concat());
    }
    plane.reopen();
    let [stays, leaves, returns] = &sockets;
    // What these programs see of such a socket is newer.
    leaves.connect(server).unwrap();
    returns.connect(server).unwrap();
    returns.connect(address(vip)).unwrap();
    plane.apply(&[Op::DelServer(vip, server)]);
    for told in [stays, returns] {
        assert_eq!(told.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
    assert_eq!(ask(leaves).unwrap(), server.port());
    // Nothing uses the others any more, and they need not stay in memory.
    assert!(!directory.join("overflow").exists() && !directory.join("replies").exists());
}

/// Returns the number of a socket that programs know it by.
fn cookie(socket: &UdpSocket) -> u64 {
    let (mut cookie, mut size) = (0_u64, size_of::<u64>() as u32);
    // SAFETY: the kernel writes at most `size` bytes.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            nix::libc::SO_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut size,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    cookie
}

pub fn that_were_removed() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    plane.apply(&service(vip, &[tcp_server("127.0.0.1")]));
    for name in ["connect4", "sock_release"] {
        fs::remove_file(plane.options.pins.join("v1").join(name)).unwrap();
        assert_eq!(plane.ebpf.repair().unwrap(), [name]);
        // The kernel detaches the old program a moment after its last descriptor is closed. Until then both run,
        // and the second one sees the server's address, which is not a VIP.
        while connect(address(vip)).unwrap().0.peer_addr().unwrap() != address(vip) {
            thread::yield_now();
        }
        assert_eq!(plane.total(), 0);
    }
    // A map without a pin would be lost with this process.
    let pin = plane.options.pins.join("v1/vips");
    fs::remove_file(&pin).unwrap();
    assert!(plane.ebpf.repair().unwrap().is_empty());
    let table = plane.read();
    plane.reopen();
    assert_eq!(plane.read(), table);
    // With its pin removed and no process that has it open, the map is gone: the next start begins empty.
    fs::remove_file(&pin).unwrap();
    plane.reopen();
    assert!(plane.read().services.is_empty());
    plane.apply(&service(vip, &[tcp_server("127.0.0.1")]));
    connect(address(vip)).unwrap();
}

/// The daemon goes on with what it holds, and pins it again once it can.
pub fn whose_file_system_goes_away() {
    let none: Option<&str> = None;
    let place = tempfile::tempdir().unwrap();
    let mount_bpf = || mount(Some("bpf"), place.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
    mount_bpf();
    let mut plane = Plane::open(Options { pins: place.path().join("pins"), ..options() });
    let vip = tcp("10.99.0.1:80");
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    plane.apply(&service(vip, &servers[..1]));
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let damages: [&dyn Fn(); 3] = [
        &|| fs::remove_dir_all(place.path().join("pins")).unwrap(),
        &|| mount(none, place.path(), none, read_only, none).unwrap(),
        &|| {
            umount2(place.path(), MntFlags::MNT_DETACH).unwrap();
            // A file in the way keeps the daemon from mounting another one.
            fs::write(place.path().join("file"), "").unwrap();
        },
    ];
    let mends: [&dyn Fn(); 3] =
        [&|| (), &|| mount(none, place.path(), none, MsFlags::MS_REMOUNT, none).unwrap(), &|| {
            fs::remove_file(place.path().join("file")).unwrap();
            mount_bpf();
        }];
    for (round, (damage, mend)) in damages.into_iter().zip(mends).enumerate() {
        let [from, to] = [servers[round % 2], servers[(round + 1) % 2]];
        damage();
        assert_eq!(connect(address(vip)).unwrap().1, from.port(), "round {round}");
        plane.ebpf.repair().unwrap();
        let ops = [Op::DelServer(vip, from), Op::AddServer(vip, to, RealServer::masquerade(1))];
        assert!(plane.ebpf.apply(&ops.iter().collect::<Vec<_>>()).is_empty());
        assert_eq!(connect(address(vip)).unwrap().1, to.port(), "round {round}");
        let reported = plane.ebpf.finish_pass(true);
        // The first one is mended by the repair itself.
        assert_eq!(matches!(reported, Err(Error::Unpinned { .. })), round > 0, "round {round}: {reported:?}");
        mend();
        plane.ebpf.repair().unwrap();
        plane.ebpf.finish_pass(true).unwrap();
        let table = plane.read();
        plane.reopen();
        assert_eq!(plane.read(), table);
        assert_eq!(connect(address(vip)).unwrap().1, to.port(), "round {round}");
    }
    drop(plane);
    umount2(place.path(), MntFlags::MNT_DETACH).unwrap();
}

/// `l4lbd plan` reads pins and must not repair them.
pub fn that_are_only_looked_at() {
    let options = options();
    assert_eq!(Ebpf::look(&options).unwrap(), Default::default());
    assert!(!options.pins.exists());

    let mut plane = Plane::open(options);
    let vip = tcp("10.99.0.1:80");
    plane.apply(&service(vip, &[tcp_server("127.0.0.1"), tcp_server("127.0.0.1")]));
    plane.apply(&[Op::AddRoute(Route { destination: "10.99.0.0/24".parse().unwrap(), source: None })]);
    let held = connect(address(vip)).unwrap();
    let link = plane.options.pins.join("v1/connect4");
    fs::remove_file(&link).unwrap();
    let seen = Ebpf::look(&plane.options).unwrap();
    assert_eq!(seen, plane.read());
    assert_eq!(seen.connections.values().map(|count| count.active).sum::<u32>(), 1);
    assert!(!link.exists(), "it was pinned again");

    fs::remove_file(plane.options.pins.join("v1/slots")).unwrap();
    assert_eq!(Ebpf::look(&plane.options).unwrap(), Default::default());
    drop(held);
}

pub fn that_are_not_ours() {
    let plane = Plane::new();
    let directory = plane.options.pins.join("v1");
    for (ours, theirs) in
        [("vips", "slots"), ("connect4", "connect6"), ("connect4", "vips"), ("counts", "connect6")]
    {
        let (ours, theirs, aside) = (directory.join(ours), directory.join(theirs), directory.join("aside"));
        fs::rename(&ours, &aside).unwrap();
        fs::rename(&theirs, &ours).unwrap();
        let error = Ebpf::open(&plane.options).unwrap_err();
        assert!(matches!(&error, Error::Foreign(path) if *path == ours), "{error}");
        fs::rename(&ours, &theirs).unwrap();
        fs::rename(&aside, &ours).unwrap();
    }
    Ebpf::open(&plane.options).unwrap();
}

pub fn of_a_cgroup_that_was_removed() {
    let inner = place::cgroup().join("inner");
    fs::create_dir(&inner).unwrap();
    let mut plane = Plane::open(Options { cgroup: Some(inner.clone()), ..options() });
    plane.apply(&service(tcp("10.99.0.1:80"), &[tcp_server("127.0.0.1")]));
    let inside = || {
        let mut helper = Helper::start(&["try", "10.99.0.1:80"]);
        place::join(&inner, helper.child.id()).unwrap();
        helper.go_on();
        let answer = helper.line();
        helper.child.wait().unwrap();
        answer
    };
    assert_eq!(inside(), "connected");
    fs::remove_dir(&inner).unwrap();
    fs::create_dir(&inner).unwrap();
    assert_eq!(inside(), "NetworkUnreachable");
    assert!(!plane.ebpf.repair().unwrap().is_empty());
    assert_eq!(inside(), "connected");
    fs::remove_dir(&inner).unwrap();
    fs::create_dir(&inner).unwrap();
    plane.reopen();
    assert_eq!(inside(), "connected");
    drop(plane);
    fs::remove_dir(&inner).unwrap();
}

pub fn another_layout_goes_on_until_ours_is_filled() {
    let mut plane = Plane::new();
    let vip = tcp("10.99.0.1:80");
    let servers = [tcp_server("127.0.0.1"), tcp_server("127.0.0.1")];
    plane.apply(&service(vip, &servers[..1]));
    let mut held = connect(address(vip)).unwrap();
    // Pins in another layout's directory count as that layout's, whatever they are.
    let (ours, other) = (plane.options.pins.join("v1"), plane.options.pins.join("v0"));
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(&ours).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), other.join(entry.file_name())).unwrap();
    }
    plane.reopen();
    assert!(plane.read().services.is_empty());
    assert_eq!(connect(address(vip)).unwrap().1, servers[0].port());
    // A pass may take several calls until all services are in the maps.
    let ops = service(vip, &servers[1..]);
    assert!(plane.ebpf.apply(&ops.iter().collect::<Vec<_>>()).is_empty());
    plane.ebpf.finish_pass(false).unwrap();
    assert!(other.exists(), "the other programs may be the only ones that know a service");
    plane.ebpf.finish_pass(true).unwrap();
    assert!(!other.exists());
    assert_eq!(connect(address(vip)).unwrap().1, servers[1].port());
    assert!(is_alive(&mut held.0));
}

/// The directory may be the root of the BPF file system, where other tools pin as well.
pub fn beside_those_of_others() {
    let mut plane = Plane::new();
    let theirs = plane.options.pins.join("theirs");
    fs::create_dir_all(theirs.join("v1")).unwrap();
    plane.reopen();
    plane.apply(&service(tcp("10.99.0.1:80"), &[tcp_server("127.0.0.1")]));
    assert!(theirs.join("v1").exists());
    Ebpf::purge(&plane.options).unwrap();
    assert!(theirs.join("v1").exists() && !plane.options.pins.join("v1").exists());
    fs::remove_dir(theirs.join("v1")).unwrap();
    fs::remove_dir(theirs).unwrap();
}

pub fn a_purge_leaves_nothing() {
    let options = options();
    Ebpf::purge(&options).unwrap();
    let mut plane = Plane::open(options.clone());
    let vip = tcp("10.99.0.1:80");
    plane.apply(&service(vip, &[tcp_server("127.0.0.1")]));
    let mut held = connect(address(vip)).unwrap();
    Ebpf::purge(&options).unwrap();
    assert!(!options.pins.exists());
    assert_eq!(TcpStream::connect(address(vip)).unwrap_err().raw_os_error(), Some(nix::libc::ENETUNREACH));
    assert!(is_alive(&mut held.0));
    drop(plane);
    Ebpf::purge(&options).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let wrong = Options { pins: elsewhere.path().to_owned(), ..options };
    assert!(matches!(Ebpf::purge(&wrong), Err(Error::NotBpf { .. })));
}

pub fn places_that_will_not_do() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("file"), "").unwrap();
    let open = |cgroup: &Path, pins: PathBuf| {
        Ebpf::open(&Options { cgroup: Some(cgroup.to_owned()), pins, ..options() }).unwrap_err().to_string()
    };
    let text = open(place::cgroup(), elsewhere.path().join("pins"));
    assert!(text.contains("not on a BPF file system"), "{text}");
    let text = open(elsewhere.path(), options().pins);
    assert!(text.contains("not in a cgroup v2 tree"), "{text}");
    let text = open(&place::cgroup().join("absent"), options().pins);
    assert!(text.contains("cannot open the cgroup"), "{text}");
    // On an empty directory a BPF file system is mounted.
    let empty = tempfile::tempdir().unwrap();
    let options = Options { pins: empty.path().join("pins"), ..options() };
    drop(Plane::open(options));
    nix::mount::umount(empty.path()).unwrap();
}

pub fn an_exclusive_program_of_somebody_else() {
    let inner = place::cgroup().join("exclusive");
    fs::create_dir(&inner).unwrap();
    theirs::attach(&inner);
    let error = Ebpf::open(&Options { cgroup: Some(inner.clone()), ..options() }).unwrap_err();
    assert!(matches!(error, Error::Exclusive { .. }), "{error}");
    assert!(error.to_string().contains("another tool"), "{error}");
    fs::remove_dir(&inner).unwrap();
}

/// Program of another tool, attached exclusively.
mod theirs {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::path::Path;

    use aya::programs::CgroupSockAddr;
    use nix::libc;

    /// `BPF_PROG_ATTACH` and the attach type of connect4. aya attaches by links only, which are never exclusive.
    const ATTACH: libc::c_int = 8;
    const CONNECT4: u32 = 10;

    pub fn attach(cgroup: &Path) {
        // Without bpf_set_retval, which kernels before 5.18 lack.
        let mut loader = aya::EbpfLoader::new();
        let mut programs =
            loader.override_global("has_set_retval", &0_u32, true).load(crate::OBJECT).unwrap();
        let program: &mut CgroupSockAddr = programs.program_mut("connect4").unwrap().try_into().unwrap();
        program.load().unwrap();
        let cgroup = File::open(cgroup).unwrap();
        let program = program.fd().unwrap().as_fd().as_raw_fd();
        let attributes = [cgroup.as_raw_fd().unsigned_abs(), program.unsigned_abs(), CONNECT4, 0];
        // SAFETY: the kernel reads as many bytes as the size says.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, ATTACH, attributes.as_ptr(), size_of_val(&attributes)) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}
