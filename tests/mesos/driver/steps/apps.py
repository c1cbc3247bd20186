"""Apps with servers behind them, and what several steps ask about them."""

from contextlib import contextmanager
from dataclasses import dataclass

from ..node import full

# Where in the guest a host's programs run.
NAMESPACES = {"node-1": None, "node-2": "n2", "node-3": "n3"}

# Longest time until a client is told that nobody serves; a packet that is dropped would cost a second at least.
AT_ONCE = 1.0


@dataclass
class Web:
    """An app with one VIP at port 80; its servers are called like `/web@node-2`."""

    id: str
    name: str
    tasks: list

    @property
    def host(self):
        return full(self.name)

    def server(self, task):
        return f"{self.id}@{task.node}"

    def servers(self):
        return {self.server(task) for task in self.tasks}

    def backend(self, task):
        return f"{task.agent}:{task.ports[0]}"

    def weights(self, *weights):
        """Weights by backend, as status and kernel show them."""
        return {
            self.backend(task): weight
            for task, weight in zip(self.tasks, weights, strict=True)
            if weight is not None
        }


def launch_web(world, id, nodes=("node-2", "node-3"), port=0, **more):
    """Launches an app on these hosts, starts its servers, and waits until the daemon knows all of them.

    Without a port of its own, each task gets the next free one.
    """
    label = id.strip("/")
    ports = [{"name": "http", "port": port, "labels": {"VIP_0": f"/{label}:80"}}]
    tasks = world.cluster.launch({"id": id, "portDefinitions": ports}, list(nodes), **more)
    web = Web(id, f"{label}.marathon", tasks)
    for task in tasks:
        serve(world, web.server(task), task, task.ports[0])
    world.report.need(
        f"{web.host} has a backend for each task",
        lambda: world.node.look().backends(web.name),
        web.weights(*[1] * len(tasks)),
    )
    return web


def serve(world, server, task, port, protocol="tcp"):
    """Starts a task's server on its host."""
    world.guest.serve(name=server, namespace=NAMESPACES[task.node], protocol=protocol, port=port)


def dials(guest, host, port=80, times=8, namespace=None):
    """A probe: a client on the node or in a container connects so often."""
    return lambda: guest.dial(host=host, port=port, times=times, namespace=namespace)


def asks(guest, host, port, namespace=None, times=8):
    """The same by UDP."""
    return lambda: guest.ask(host=host, port=port, times=times, namespace=namespace)


def reached(*servers):
    """For `dials` and `asks`: each of these servers answered, no other did, and nothing failed."""
    return lambda answer: set(answer["servers"]) == set(servers) and not answer["errors"]


def served(*servers):
    """For `dials`: nothing failed. While a connection stays open, the scheduler prefers the servers without it."""
    return lambda answer: answer["servers"] and set(answer["servers"]) <= set(servers) and not answer["errors"]


def refused(answer):
    """For `dials`: every attempt was refused at once."""
    return (
        not answer["servers"]
        and set(answer["errors"]) == {"Connection refused"}
        and answer["slowest"] < AT_ONCE
    )


@contextmanager
def undisturbed(world, web, why):
    """All the time inside, clients of the app get through and the kernel's table stays as it is."""
    world.guest.start_watch()
    world.guest.start_stream(label=web.id, host=web.host, port=80)
    try:
        yield
    finally:
        clients = world.guest.stop_stream(label=web.id)
        table = world.guest.stop_watch()
    report = world.report
    report.note(
        f"{clients['connected']} connections and {clients['echoed']} echoes in {clients['seconds']} s"
    )
    report.now(f"{why}: clients were at work", clients["connected"] >= 10 and clients["echoed"] >= 10)
    report.now(f"{why}: no client failed", (len(clients["failures"]), clients["failures"][:3]), (0, []))
    changes = {"gone": table["gone"], "new": table["new"]}
    report.now(
        f"{why}: the kernel's table stayed the same in {table['looks']} looks",
        changes,
        {"gone": [], "new": []},
    )
