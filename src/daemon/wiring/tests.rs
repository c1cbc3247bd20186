use std::path::Path;

use super::*;

fn config(text: &str) -> Config {
    Config::parse(Path::new("l4lbd.toml"), text).unwrap()
}

#[test]
fn resolved_is_told_of_the_zone_mesos_only_if_it_is_served() {
    let by_address = "[source]\nmasters = [\"http://10.0.0.1:5050\"]\n";
    for (text, served) in [
        (String::new(), false),
        (by_address.to_owned(), true),
        ("[source]\nmasters = [\"zk://z1:2181/mesos\"]".to_owned(), true),
        (format!("{by_address}[marathon]\nurls = [\"http://marathon.MESOS.:8080\"]"), false),
        (format!("{by_address}[dns]\ntasks = false"), false),
        ("[dns]\nmesos = [\"10.0.0.3\"]".to_owned(), true),
    ] {
        assert_eq!(resolved(&config(&text)).domains.contains("mesos"), served, "{text}");
    }
}

#[test]
fn resolved_is_told_of_zones_that_others_do_not_cover() {
    let text = "[dns]\nzone = \"vips.Example.\"\n[vips]\nrange4 = \"11.0.0.0-11.0.0.255\"\nrange6 = \"fd01:c::-fd01:c::ffff\"\n\
                [dataplane]\nlink = \"vips\"";
    let settings = resolved(&config(text));
    assert_eq!(settings.link, "vips");
    let expected = [
        "0.0.11.in-addr.arpa",
        "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.0.0.0.1.0.d.f.ip6.arpa",
        "thisdcos.directory",
        "thisdcos.global",
        "vips.example",
    ];
    assert_eq!(settings.domains, BTreeSet::from(expected.map(str::to_owned)));
}

#[test]
fn kernel_is_opened_as_configured_by_present_and_old_names() {
    for text in [
        "dataplane = \"ebpf\"\n[ipvs]\nlink = \"vips\"\nudp_timeout = \"30s\"\n",
        "[dataplane]\nkind = \"ebpf\"\nlink = \"vips\"\nudp_timeout = \"30s\"\n",
    ] {
        let options = kernel(&config(&format!(
            "{text}[ebpf]\ncgroup = \"/c\"\npins = \"/p\"\n\
             [balance]\neject_after = 5\neject_time = \"2s\"\neject_limit = \"1m\"\n"
        )));
        assert_eq!(
            (options.plane, options.link.as_str()),
            (Some(crate::dataplane::PlaneKind::Ebpf), "vips"),
            "{text}"
        );
        let udp_timeout = std::time::Duration::from_secs(30);
        let [time, limit] = [2, 60].map(std::time::Duration::from_secs);
        let ejection = ebpf::Ejection { after: 5, time, limit };
        assert_eq!(
            options.ebpf,
            ebpf::Options { cgroup: Some("/c".into()), pins: "/p".into(), udp_timeout, ejection }
        );
        assert_eq!(options.access, Access::Program);
    }
}

#[test]
fn listeners_on_the_link_are_no_loopback_addresses() {
    let text = "[dns]\nlisten = [\"127.0.0.1:53\", \"0.0.0.0:53\", \"198.51.100.1:53\", \"[::1]:53\"]";
    assert_eq!(desired(&config(text)).listeners, BTreeSet::from([IpAddr::from([198, 51, 100, 1])]));
}

#[test]
fn masters_that_are_given_by_address_are_no_literal_vips() {
    let text = "[source]\nmasters = [\"http://10.0.0.1:5050\", \"http://[2001:db8::1]:5050\", \"zk://10.0.0.9/mesos\", \
                \"http://master:5050\"]";
    let expected: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap()];
    assert_eq!(catalog_settings(&config(text)).masters, expected);
    let infrastructure = label_policy(&config(text)).infrastructure;
    assert!(expected.iter().all(|master| infrastructure.contains_key(master)), "{infrastructure:?}");
}

#[test]
fn origins_are_the_servers_that_are_asked_without_passwords() {
    let text = "[source]\nmode = \"agent\"\nmasters = [\"http://user:secret@m1:5050\"]\n[marathon]\nurls = \
                [\"http://10.0.0.1:8080\"]";
    let expected = ["http://127.0.0.1:5051", "http://m1:5050", "http://10.0.0.1:8080"];
    assert_eq!(origins(&config(text)), expected);
}

#[test]
fn servers_that_are_configured_by_address_are_infrastructure() {
    let text = "[source]\nmasters = [\"zk://10.7.0.1:2181,[fd00::1]:2181,z3:2181/mesos\", \"http://10.7.0.2:5050\"]\n\
                [marathon]\nurls = [\"http://[fd00::2]:8080\", \"http://marathon:8080\"]\n\
                [dns]\nforward = [\"10.7.0.3\"]\nmesos = [\"10.7.0.5:8053\"]\n";
    let found = label_policy(&config(text)).infrastructure;
    let addresses: Vec<String> = found.keys().map(IpAddr::to_string).collect();
    let expected = ["10.7.0.1", "10.7.0.2", "10.7.0.3", "10.7.0.5", "127.0.0.1", "fd00::1", "fd00::2"];
    assert_eq!(addresses, expected);
    assert_eq!(found[&IpAddr::from([10, 7, 0, 1])], "the address of a ZooKeeper server");
}

#[test]
fn what_tenants_may_do_to_each_other_is_configured() {
    use crate::vip::settings::{BackendPorts, SharedVips};
    let policy = label_policy(&config("[vips]\nshared = \"refuse\"\nports = \"allocated\""));
    assert_eq!((policy.shared, policy.ports), (SharedVips::Refuse, BackendPorts::Allocated));
}
