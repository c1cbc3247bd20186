"""Apps on every kind of network, protocol and label, next to each other."""

from ..node import full
from .apps import asks, dials, reached, serve


def kinds(world):
    """bridges, overlay networks, pods, UDP, IPv6, literal VIPs"""
    parts = (DockerBridge, MesosBridge, Literal, Both, Overlay, Pod)
    # All of them are launched before the first is looked at, which saves rounds.
    for part in [part(world) for part in parts]:
        part.check(world)


class DockerBridge:
    """Published ports of Docker, on this node and on another one."""

    def __init__(self, world):
        self.tasks = world.cluster.launch(
            {
                "id": "/docker-bridge",
                "networks": [{"mode": "container/bridge"}],
                "container": container(
                    "DOCKER", {"containerPort": 8080, "hostPort": 0, "labels": {"VIP_0": "/docker-bridge:80"}}
                ),
            },
            ["node-1", "node-2"],
            status=address("172.17.0.11"),
        )
        here, there = self.tasks
        world.guest.publish(port=here.ports[0], address="172.17.0.11", container_port=8080)
        world.guest.serve(name="docker-here", namespace="c1", protocol="tcp", port=8080)
        # Docker's proxy, which takes connections that its rules do not see.
        serve(world, "docker-here", here, here.ports[0])
        serve(world, "docker-there", there, there.ports[0])

    def check(self, world):
        report, host = world.report, full("docker-bridge.marathon")
        both = reached("docker-here", "docker-there")
        report.check(
            "Docker bridge: two backends",
            lambda: len(world.node.look().backends("docker-bridge.marathon")),
            2,
        )
        report.check("Docker bridge: the node reaches both", dials(world.guest, host), both)
        report.check(
            "Docker bridge: a neighbour container reaches both",
            dials(world.guest, host, namespace="c2"),
            both,
        )


class MesosBridge:
    """A container of Mesos' own kind on this node's bridge: the node itself can't reach its published port.

    The lab has no bridge of that kind, so the network goes without a name.
    """

    def __init__(self, world):
        mapping = {"host_port": 12100, "container_port": 8081, "protocol": "tcp"}
        network = {"ip_addresses": [{}], "labels": {}, "port_mappings": [mapping]}
        task = {
            "name": "mesos-bridge",
            "task_id": {"value": "mesos-bridge.1"},
            "container": {"type": "MESOS", "mesos": {}, "network_infos": [network]},
            "discovery": discovery(
                "mesos-bridge", 12100, {"VIP_0": "/mesos-bridge:80", "network-scope": "host"}
            ),
        }
        world.cluster.launch_task("node-1", task=task, status=address("172.17.0.12"))
        world.guest.serve(name="mesos-here", namespace="c2", protocol="tcp", port=8081)

    def check(self, world):
        report, name = world.report, "mesos-bridge.marathon"
        report.check(
            "Mesos bridge: this node's backend is the container",
            lambda: world.node.look().backends(name),
            {"172.17.0.12:8081": 1},
        )
        guest, here = world.guest, reached("mesos-here")
        report.check("Mesos bridge: the node reaches it", dials(guest, full(name)), here)
        report.check(
            "Mesos bridge: a neighbour container reaches it", dials(guest, full(name), namespace="c1"), here
        )


class Literal:
    """A VIP that is an address, outside of the range of names."""

    def __init__(self, world):
        ports = [{"name": "http", "labels": {"VIP_0": "10.99.0.5:6666"}}]
        (task,) = world.cluster.launch({"id": "/literal", "portDefinitions": ports}, ["node-3"])
        serve(world, "literal", task, task.ports[0])

    def check(self, world):
        for client, namespace in (("the node", None), ("a container", "c1")):
            world.report.check(
                f"literal VIP: {client} reaches it",
                dials(world.guest, "10.99.0.5", port=6666, namespace=namespace),
                reached("literal"),
            )


class Both:
    """One port with both protocols."""

    def __init__(self, world):
        ports = [{"name": "dns", "protocol": "tcp,udp", "labels": {"VIP_0": "/both:5353"}}]
        self.tasks = world.cluster.launch({"id": "/both", "portDefinitions": ports}, ["node-2", "node-3"])
        for task in self.tasks:
            for protocol in ("tcp", "udp"):
                serve(world, f"{protocol}@{task.node}", task, task.ports[0], protocol)

    def check(self, world):
        report, host = world.report, full("both.marathon")
        udp = reached("udp@node-2", "udp@node-3")
        report.check("UDP: the node reaches both tasks", asks(world.guest, host, 5353), udp)
        report.check("UDP: a container reaches both tasks", asks(world.guest, host, 5353, "c1"), udp)
        report.check(
            "TCP at the same port reaches both tasks",
            dials(world.guest, host, port=5353),
            reached("tcp@node-2", "tcp@node-3"),
        )


class Overlay:
    """A container with addresses of its own, one of each family."""

    def __init__(self, world):
        world.cluster.launch(
            {
                "id": "/overlay",
                "networks": [{"mode": "container", "name": "dcos"}],
                "container": container("DOCKER", {"containerPort": 8082, "labels": {"VIP_0": "/overlay:80"}}),
            },
            ["node-3"],
            status=address("9.0.3.130", "fd01:b::3:8002", network="dcos"),
        )
        for family, ipv6 in (("4", False), ("6", True)):
            world.guest.serve(name=f"overlay-{family}", namespace="n3", protocol="tcp", port=8082, ipv6=ipv6)

    def check(self, world):
        report, host = world.report, full("overlay.marathon")
        for kind, server, family in (("A", "overlay-4", "IPv4"), ("AAAA", "overlay-6", "IPv6")):
            answer = report.check(
                f"overlay network: the name has an {family} address",
                lambda kind=kind: world.guest.lookup(name=host, kind=kind),
                lambda answer: len(answer["addresses"]) == 1,
            )
            vip = dials(world.guest, answer["addresses"][0])
            report.check(f"overlay network: it is reached by {family}", vip, reached(server))


class Pod:
    """A task group, whose ports are in each container's discovery."""

    def __init__(self, world):
        front = discovery("pod", 12001, {"VIP_0": "pod:80"})["ports"]["ports"]
        containers = [{"name": "front", "ports": front}, {"name": "side"}]
        task, _ = world.cluster.launch_pod("node-2", id="/pods/one", healthy=True, containers=containers)
        serve(world, "pod", task, 12001)

    def check(self, world):
        host = full("pod.marathon")
        world.report.check("pod: it is reached", dials(world.guest, host), reached("pod"))


def bad_labels(world):
    """labels that make no sense do not harm those that do"""
    report, node = world.report, world.node
    bad = ["/zero:0", "/high:70000", "no-port", "/text:http"]
    labels = {f"VIP_{index}": value for index, value in enumerate([*bad, "/good:80"])}
    ports = [
        {"name": "http", "labels": labels},
        {"name": "odd", "protocol": "sctp", "labels": {"VIP_0": "/sctp:80"}},
    ]
    (task,) = world.cluster.launch({"id": "/mixed", "portDefinitions": ports}, ["node-2"])
    serve(world, "good", task, task.ports[0])
    status = report.told(
        "the good label is a VIP", node, lambda status: status.backends("good.marathon") is not None
    )
    report.check("it works", dials(world.guest, full("good.marathon")), reached("good"))
    skipped = status.skipped()
    for value in [*bad, "/sctp:80"]:
        report.now(f"{value!r} is listed as left out: {skipped.get(value)}", bool(skipped.get(value)))
    report.now("which is no reason to alarm anybody", status, lambda status: status.exit == 0)


def discovery(name, port, labels):
    """What a task tells of a port, in Mesos' own words."""
    labels = {"labels": [{"key": key, "value": value} for key, value in labels.items()]}
    port = {"number": port, "name": "web", "protocol": "tcp", "labels": labels}
    return {"visibility": "FRAMEWORK", "name": name, "ports": {"ports": [port]}}


def container(type, *mappings):
    mappings = [{"protocol": "tcp", "name": "web", **mapping} for mapping in mappings]
    return {"type": type, "docker": {"image": "nginx"}, "portMappings": mappings}


def address(*addresses, network=None):
    """What a task's status says of its addresses."""
    info = {
        "ip_addresses": [{"protocol": "IPv6" if ":" in a else "IPv4", "ip_address": a} for a in addresses]
    }
    if network:
        info["name"] = network
    return {"container_status": {"network_infos": [info]}}
