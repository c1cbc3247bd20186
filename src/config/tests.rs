use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("l4lbd.toml"), text)
}

/// Defaults that operators rely on: an upgrade must not change one by accident.
const DEFAULTS: &[(&str, &str)] = &[
    ("dataplane", r#""auto""#),
    ("source.masters", r#"["http://leader.mesos:5050"]"#),
    ("source.mode", r#""poll""#),
    ("source.interval", r#""2s""#),
    ("source.resync", r#""1m""#),
    ("source.agent", r#""http://127.0.0.1:5051""#),
    ("source.timeout", r#""30s""#),
    ("source.max_backoff", r#""30s""#),
    ("source.failover_hold", r#""15m""#),
    ("source.mass_loss_polls", "5"),
    ("source.budget", r#""50MB""#),
    ("source.basic", ""),
    ("source.token", ""),
    ("source.token_scheme", r#""bearer""#),
    ("source.service_account", ""),
    ("source.tls_ca", ""),
    ("source.tls_cert", ""),
    ("source.tls_key", ""),
    ("marathon.urls", "[]"),
    ("marathon.interval", r#""10s""#),
    ("marathon.basic", ""),
    ("marathon.token", ""),
    ("marathon.token_scheme", r#""bearer""#),
    ("marathon.service_account", ""),
    ("node.address", ""),
    ("node.address6", ""),
    ("vips.range4", r#""11.0.0.0-11.255.255.255""#),
    ("vips.range6", r#""fd01:c::-fd01:c::ffff:ffff:ffff:ffff""#),
    ("vips.ipv6", "true"),
    ("vips.linger", r#""10m""#),
    ("vips.max", "32768"),
    ("vips.allow", "[]"),
    ("vips.deny", "[]"),
    ("ipvs.link", r#""minuteman""#),
    ("ipvs.scheduler", r#""wlc""#),
    ("ipvs.audit", r#""30s""#),
    ("ipvs.drain", r#""60s""#),
    ("ipvs.tcp_timeout", r#""24h""#),
    ("ipvs.tcp_fin_timeout", r#""2m""#),
    ("ipvs.udp_timeout", r#""1m""#),
    ("ebpf.cgroup", ""),
    ("ebpf.pins", r#""/sys/fs/bpf/l4lbd""#),
    ("dns.listen", r#"["198.51.100.1:53"]"#),
    ("dns.zone", r#""l4lb.thisdcos.directory""#),
    ("dns.aliases", r#"["dclb.thisdcos.directory", "l4lb.thisdcos.global", "dclb.thisdcos.global"]"#),
    ("dns.tasks", "true"),
    ("dns.mesos", r#""state""#),
    ("dns.forward", r#""off""#),
    ("dns.clients", r#"["node"]"#),
    ("dns.resolved", r#""auto""#),
    ("dns.ttl", r#""5s""#),
    ("daemon.state_dir", r#""/var/lib/l4lbd""#),
    ("daemon.socket", r#""/run/l4lbd/l4lbd.sock""#),
];

/// The sample file with every key uncommented.
fn sample() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/l4lbd.toml");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line)).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

#[test]
fn the_defaults_are_valid_and_those_that_are_documented() {
    assert_eq!(parse("").unwrap(), Config::default());
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        let config = parse(&format!("{} = {}\n", key.path, key.default));
        assert_eq!(config.unwrap(), Config::default(), "{}", key.path);
    }
}

#[test]
fn no_default_changes_by_accident() {
    let defaults: Vec<(&str, &str)> = KEYS.iter().map(|key| (key.path, key.default)).collect();
    assert_eq!(defaults, DEFAULTS);
}

#[test]
fn the_sample_documents_every_key_with_its_default() {
    // What excludes others can't be in one file with them.
    let text = sample();
    let lines =
        text.lines().filter(|line| !line.starts_with("token =") && !line.starts_with("service_account ="));
    let mut config = parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert!(config.node.address.is_some() && config.node.address6.is_some());
    config.node = Config::default().node;
    assert!(config.source.access.basic.is_some() && config.source.access.tls_key.is_some());
    config.source.access = Access::default();
    config.marathon.access = Access::default();
    assert!(config.ebpf.cgroup.take().is_some());
    assert_eq!(config, Config::default());
    let table: toml::Table = toml::from_str(&sample()).unwrap();
    for key in KEYS {
        let found = match key.path.split_once('.') {
            Some((section, name)) => table[section].as_table().unwrap().contains_key(name),
            None => table.contains_key(key.path),
        };
        assert!(found, "{} is missing", key.path);
    }
}

#[test]
fn the_help_names_every_key() {
    let help = reference();
    assert!(KEYS.iter().all(|key| help.contains(key.path) && help.contains(key.help)));
}

#[test]
fn every_error_is_listed_at_once() {
    let text = r#"
        typo = 1
        dataplane = "xdp"
        [source]
        masters = ["zk://user:secret@m1"]
        interval = "fast"
        intervall = "2s"
        budget = "much"
        basic = "user:secret"
        token = "env:TOKEN"
        service_account = "file:/etc/l4lbd/account"
        tls_key = "/etc/l4lbd/key.pem"
        agent = "zk://z1/mesos"
        [marathon]
        urls = ["file:/marathon"]
        basic = "env:A"
        token = "env:B"
        [vips]
        range4 = "11.0.0.9-11.0.0.1"
        range6 = "10.0.0.0-10.0.0.1"
        audit = "1s"
        ipv6 = "yes"
        [ipvs]
        link = "a name that is too long"
        scheduler = "WLC"
        tcp_timeout = "0s"
        [dns]
        zone = "a..b"
        listen = ["11.0.0.5:53"]
    "#;
    let Err(Error::Invalid { problems, .. }) = parse(text) else { panic!("accepted") };
    let expected = [
        "typo: unknown key; keys are in sections",
        "dataplane: unknown variant",
        "source.masters: \"zk://m1\" is neither",
        "source.budget: ",
        "source.basic: a secret must be given by its place",
        "source: only one of basic",
        "source.agent: must be http",
        "marathon.urls: must be http",
        "marathon: only one of basic",
        "source: tls_cert and tls_key",
        "source.interval: \"fast\" is not a time",
        "source.intervall: unknown key",
        "vips.range4: \"11.0.0.9-11.0.0.1\" ends before it starts",
        "vips.range6: must be IPv6",
        "vips.audit: unknown key; did you mean ipvs.audit?",
        "vips.ipv6: ",
        "ipvs.link: must have",
        "ipvs.scheduler: must be",
        "ipvs.tcp_timeout: must be",
        "dns.zone: ",
        "dns.listen: an address is inside of the VIP range",
    ];
    for start in expected {
        assert!(
            problems.iter().any(|problem| problem.starts_with(start)),
            "{start:?} is not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn ranges_that_would_break_the_node_are_refused() {
    for range in [
        "0.0.0.0-255.255.255.255",
        "127.0.0.0-127.0.0.255",
        "169.254.0.0-169.254.255.255",
        "224.0.0.0-224.0.0.9",
    ] {
        assert!(parse(&format!("[vips]\nrange4 = {range:?}")).is_err(), "{range}");
    }
    assert!(parse("[vips]\nrange6 = \"::-::ff\"").is_err());
    assert!(parse("[vips]\nrange4 = \"10.200.0.0-10.200.255.255\"").is_ok());
}

#[test]
fn secrets_are_not_shown() {
    let config = parse("[source]\nmasters = [\"http://user:secret@m1:5050\"]").unwrap();
    assert!(!format!("{config:?}").contains("secret"));
}

/// Otherwise the daemon would ask itself who leads, and be told what it has known before.
#[test]
fn sources_are_not_looked_up_in_our_own_zones() {
    let domains = |text: &str| parse(text).unwrap().resolved().domains;
    let by_name = parse("").unwrap();
    assert!(by_name.mesos_remark().unwrap().contains("source.masters has leader.mesos in it"));
    let by_address = "[source]\nmasters = [\"http://10.0.0.1:5050\"]\n";
    assert_eq!(parse(by_address).unwrap().mesos_remark(), None);
    for (text, answered) in [
        (String::new(), false),
        (by_address.to_owned(), true),
        ("[source]\nmasters = [\"zk://z1:2181/mesos\"]".to_owned(), true),
        (format!("{by_address}[marathon]\nurls = [\"http://marathon.MESOS.:8080\"]"), false),
        (format!("{by_address}[dns]\ntasks = false"), false),
        ("[dns]\nmesos = [\"10.0.0.3\"]".to_owned(), true),
    ] {
        assert_eq!(domains(&text).contains("mesos"), answered, "{text}");
    }
    let error = parse("[source]\nmasters = [\"http://leader.mesos.thisdcos.directory:5050\"]").unwrap_err();
    assert!(
        error.to_string().contains("source.masters: leader.mesos.thisdcos.directory is a name"),
        "{error}"
    );
}
