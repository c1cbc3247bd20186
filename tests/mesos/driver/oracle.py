"""What the node's kernel has to hold, computed from the master's document by the peer's rules.

Written from the peer's specification and not from the daemon, for the kinds of tasks that the soak launches. The one
thing taken from the daemon is the address of each name, which is checked otherwise.
"""

import ipaddress
import re

from .node import ADDRESS

NETWORKS = {4: ipaddress.ip_network("11.0.0.0/8"), 6: ipaddress.ip_network("fd01:c::/64")}
SERVING = ("TASK_RUNNING", "TASK_KILLING")


class Oracle:
    """VIPs of one document: `(name or address, protocol, port)` to backends `{(address, port): weight}`."""

    def __init__(self, state):
        self.vips = {}
        agents = {agent["id"]: agent["pid"].split("@")[1].rsplit(":", 1)[0] for agent in state["slaves"]}
        for framework in state["frameworks"]:
            for task in framework["tasks"]:
                if task["state"] in SERVING:
                    self.add(task, framework["name"], agents[task["slave_id"]])

    def add(self, task, framework, agent):
        status = max(task["statuses"], key=lambda status: status["timestamp"], default={})
        weight = int(task["state"] == "TASK_RUNNING" and healthy(task, status))
        for port in task.get("discovery", {}).get("ports", {}).get("ports", ()):
            backends = backends_of(task, status, port, agent)
            for label in labels(port):
                if label["key"].startswith(("VIP", "vip")):
                    host, _, number = label["value"].rpartition(":")
                    key = (vip_host(host, framework), port["protocol"].lower(), int(number))
                    vip = self.vips.setdefault(key, {})
                    for backend in backends:
                        if isinstance(key[0], str) or key[0].version == backend[0].version:
                            vip[backend] = weight

    def names(self):
        """The families of every name's addresses."""
        names = {}
        for (host, _, _), backends in self.vips.items():
            if isinstance(host, str):
                names.setdefault(host, set()).update(address.version for address, _ in backends)
        return names

    def services(self, addresses):
        """Lines of `ipvsadm -Sn`; `addresses` has each name's address by `(name, family)`."""
        lines = set()
        for (host, protocol, port), backends in self.vips.items():
            families = {address.version for address, _ in backends} if isinstance(host, str) else {host.version}
            for family in families:
                if isinstance(host, str) and (host, family) not in addresses:
                    lines.add(f"{host} has no address of family {family}")
                    continue
                address = ipaddress.ip_address(addresses[host, family]) if isinstance(host, str) else host
                service = f"-{protocol[0]} {join(address, port)}"
                lines.add(f"-A {service} -s wlc")
                for (backend, number), weight in backends.items():
                    if backend.version == family:
                        lines.add(f"-a {service} -r {join(backend, number)} -m -w {weight}")
        return lines

    def networks(self):
        """Networks of VIPs by family: the ranges, and addresses that labels gave outside of them."""
        networks = {family: {network} for family, network in NETWORKS.items()}
        for host, _, _ in self.vips:
            if not isinstance(host, str) and host not in NETWORKS[host.version]:
                networks[host.version].add(ipaddress.ip_network(host))
        return {family: {short(network) for network in found} for family, found in networks.items()}


def healthy(task, status):
    """By the newest status; one without a word is believed where no check is defined."""
    return status.get("healthy", "health_check" not in task)


def backends_of(task, status, port, agent):
    addresses = [
        ipaddress.ip_address(address["ip_address"])
        for network in status.get("container_status", {}).get("network_infos", ())
        for address in network.get("ip_addresses", ())
        if "ip_address" in address
    ]
    scope = next((label["value"] for label in labels(port) if label["key"] == "network-scope"), None)
    number = port["number"]
    if scope != "host":
        return [(address, number) for address in addresses or [ipaddress.ip_address(agent)]]
    container = task.get("container", {})
    # The node's own port mappings do not apply to what IPVS sends, unless they are Docker's.
    if container.get("type") == "MESOS" and agent == ADDRESS and addresses:
        for network in container.get("network_infos", ()):
            for mapping in network.get("port_mappings", ()):
                if mapping["host_port"] == number:
                    return [(addresses[0], mapping["container_port"])]
    return [(ipaddress.ip_address(agent), number)]


def labels(port):
    return [label for label in port.get("labels", {}).get("labels", ()) if "value" in label]


def vip_host(host, framework):
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return f"{fragment(host)}.{fragment(framework)}"


def fragment(text):
    return ".".join(dns_label(part) for part in text.split(".") if part)


def dns_label(text):
    """For texts shorter than a DNS label may be."""
    kept = re.sub(r"[^a-z0-9-]", "", re.sub(r"[_.]", "-", text.lower()))
    return kept.strip("-")


def join(address, port):
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def short(network):
    """As `ip` and `nft` write it."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)
