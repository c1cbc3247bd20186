//! Every key of the file: name, default, help, and where its value goes.

use serde::de::DeserializeOwned;

use super::Config;

/// One key of the file.
pub struct Key {
    /// Section and name, such as `source.masters`, or a name alone.
    pub path: &'static str,
    /// The default in TOML, or empty where there is none.
    pub default: &'static str,
    pub help: &'static str,
    pub(super) set: fn(&mut Config, toml::Value) -> Result<(), toml::de::Error>,
}

/// Every key, in the order of the sample file.
pub const KEYS: &[Key] = &[
    Key {
        path: "dataplane",
        default: r#""auto""#,
        help: "What spreads connections over backends: ipvs (the kernel's load balancer), ebpf (programs that change \
               where sockets connect to, for kernels without IPVS), or auto for ipvs where the kernel has it and \
               ebpf elsewhere",
        set: |c, v| {
            c.dataplane = if v.as_str() == Some("auto") { None } else { Some(v.try_into()?) };
            Ok(())
        },
    },
    Key {
        path: "source.masters",
        default: r#"["http://leader.mesos:5050"]"#,
        help: "Mesos masters to ask in turn (http:// or https://), where they elect their leader \
               (zk://[USER:PASSWORD@]HOST:PORT,.../PATH), or both; or a single file:/PATH to read a state document \
               from disk",
        set: |c, v| put(&mut c.source.masters, v),
    },
    Key {
        path: "source.mode",
        default: r#""poll""#,
        help: "How masters are asked: poll (the state document, every source.interval) or stream (the events of the \
               v1 operator API, for which a master has room for few: use it on some nodes, not on hundreds) or agent \
               (source.agent for its own tasks, and masters every source.resync for all others, or none at all)",
        set: |c, v| put(&mut c.source.mode, v),
    },
    Key {
        path: "source.interval",
        default: r#""2s""#,
        help: "Shortest time between two questions, give or take a fifth; source.budget may make it longer",
        set: |c, v| put(&mut c.source.interval, v),
    },
    Key {
        path: "source.resync",
        default: r#""1m""#,
        help: "In the modes stream and agent: time between two questions for the whole state; source.budget may make \
               it longer",
        set: |c, v| put(&mut c.source.resync, v),
    },
    Key {
        path: "source.agent",
        default: r#""http://127.0.0.1:5051""#,
        help: "In the mode agent: this node's own agent",
        set: |c, v| put(&mut c.source.agent, v),
    },
    Key {
        path: "source.timeout",
        default: r#""30s""#,
        help: "Longest time that a master may take for a whole answer",
        set: |c, v| put(&mut c.source.timeout, v),
    },
    Key {
        path: "source.max_backoff",
        default: r#""30s""#,
        help: "Longest pause after errors",
        set: |c, v| put(&mut c.source.max_backoff, v),
    },
    Key {
        path: "source.failover_hold",
        default: r#""15m""#,
        help: "After a master fail-over, how long backends are kept on agents that have not registered again",
        set: |c, v| put(&mut c.source.failover_hold, v),
    },
    Key {
        path: "source.mass_loss_polls",
        default: "5",
        help: "How many documents in a row must agree that more than half of all tasks vanished without a \
               trace before that is believed; 0 believes it at once",
        set: |c, v| put(&mut c.source.mass_loss_polls, v),
    },
    Key {
        path: "source.budget",
        default: r#""50MB""#,
        help: "Bytes per second that masters may have to send to all nodes of the cluster together; with many \
               agents and large documents each node asks less often",
        set: |c, v| put(&mut c.source.budget, v),
    },
    Key {
        path: "source.basic",
        default: "",
        help: "Where USER:PASSWORD for masters is kept, file:/PATH or env:NAME; read again for every question. At \
               most one of basic, token and service_account; a user in a master's URL has precedence",
        set: |c, v| put_some(&mut c.source.access.basic, v),
    },
    Key {
        path: "source.token",
        default: "",
        help: "The same for a token",
        set: |c, v| put_some(&mut c.source.access.token, v),
    },
    Key {
        path: "source.token_scheme",
        default: r#""bearer""#,
        help: "How a token is sent: bearer (Authorization: Bearer TOKEN) or token (Authorization: token=TOKEN, as \
               DC/OS has it)",
        set: |c, v| put(&mut c.source.access.token_scheme, v),
    },
    Key {
        path: "source.service_account",
        default: "",
        help: "The same for the secret of a DC/OS service account: JSON with uid, private_key and login_endpoint",
        set: |c, v| put_some(&mut c.source.access.service_account, v),
    },
    Key {
        path: "source.tls_ca",
        default: "",
        help: "Authorities of the servers' certificates (PEM), instead of the system's; masters found through \
               ZooKeeper are asked by https where this is set",
        set: |c, v| put_some(&mut c.source.access.tls_ca, v),
    },
    Key {
        path: "source.tls_cert",
        default: "",
        help: "This client's certificate with its chain (PEM), for servers that want one",
        set: |c, v| put_some(&mut c.source.access.tls_cert, v),
    },
    Key {
        path: "source.tls_key",
        default: "",
        help: "Its private key (PEM)",
        set: |c, v| put_some(&mut c.source.access.tls_key, v),
    },
    Key {
        path: "marathon.urls",
        default: "[]",
        help: "Marathons of the cluster, of which any that answers will do. They add their own health and readiness \
               checks to tasks of Mesos; with source.masters = [] they are the only source",
        set: |c, v| put(&mut c.marathon.urls, v),
    },
    Key {
        path: "marathon.interval",
        default: r#""10s""#,
        help: "Longest time between two questions; Marathon's events make it shorter",
        set: |c, v| put(&mut c.marathon.interval, v),
    },
    Key {
        path: "marathon.basic",
        default: "",
        help: "Credentials for Marathon, as in [source]; the TLS settings there hold for Marathon as well",
        set: |c, v| put_some(&mut c.marathon.access.basic, v),
    },
    Key {
        path: "marathon.token",
        default: "",
        help: "See source.token",
        set: |c, v| put_some(&mut c.marathon.access.token, v),
    },
    Key {
        path: "marathon.token_scheme",
        default: r#""bearer""#,
        help: "See source.token_scheme",
        set: |c, v| put(&mut c.marathon.access.token_scheme, v),
    },
    Key {
        path: "marathon.service_account",
        default: "",
        help: "See source.service_account",
        set: |c, v| put_some(&mut c.marathon.access.service_account, v),
    },
    Key {
        path: "node.address",
        default: "",
        help: "This node's IPv4 address, which its own clients use towards VIPs; found out by default",
        set: |c, v| put_some(&mut c.node.address, v),
    },
    Key {
        path: "node.address6",
        default: "",
        help: "The same for IPv6",
        set: |c, v| put_some(&mut c.node.address6, v),
    },
    Key {
        path: "vips.range4",
        default: r#""11.0.0.0-11.255.255.255""#,
        help: "IPv4 addresses for named VIPs; must be the same on all nodes, and used for nothing else",
        set: |c, v| put(&mut c.vips.range4, v),
    },
    Key {
        path: "vips.range6",
        default: r#""fd01:c::-fd01:c::ffff:ffff:ffff:ffff""#,
        help: "IPv6 addresses for named VIPs",
        set: |c, v| put(&mut c.vips.range6, v),
    },
    Key {
        path: "vips.ipv6",
        default: "true",
        help: "Whether IPv6 addresses of tasks become backends",
        set: |c, v| put(&mut c.vips.ipv6, v),
    },
    Key {
        path: "vips.linger",
        default: r#""10m""#,
        help: "How long a VIP without any task keeps its address and refuses connections",
        set: |c, v| put(&mut c.vips.linger, v),
    },
    Key {
        path: "vips.max",
        default: "32768",
        help: "Most VIPs that are programmed; new ones beyond that are left out, with an alarm",
        set: |c, v| put(&mut c.vips.max, v),
    },
    Key {
        path: "vips.allow",
        default: "[]",
        help: "The only networks, such as 10.64.0.0/16, in which labels may ask for addresses of their own; [] is \
               everywhere but at addresses that belong to somebody: this node, an agent, a master, a router, a \
               nameserver, loopback, link-local, multicast",
        set: |c, v| put(&mut c.vips.allow, v),
    },
    Key {
        path: "vips.deny",
        default: "[]",
        help: "Networks in which they may not",
        set: |c, v| put(&mut c.vips.deny, v),
    },
    Key {
        path: "ipvs.link",
        default: r#""minuteman""#,
        help: "Name of the dummy link that VIPs are routed to; created if missing",
        set: |c, v| put(&mut c.ipvs.link, v),
    },
    Key {
        path: "ipvs.scheduler",
        default: r#""wlc""#,
        help: "IPVS scheduler of every VIP, such as wlc, rr or mh",
        set: |c, v| put(&mut c.ipvs.scheduler, v),
    },
    Key {
        path: "ipvs.audit",
        default: r#""30s""#,
        help: "How often the kernel is compared with what it should hold when nothing else happens",
        set: |c, v| put(&mut c.ipvs.audit, v),
    },
    Key {
        path: "ipvs.drain",
        default: r#""60s""#,
        help: "How long the connections of a task that has gone are kept at most, before they are reset; the label \
               L4LB_DRAIN beside VIP_N says otherwise for one port",
        set: |c, v| put(&mut c.ipvs.drain, v),
    },
    Key {
        path: "ipvs.tcp_timeout",
        default: r#""24h""#,
        help: "After which time without a packet a TCP connection is forgotten; each one takes about 300 bytes \
               of kernel memory until then",
        set: |c, v| put(&mut c.ipvs.tcp_timeout, v),
    },
    Key {
        path: "ipvs.tcp_fin_timeout",
        default: r#""2m""#,
        help: "The same after a FIN",
        set: |c, v| put(&mut c.ipvs.tcp_fin_timeout, v),
    },
    Key {
        path: "ipvs.udp_timeout",
        default: r#""1m""#,
        help: "The same for UDP",
        set: |c, v| put(&mut c.ipvs.udp_timeout, v),
    },
    Key {
        path: "ebpf.cgroup",
        default: "",
        help: "Directory of the cgroup (version 2) whose processes reach VIPs, where that is not to be every process \
               of the node",
        set: |c, v| put_some(&mut c.ebpf.cgroup, v),
    },
    Key {
        path: "ebpf.pins",
        default: r#""/sys/fs/bpf/l4lbd""#,
        help: "Directory on a BPF file system in which programs and tables outlive the daemon",
        set: |c, v| put(&mut c.ebpf.pins, v),
    },
    Key {
        path: "dns.listen",
        default: r#"["198.51.100.1:53"]"#,
        help: "Addresses of the DNS server; those that the node does not have are put on our link. [] switches \
               it off",
        set: |c, v| put(&mut c.dns.listen, v),
    },
    Key {
        path: "dns.zone",
        default: r#""l4lb.thisdcos.directory""#,
        help: "Zone of the VIPs' names",
        set: |c, v| put(&mut c.dns.zone, v),
    },
    Key {
        path: "dns.aliases",
        default: r#"["dclb.thisdcos.directory", "l4lb.thisdcos.global", "dclb.thisdcos.global"]"#,
        help: "More zones that have the same names",
        set: |c, v| put(&mut c.dns.aliases, v),
    },
    Key {
        path: "dns.tasks",
        default: "true",
        help: "Whether names of tasks are served, in dcos.thisdcos.directory and mesos.thisdcos.directory",
        set: |c, v| put(&mut c.dns.tasks, v),
    },
    Key {
        path: "dns.mesos",
        default: r#""state""#,
        help: "Who answers for the zone mesos: \"state\" for us, by the rules of mesos-dns (needs dns.tasks, and no \
               master or Marathon that is itself named in that zone), the addresses of servers of mesos-dns, or \
               \"off\"",
        set: |c, v| put(&mut c.dns.mesos, v),
    },
    Key {
        path: "dns.forward",
        default: r#""off""#,
        help: "Who is asked for all other names: addresses such as 10.0.0.2 or 10.0.0.2:5353, \"system\" for the \
               nameservers in /etc/resolv.conf, or \"off\" to refuse them",
        set: |c, v| put(&mut c.dns.forward, v),
    },
    Key {
        path: "dns.clients",
        default: r#"["node"]"#,
        help: "Who may ask: \"node\" for processes and containers of this node, networks such as 10.0.0.0/8, \
               \"any\"",
        set: |c, v| put(&mut c.dns.clients, v),
    },
    Key {
        path: "dns.resolved",
        default: r#""auto""#,
        help: "Whether systemd-resolved is told to ask us for our zones: \"auto\" where it runs, \"on\" to hear \
               of it where it doesn't, \"off\"",
        set: |c, v| put(&mut c.dns.resolved, v),
    },
    Key {
        path: "dns.ttl",
        default: r#""5s""#,
        help: "How long clients may remember an answer",
        set: |c, v| put(&mut c.dns.ttl, v),
    },
    Key {
        path: "daemon.state_dir",
        default: r#""/var/lib/l4lbd""#,
        help: "Directory for what must survive a restart: which name has which address",
        set: |c, v| put(&mut c.daemon.state_dir, v),
    },
    Key {
        path: "daemon.socket",
        default: r#""/run/l4lbd/l4lbd.sock""#,
        help: "Unix socket of the status interface",
        set: |c, v| put(&mut c.daemon.socket, v),
    },
];

/// The list of keys as text, for `--help`.
pub fn reference() -> String {
    let mut text = String::from("Configuration keys (section.key = default):\n");
    for key in KEYS {
        let default = if key.default.is_empty() { "(none)" } else { key.default };
        text.push_str(&format!("\n  {} = {default}\n      {}\n", key.path, key.help));
    }
    text
}

fn put<T: DeserializeOwned>(slot: &mut T, value: toml::Value) -> Result<(), toml::de::Error> {
    *slot = value.try_into()?;
    Ok(())
}

fn put_some<T: DeserializeOwned>(slot: &mut Option<T>, value: toml::Value) -> Result<(), toml::de::Error> {
    *slot = Some(value.try_into()?);
    Ok(())
}

/// A key that ends alike, for those who had the right name in the wrong section.
pub(super) fn suggestion(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let similar = KEYS.iter().find(|key| key.path.ends_with(name) && !name.is_empty());
    similar.map(|key| format!("; did you mean {}?", key.path)).unwrap_or_default()
}
