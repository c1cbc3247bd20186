//! Checks of the kernel: release, modules, settings, mounts and tables.

use crate::dataplane::rules;
use crate::doctor::facts::NodeFacts;
use crate::doctor::finding::Finding;
use crate::doctor::settings::DoctorSettings;
use crate::status::build::conntab_text;

/// Oldest kernel that is tested.
const OLDEST: (u32, u32) = (5, 10);

/// Modules that the data plane ipvs needs, as systemd/l4lbd.service loads them.
pub const MODULES: [&str; 11] = [
    "ip_vs",
    "ip_vs_wlc",
    "dummy",
    "nf_conntrack",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nft_nat",
    "nft_reject_inet",
];

/// The module without which a bridge without ports takes the place of the dummy link.
const OPTIONAL: &str = "dummy";

pub fn release(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "kernel";
    let release = &facts.kernel.release;
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    let finding = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            let (major, minor) = OLDEST;
            Finding::fault(CHECK, format!("Linux {release} is older than {major}.{minor}"))
                .mended_by("install a newer kernel and reboot")
        }
        (Some(_), Some(_)) => Finding::ok(CHECK, format!("Linux {release}")),
        _ => Finding::skipped(CHECK, format!("the release {release:?} cannot be read")),
    };
    vec![finding]
}

pub fn modules(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "modules";
    if !settings.has_packets(facts.plane) {
        return vec![Finding::ok(CHECK, "the data plane ebpf needs none")];
    }
    let scheduler = format!("ip_vs_{}", settings.scheduler);
    // The list has the default scheduler, in whose place another one may be configured.
    let wanted = MODULES.into_iter().filter(|module| *module != "ip_vs_wlc").chain([scheduler.as_str()]);
    // Those that are in use are there, whatever the lists say.
    let not_loaded: Vec<&str> = wanted
        .filter(|module| *module != OPTIONAL && !facts.kernel.loaded.contains(*module))
        .filter(|module| !(*module == "ip_vs" && facts.kernel.has_ipvs))
        .collect();
    let Some(available) = &facts.kernel.available else {
        return match not_loaded.as_slice() {
            [] => vec![Finding::ok(CHECK, "all are loaded")],
            _ if facts.daemon.status.is_ok() => {
                vec![Finding::ok(CHECK, "a daemon works with those that are loaded")]
            }
            rest => vec![Finding::skipped(
                CHECK,
                format!(
                    "/lib/modules has no list for this kernel, so that it is not known if it has {}",
                    rest.join(", ")
                ),
            )],
        };
    };
    let missing: Vec<&str> =
        not_loaded.iter().filter(|module| !available.contains(**module)).copied().collect();
    if !missing.is_empty() {
        let finding = format!("this kernel has no module {}", missing.join(", "));
        return vec![
            match settings.kernel.plane {
                // Without a choice eBPF takes its place.
                None if missing.contains(&"ip_vs") => Finding::warning(CHECK, finding),
                _ => Finding::fault(CHECK, finding),
            }
            .mended_by(
                "install a kernel with all modules (Debian: apt install linux-image-amd64) and reboot",
            ),
        ];
    }
    // The kernel loads the rest on demand, for the first rule or service that needs them.
    let is_needed = not_loaded.contains(&"ip_vs");
    vec![if is_needed {
        Finding::warning(CHECK, format!("not loaded yet: {}", not_loaded.join(", ")))
            .mended_by(format!("modprobe -a {}", not_loaded.join(" ")))
    } else {
        Finding::ok(CHECK, "the kernel has all of them")
    }]
}

pub fn nft(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "nft";
    if !settings.has_packets(facts.plane) {
        return vec![Finding::ok(CHECK, "the data plane ebpf needs none")];
    }
    vec![match &facts.kernel.nft {
        None => Finding::ok(CHECK, "nft runs"),
        Some(error) => Finding::fault(CHECK, format!("the netfilter rules cannot be written: {error}"))
            .mended_by("apt install nftables"),
    }]
}

pub fn sysctls(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "sysctls";
    let wanted = rules::sysctls(crate::dataplane::kernel::capabilities(facts.plane), false);
    let mut found = Vec::new();
    for (path, value) in &wanted {
        let name = path.replace('/', ".");
        match facts.kernel.sysctls.get(path) {
            // They come with the module.
            None => {}
            Some(current) if current == value => {}
            Some(current) => {
                // Without root every setting seems to be read-only.
                let is_readonly = facts.is_root && facts.kernel.readonly.contains(path);
                let what = format!("{name} is {current} and must be {value}");
                found.push(
                    match (is_readonly, &facts.daemon.status) {
                        (true, _) => Finding::fault(CHECK, format!("{what}, but is read-only here"))
                            .mended_by("mount -o remount,rw /proc/sys"),
                        (false, Ok(_)) => Finding::fault(
                            CHECK,
                            format!("{what}; another program sets it, or l4lbd may not"),
                        )
                        .mended_by(format!("sysctl -w {name}={value}")),
                        (false, Err(_)) => {
                            Finding::warning(CHECK, format!("{what}, as the daemon sets it at its start"))
                                .mended_by(format!("sysctl -w {name}={value}"))
                        }
                    }
                    .at(name),
                );
            }
        }
    }
    if let Ok((node, _)) = &facts.network
        && settings.has_packets(facts.plane)
    {
        let bridges: Vec<&str> = node.no_hairpin.iter().map(String::as_str).collect();
        for (is_filtered, setting) in [
            (node.filters_bridged4, "net.bridge.bridge-nf-call-iptables"),
            (node.filters_bridged6, "net.bridge.bridge-nf-call-ip6tables"),
        ] {
            if is_filtered && !bridges.is_empty() {
                found.push(
                    Finding::warning(
                        CHECK,
                        format!("{setting} is 1, so that a container cannot reach itself through its VIP"),
                    )
                    .at(bridges.join(", "))
                    .mended_by(format!("sysctl -w {setting}=0")),
                );
            }
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "all that VIPs need have the right value"));
    }
    found
}

pub fn rp_filter(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "rp_filter";
    // 1 is strict; 2 drops only packets of sources to which no link leads.
    let strict: Vec<&String> =
        facts.kernel.rp_filter.iter().filter(|(_, value)| **value == 1).map(|(link, _)| link).collect();
    let uplinks =
        facts.network.as_ref().map(|(_, surroundings)| surroundings.uplinks.len()).unwrap_or_default();
    let strict_uplinks = facts.network.as_ref().map_or(0, |(_, surroundings)| {
        strict.iter().filter(|link| surroundings.uplinks.contains(**link)).count()
    });
    let drops = facts.kernel.rp_filter_drops;
    let names: Vec<&str> = strict.iter().map(|link| link.as_str()).collect();
    let loosened = || {
        let plain = names.iter().filter(|link| crate::dataplane::firewall::is_plain(link)).take(4);
        let settings: Vec<String> = plain.map(|link| format!("net/ipv4/conf/{link}/rp_filter=2")).collect();
        format!("sysctl -w {}", settings.join(" "))
    };
    // The kernel has one counter for all links, which says nothing where no filter is strict.
    vec![if !strict.is_empty() && drops > 0 {
        Finding::warning(
            CHECK,
            format!(
                "the strict reverse path filter has dropped {drops} packets; those of tasks whose answers come in by \
                 another link than packets to them leave by are among them"
            ),
        )
        .at(names.join(", "))
        .mended_by(loosened())
    } else if strict_uplinks > 0 && uplinks > 1 {
        Finding::warning(
            CHECK,
            format!("the reverse path filter is strict on a node with {uplinks} links that lead out of it: answers that \
                     come in by another link are dropped"),
        )
        .at(names.join(", "))
        .mended_by(loosened())
    } else {
        Finding::ok(CHECK, "drops nothing")
    }]
}

pub fn mounts(settings: &DoctorSettings, facts: &NodeFacts) -> Vec<Finding> {
    if settings.has_packets(facts.plane) {
        return ["cgroup", "bpf"].map(|check| Finding::ok(check, "the data plane ipvs needs none")).to_vec();
    }
    let pins = settings.kernel.ebpf.pins.display().to_string();
    let cgroup = match &facts.kernel.cgroup {
        None => Finding::ok("cgroup", "control groups version 2 are mounted"),
        Some(error) => {
            let place = settings.kernel.ebpf.cgroup.as_ref().map(|path| path.display().to_string());
            Finding::fault("cgroup", error.as_str()).at(place.unwrap_or_default()).mended_by(
                "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
            )
        }
    };
    let bpf = match &facts.kernel.bpf {
        None => Finding::ok("bpf", "a BPF file system is mounted").at(pins),
        Some(error) => {
            Finding::fault("bpf", error.as_str()).at(pins).mended_by("mount -t bpf bpf /sys/fs/bpf")
        }
    };
    vec![cgroup, bpf]
}

pub fn conntrack(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "conntrack";
    let Some((count, most)) = facts.kernel.conntrack.filter(|(_, most)| *most > 0) else {
        return vec![Finding::skipped(CHECK, "connections are not tracked yet: nf_conntrack is not loaded")];
    };
    let text = format!("{count} of {most} connections are tracked");
    let larger = format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(2));
    vec![if count >= most {
        Finding::fault(CHECK, format!("{text}: new ones are dropped")).mended_by(larger)
    } else if count >= most / 4 * 3 {
        Finding::warning(CHECK, format!("{text}: new ones are dropped when it is full")).mended_by(larger)
    } else {
        Finding::ok(CHECK, text)
    }]
}

pub fn conn_tab(facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "conn_tab";
    let table = match &facts.table {
        Ok(table) => table,
        Err(reason) => return vec![Finding::skipped(CHECK, reason.as_str())],
    };
    vec![match conntab_text(table.connections.values(), table.connection_buckets) {
        Some(text) => Finding::warning(CHECK, text)
            .mended_by("echo 'options ip_vs conn_tab_bits=20' > /etc/modprobe.d/l4lbd.conf, and reboot"),
        None => Finding::ok(CHECK, "large enough for the connections that there are"),
    }]
}
