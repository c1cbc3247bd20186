//! Capabilities that eBPF needs and this process lacks; see capabilities(7).

use caps::{CapSet, Capability, CapsHashSet};

const FOR_EBPF: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Needed to find the network namespaces of other users' processes, and to enter them.
const FOR_NAMESPACES: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_ADMIN];

/// Lists what a process with these capabilities lacks to load and attach programs.
pub fn lacking_for_ebpf(held: &CapsHashSet) -> Vec<Capability> {
    for_ebpf(|capability| held.contains(&capability))
}

/// Lists what this process lacks to load and attach programs; empty if that cannot be read.
pub fn missing_for_ebpf() -> Vec<Capability> {
    for_ebpf(is_effective)
}

/// Lists what this process lacks to end connections in the network namespaces of other users'
/// processes; empty if that cannot be read.
pub fn missing_for_namespaces() -> Vec<Capability> {
    lacking(&FOR_NAMESPACES, is_effective)
}

/// Joins the names of capabilities for a message.
pub fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(Capability::to_string).collect::<Vec<_>>().join(", ")
}

fn is_effective(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true)
}

fn for_ebpf(has: impl Fn(Capability) -> bool) -> Vec<Capability> {
    if has(Capability::CAP_SYS_ADMIN) {
        // It includes CAP_BPF and CAP_PERFMON, which kernels before 5.8 do not know.
        return lacking(&[Capability::CAP_NET_ADMIN], has);
    }
    lacking(&FOR_EBPF, has)
}

fn lacking(wanted: &[Capability], has: impl Fn(Capability) -> bool) -> Vec<Capability> {
    wanted.iter().copied().filter(|capability| !has(*capability)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN};

    fn missing(held: &[Capability]) -> String {
        names(&for_ebpf(|capability| held.contains(&capability)))
    }

    #[test]
    fn for_ebpf_names_the_missing_capabilities() {
        assert_eq!(names(&for_ebpf(|_| true)), "");
        assert_eq!(missing(&[]), "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
        assert_eq!(missing(&[CAP_BPF, CAP_NET_ADMIN]), "CAP_PERFMON");
        assert_eq!(missing(&[CAP_SYS_ADMIN]), "CAP_NET_ADMIN");
        assert_eq!(missing(&[CAP_SYS_ADMIN, CAP_NET_ADMIN]), "");
        assert_eq!(names(&lacking(&FOR_NAMESPACES, |held| held == CAP_SYS_ADMIN)), "CAP_SYS_PTRACE");
    }
}
