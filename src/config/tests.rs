use std::collections::BTreeSet;

use super::*;
use crate::source::Location;

fn load(text: &str) -> Result<Loaded, Error> {
    Loaded::parse(Path::new("l4lbd.toml"), text)
}

fn parse(text: &str) -> Result<Config, Error> {
    load(text).map(|loaded| loaded.config)
}

/// Returns what is wrong with a text.
fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Err(Error::Invalid { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

/// Asserts that a text is refused for these reasons and no other; each is the start of a problem.
fn assert_problems(text: &str, expected: &[&str]) {
    let problems = problems(text);
    for start in expected {
        assert!(
            problems.iter().any(|problem| problem.starts_with(start)),
            "{start:?} is not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

/// Defaults that operators rely on: an upgrade must not change one by accident.
const DEFAULTS: &[(&str, &str)] = &[
    ("source.masters", r#"["http://leader.mesos:5050"]"#),
    ("source.mode", r#""poll""#),
    ("source.interval", r#""2s""#),
    ("source.resync", r#""1m""#),
    ("source.agent", r#""http://127.0.0.1:5051""#),
    ("source.redirects", "[]"),
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
    ("vips.literals_in_range", ""),
    ("vips.shared", r#""warn""#),
    ("vips.ports", r#""any""#),
    ("dataplane.kind", r#""auto""#),
    ("dataplane.link", r#""minuteman""#),
    ("dataplane.audit", r#""30s""#),
    ("dataplane.drain", r#""60s""#),
    ("dataplane.udp_timeout", r#""1m""#),
    ("balance.eject_after", "3"),
    ("balance.eject_time", r#""1s""#),
    ("balance.eject_limit", r#""30s""#),
    ("ipvs.scheduler", r#""wlc""#),
    ("ipvs.tcp_timeout", r#""24h""#),
    ("ipvs.tcp_fin_timeout", r#""2m""#),
    ("ipvs.denied", "[]"),
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
    ("http.listen", ""),
    ("http.hosts", "[]"),
    ("http.token", ""),
    ("http.backends", "1000"),
    ("daemon.state_dir", r#""/var/lib/l4lbd""#),
    ("daemon.socket", r#""/run/l4lbd/l4lbd.sock""#),
    ("daemon.events", r#""2MB""#),
    ("daemon.log", r#""info""#),
];

/// Path of the sample file.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/l4lbd.toml");

/// The sample file with every key uncommented.
fn uncommented_sample() -> String {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    reference::sample().lines().map(uncommented).collect()
}

#[test]
fn other_machines_need_a_token() {
    for listen in ["0.0.0.0:62080", "10.0.0.1:62080", "[::]:62080"] {
        let text = format!("[http]\nlisten = \"{listen}\"\n");
        assert_problems(
            &text,
            &[&format!("http.listen: other machines reach {listen}, so that clients need a token")],
        );
        assert!(parse(&format!("{text}token = \"file:/etc/token\"\n")).is_ok());
    }
    for listen in ["127.0.0.1:62080", "[::1]:62080", "127.0.0.9:0"] {
        assert!(parse(&format!("[http]\nlisten = \"{listen}\"\n")).is_ok());
    }
    for host in ["", "node7:62080", "http://node7"] {
        assert_problems(&format!("[http]\nhosts = [\"{host}\"]\n"), &["http.hosts: "]);
    }
}

#[test]
fn ejections_have_bounds_and_the_first_is_not_the_longest() {
    for (text, problem) in [
        ("eject_time = \"99ms\"", "balance.eject_time: 99ms must be from 100ms to 1h"),
        ("eject_limit = \"2h\"", "balance.eject_limit: 2h must be from 100ms to 1h"),
        ("eject_time = \"1m\"", "balance.eject_limit: 30s must be at least balance.eject_time, which is 1m"),
    ] {
        assert_problems(&format!("[balance]\n{text}\n"), &[problem]);
    }
}

#[test]
fn no_default_changes_by_accident() {
    let keys = reference::keys();
    let defaults: Vec<(String, String)> =
        keys.into_iter().map(|key| (key.path(), key.default.unwrap_or_default())).collect();
    let expected: Vec<(String, String)> =
        DEFAULTS.iter().map(|(key, default)| ((*key).to_owned(), (*default).to_owned())).collect();
    assert_eq!(defaults, expected);
}

#[test]
fn defaults_are_valid_and_those_that_are_documented() {
    let defaults = Config::defaults().unwrap();
    assert_eq!(parse("").unwrap(), defaults);
    for key in reference::keys() {
        let Some(default) = &key.default else { continue };
        assert_eq!(parse(&format!("{} = {default}\n", key.path())).unwrap(), defaults, "{}", key.path());
    }
}

#[test]
fn defaults_have_the_values_that_they_say() {
    let config = Config::defaults().unwrap();
    assert_eq!(config.source.masters, ["http://leader.mesos:5050".parse::<Location>().unwrap()]);
    assert_eq!(config.source.interval.0.as_millis(), 2_000);
    assert_eq!(config.source.failover_hold.0.as_secs(), 15 * 60);
    assert_eq!(config.source.budget.0, 50_000_000);
    assert_eq!(config.dataplane.kind.0, None);
    assert_eq!(config.dataplane.drain.0.as_secs(), 60);
    assert_eq!(config.ipvs.tcp_timeout.as_seconds(), 24 * 60 * 60);
    assert_eq!(config.dns.listen, ["198.51.100.1:53".parse().unwrap()]);
    assert_eq!(config.vips.max, 32_768);
}

#[test]
fn sample_file_is_up_to_date() {
    let sample = reference::sample();
    if std::env::var_os("L4LBD_WRITE").is_some() {
        std::fs::write(SAMPLE, &sample).unwrap();
    }
    let committed = std::fs::read_to_string(SAMPLE).unwrap();
    let differs = committed.lines().zip(sample.lines()).position(|(old, new)| old != new);
    assert!(
        committed == sample,
        "the declaration of a key has changed since systemd/l4lbd.toml was written (first difference in line {}); \
         to write it anew: L4LBD_WRITE=1 cargo test --lib config",
        differs.unwrap_or_else(|| committed.lines().count().min(sample.lines().count())) + 1
    );
}

#[test]
fn sample_file_changes_nothing_as_it_is() {
    assert_eq!(parse(&reference::sample()).unwrap(), Config::defaults().unwrap());
}

#[test]
fn sample_file_has_every_key_with_a_value_that_is_accepted() {
    let sample = uncommented_sample();
    let table: toml::Table = toml::from_str(&sample).unwrap();
    let keys = reference::keys();
    for key in &keys {
        let value = &table[&key.section][&key.name];
        assert_eq!(key.default.is_none(), key.example.is_some(), "{} has neither or both", key.path());
        let text = format!("{} = {value}\n", key.path());
        // A certificate is accepted with its key only.
        if !["source.tls_cert", "source.tls_key"].contains(&key.path().as_str()) {
            let config = parse(&text).unwrap();
            assert_eq!(config == Config::defaults().unwrap(), key.default.is_some(), "{text}");
        }
    }
    let sections: BTreeSet<&str> = keys.iter().map(|key| key.section.as_str()).collect();
    assert_eq!(sections, table.keys().map(String::as_str).collect());
}

#[test]
fn help_stands_alone() {
    for key in reference::keys() {
        let (path, help) = (key.path(), &key.help);
        assert!(help.len() > 20 && help.ends_with('.'), "{path}: {help}");
        assert!(help.starts_with(|first: char| first.is_uppercase()), "{path}: {help}");
        assert!(!help.starts_with("The same") && !help.starts_with("See "), "{path}: {help}");
        // Keys that a help names exist.
        for word in help.split_whitespace().map(|word| word.trim_matches(['.', ',', ':', ';', '(', ')'])) {
            if let Some((section, _)) = word.split_once('.')
                && reference::keys().iter().any(|key| key.section == section)
            {
                assert!(reference::keys().iter().any(|key| key.path() == word), "{path}: {word}");
            }
        }
    }
}

#[test]
fn help_text_has_every_key() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = words(&reference::text());
    for key in reference::keys() {
        assert!(text.contains(&format!(" {} = ", key.path())) && text.contains(&key.help), "{}", key.path());
    }
    assert!(reference::text().lines().all(|line| line.chars().count() <= 120));
}

#[test]
fn every_error_is_listed_at_once() {
    let text = r#"
        typo = 1
        marathon_url = "http://10.0.0.1:8080"
        dataplane = "xdp"
        [source]
        masters = ["zk://user:secret@m1"]
        interval = "fast"
        intervall = "2s"
        timeout = "50ms"
        mass_loss_polls = -1
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
        [node]
        address = "node-1"
        address6 = "192.0.2.10"
        [vips]
        range4 = "11.0.0.9-11.0.0.1"
        range6 = "10.0.0.0-10.0.0.1"
        literals_in_range = "12.0.0.0-12.0.0.1"
        audit = "1s"
        ipv6 = "yes"
        allow = "10.0.0.0/8"
        deny = ["10.0.0.0/8", "10.0.0.1"]
        [ipvs]
        link = "a name that is too long"
        scheduler = "WLC"
        tcp_timeout = "0s"
        [dns]
        zone = "a..b"
        aliases = ["a.b", "c..d", "e..f"]
        listen = ["11.0.0.5:53"]
        forward = ["10.0.0.2", "node-1"]
        mesos = 5
        [logging]
    "#;
    assert_problems(
        text,
        &[
            "typo: unknown key; keys are in sections such as [source]",
            "marathon_url: unknown key; keys are in sections",
            "dataplane: unknown value `xdp`, expected `ipvs` or `ebpf`, or `auto`",
            "source.masters: \"zk://m1\" is neither",
            "source.interval: \"fast\" is not a time such as 2s, 10m or 24h",
            "source.intervall: unknown key; did you mean source.interval?",
            "source.timeout: 50ms must be at least 100ms",
            "source.mass_loss_polls: wrong value: integer `-1`, expected a whole number that is not negative",
            "source.budget: \"much\" is not a number of bytes per second such as 50MB",
            "source.basic: a secret must be given by its place, file:/PATH or env:NAME",
            "source.token, source.service_account: only one of these can be set",
            "source.tls_key: is of no use without source.tls_cert",
            "source.agent: zk://z1:2181/mesos must be http://HOST:PORT or https://HOST:PORT",
            "marathon.urls: file:/marathon must be http://HOST:PORT or https://HOST:PORT",
            "marathon.basic, marathon.token: only one of these can be set",
            "node.address: \"node-1\" is not an IP address such as 192.0.2.10",
            "node.address6: 192.0.2.10 must be an IPv6 address",
            "vips.range4: \"11.0.0.9-11.0.0.1\" ends before it starts",
            "vips.range6: 10.0.0.0-10.0.0.1 must be a range of IPv6 addresses",
            "vips.literals_in_range: 12.0.0.0-12.0.0.1 must be a part of 11.0.0.0-11.255.255.255",
            "vips.audit: unknown key; did you mean dataplane.audit?",
            "vips.ipv6: wrong kind of value: string \"yes\", expected true or false",
            "vips.allow: wrong kind of value: string \"10.0.0.0/8\", expected a list",
            "vips.deny: \"10.0.0.1\" is not a network such as 10.64.0.0/16",
            "ipvs.link: \"a name that is too long\" must have 1 to 15 letters",
            "ipvs.scheduler: \"WLC\" must be the short name of an IPVS scheduler",
            "ipvs.tcp_timeout: 0s must be from 1s to 1000000s",
            "dns.zone: origin `a..b` has an empty label",
            "dns.aliases: origin `c..d` has an empty label",
            "dns.aliases: origin `e..f` has an empty label",
            "dns.listen: 11.0.0.5 is in the range of VIPs, vips.range4 = 11.0.0.0-11.255.255.255",
            "dns.forward: \"node-1\" is not an address such as 10.0.0.2",
            "dns.mesos: wrong kind of value: integer `5`, expected",
            "[logging]: unknown section",
        ],
    );
    let error = parse(text).unwrap_err().to_string();
    assert!(error.lines().all(|line| line.starts_with("l4lbd.toml: ")), "{error}");
    assert!(!error.contains("secret@") && !error.contains("user:secret"), "{error}");
}

#[test]
fn syntax_error_is_shown_with_its_place() {
    let error = parse("[source]\nmasters = [\n").unwrap_err();
    assert!(matches!(error, Error::Syntax { .. }));
    let text = error.to_string();
    assert!(text.starts_with("l4lbd.toml is not TOML: ") && text.contains("line 2"), "{text}");
}

#[test]
fn old_name_of_a_key_is_accepted_with_a_remark() {
    let sources = "[source]\nmasters = [\"http://10.0.0.1:5050\"]\n";
    let old = "dataplane = \"ebpf\"\n[ipvs]\nlink = \"vips\"\naudit = \"5s\"\ndrain = \"7s\"\n";
    let new = "[dataplane]\nkind = \"ebpf\"\nlink = \"vips\"\naudit = \"5s\"\ndrain = \"7s\"\n";
    let (old, new) = (load(&format!("{old}{sources}")).unwrap(), load(&format!("{new}{sources}")).unwrap());
    assert_eq!(old.config, new.config);
    assert_eq!(new.remarks, [""; 0]);
    assert_eq!(
        old.remarks,
        [("ipvs.audit", "audit"), ("ipvs.drain", "drain"), ("dataplane", "kind"), ("ipvs.link", "link")].map(
            |(old, name)| format!(
                "{old} is called dataplane.{name} now: write it as {name} in section [dataplane]; the old name still \
                 works"
            )
        )
    );
}

#[test]
fn errors_of_an_old_name_have_that_name() {
    assert_problems(
        "[ipvs]\nlink = \"\"\naudit = \"1ms\"\ndrain = \"soon\"\n",
        &["ipvs.link: \"\" must have", "ipvs.audit: 1ms must be", "ipvs.drain: \"soon\" is not a time"],
    );
    assert_problems(
        "[dataplane]\nlink = \"\"\naudit = \"1ms\"\ndrain = \"soon\"\n",
        &["dataplane.link: ", "dataplane.audit: ", "dataplane.drain: "],
    );
}

#[test]
fn old_and_present_name_together_are_an_error() {
    assert_problems(
        "[dataplane]\ndrain = \"7s\"\naudit = \"5s\"\n[ipvs]\ndrain = \"7s\"\nlink = \"vips\"\n",
        &["ipvs.drain: is the old name of dataplane.drain, and both are set; remove ipvs.drain"],
    );
}

/// TOML itself refuses a value and a section of one name, with an error that helps nobody here.
#[test]
fn old_key_beside_the_section_of_its_name_is_an_error_of_its_own() {
    for section in ["[dataplane]\nkind = \"ipvs\"", "  [dataplane]", "[source]\n[dataplane]\nlink = \"vips\""]
    {
        let text = format!("#dataplane = \"auto\"\n dataplane = \"auto\"\n{section}\n[dns]\ntll = \"5s\"\n");
        assert_problems(
            &text,
            &["dataplane: is the old name of dataplane.kind", "dns.tll: unknown key; did you mean dns.ttl?"],
        );
    }
    assert!(matches!(parse("dataplane = \"auto\"\n[source\n"), Err(Error::Syntax { .. })));
    assert!(matches!(parse("dataplane = \"auto\"\n[dns]\n[dns]\n"), Err(Error::Syntax { .. })));
}

#[test]
fn section_without_brackets_is_explained() {
    assert_problems(
        "source = \"http://10.0.0.1:5050\"",
        &["source: is a section and has no value; write [source]"],
    );
}

#[test]
fn source_is_needed_and_marathon_or_an_agent_will_do() {
    assert_problems("source.masters = []", &["source.masters: is empty, and there is no other source"]);
    for other in ["source.mode = \"agent\"", "marathon.urls = [\"http://10.0.0.1:8080\"]"] {
        assert!(parse(&format!("source.masters = []\n{other}")).is_ok(), "{other}");
    }
}

#[test]
fn file_is_the_only_master() {
    assert!(parse("source.masters = [\"file:/state.json\"]").is_ok());
    assert_problems(
        "source.masters = [\"http://10.0.0.1:5050\", \"file:/state.json\"]",
        &["source.masters: file:/state.json must be the only entry"],
    );
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
fn values_that_would_not_do_what_they_say_are_refused() {
    assert_problems(
        r#"
        [source]
        masters = ["file:state.json"]
        [node]
        address = "127.0.0.1"
        address6 = "fe80::1"
        [vips]
        max = 0
        [ipvs]
        scheduler = "foo"
        [dns]
        ttl = "500ms"
        [daemon]
        state_dir = "state"
        socket = "l4lbd.sock"
        "#,
        &[
            "source.masters: the path \"state.json\" must start with /",
            "node.address: 127.0.0.1 is a loopback address, from which no other node can be reached",
            "node.address6: fe80::1 is a link-local address",
            "vips.max: 0 leaves no VIP at all; it must be at least 1",
            "ipvs.scheduler: \"foo\" must be the short name of an IPVS scheduler, one of rr, wrr,",
            "dns.ttl: 500ms must be a whole number of seconds, at least 1s",
            "daemon.state_dir: the path \"state\" must start with /",
            "daemon.socket: the path \"l4lbd.sock\" must start with /",
        ],
    );
    for ttl in ["0s", "1500ms"] {
        assert_problems(&format!("dns.ttl = {ttl:?}"), &["dns.ttl: "]);
    }
    assert!(parse("dns.ttl = \"1s\"").is_ok());
}

#[test]
fn listener_on_all_addresses_is_remarked_on() {
    let remarks = load("dns.listen = [\"0.0.0.0:53\", \"198.51.100.1:53\"]").unwrap().remarks;
    let of_listeners: Vec<&String> = remarks.iter().filter(|remark| remark.contains("dns.listen")).collect();
    let [remark] = of_listeners.as_slice() else { panic!("{remarks:?}") };
    assert!(remark.contains("0.0.0.0:53") && remark.ends_with("give single addresses"), "{remark}");
}

#[test]
fn one_cause_has_one_error() {
    assert_problems(
        "vips.range6 = \"127.0.0.0-127.0.0.1\"",
        &["vips.range6: 127.0.0.0-127.0.0.1 must be a range of IPv6 addresses"],
    );
    assert_problems(
        "vips.literals_in_range = \"11.0.0.0-11.255.255.255\"",
        &["vips.literals_in_range: 11.0.0.0-11.255.255.255 is all of vips.range4 and leaves no address"],
    );
}

#[test]
fn wrong_kinds_of_values_are_answered_with_an_example() {
    assert_problems(
        "[source]\ninterval = 2\nbudget = 5\nmasters = [\"10.0.0.1:5050\"]\n",
        &[
            "source.interval: wrong kind of value: integer `2`, expected a time in quotes, such as \"2s\"",
            "source.budget: wrong kind of value: integer `5`, expected a rate in quotes, such as \"50MB\"",
            "source.masters: \"10.0.0.1:5050\" is neither http://HOST:PORT, https://HOST:PORT",
        ],
    );
}

#[test]
fn errors_come_in_the_order_of_the_file() {
    let text = "typo = 1\n[vips]\nmax = 0\n[ipvs]\nscheduler = \"foo\"\naudit = \"1ms\"\n[logging]\n[dns]\n\
                ttl = \"0s\"\nforward = [\"x\"]\n[source]\nintervall = 1\ntls_cert = \"/c\"\ntimeout = \"1ms\"\n";
    let keys: Vec<String> =
        problems(text).iter().map(|problem| problem.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(
        keys,
        [
            "typo",
            "vips.max",
            "ipvs.scheduler",
            "ipvs.audit",
            "[logging]",
            "dns.ttl",
            "dns.forward",
            "source.intervall",
            "source.tls_cert",
            "source.timeout"
        ]
    );
}

#[test]
fn secrets_are_not_shown() {
    let config = parse("[source]\nmasters = [\"http://user:secret@m1:5050\"]").unwrap();
    assert!(!format!("{config:?}").contains("secret"));
}

/// Otherwise the daemon would ask itself who leads, and be told what it has known before.
#[test]
fn sources_are_not_looked_up_in_our_own_zones() {
    let by_name = load("").unwrap();
    assert!(!by_name.config.serves_mesos());
    let [remark] = by_name.remarks.as_slice() else { panic!("{by_name:?}") };
    assert!(remark.starts_with("note: with source.masters = leader.mesos it is usual"), "{remark}");
    let by_address = load("[source]\nmasters = [\"http://10.0.0.1:5050\"]\n").unwrap();
    assert!(by_address.config.serves_mesos() && by_address.remarks.is_empty());
    assert_problems(
        "[source]\nmasters = [\"http://leader.mesos.thisdcos.directory:5050\"]",
        &["source.masters: leader.mesos.thisdcos.directory is a name"],
    );
}

#[test]
fn levels_of_the_log_are_read_by_module() {
    let would_log = |text: &str, module: &str, level| levels(text).unwrap().would_enable(module, &level);
    use tracing::Level;
    assert!(would_log("info, l4lbd::dns=debug", "l4lbd::dns::server", Level::DEBUG));
    assert!(!would_log("info, l4lbd::dns=debug", "l4lbd::source", Level::DEBUG));
    assert!(would_log("l4lbd::dns", "l4lbd::dns", Level::TRACE));
    assert!(!would_log("off", "l4lbd", Level::ERROR));
    // The later of two for one module counts, so that a default can be given before.
    assert!(would_log("zookeeper_client=warn,zookeeper_client=debug", "zookeeper_client", Level::DEBUG));
    for text in ["", " , ", "verbose", "info,debgu", "l4lbd=loud", "[span]=info"] {
        assert!(levels(text).is_none(), "{text}");
    }
}
