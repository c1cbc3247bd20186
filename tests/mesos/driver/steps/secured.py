"""Masters that want a password, elect their leader in ZooKeeper, and tell of changes by events."""

import statistics
import time

from .. import stage
from ..cluster import SecuredCluster, ZooKeeper
from ..node import Status
from .apps import dials, launch_web, reached, served, undisturbed

PASSWORD = "/run/l4lbd-test/password"
CHANGES = 6
# One that the other cluster, which counts from 10000, has not given out.
PORT = 12000


class Secured:
    """The same world with the other cluster in it."""

    def __init__(self, world, cluster):
        self.report, self.guest, self.node, self.cluster = world.report, world.guest, world.node, cluster


def secured(world):
    """a password, an election in ZooKeeper, and the stream of events"""
    report, guest, node = world.report, world.guest, world.node
    if guest.is_started(label="daemon"):
        node.stop()
    with ZooKeeper(world.work), SecuredCluster(world.lab, world.work) as cluster:
        cluster.wait_for_agents()
        world = Secured(world, cluster)
        guest.write(path=PASSWORD, text="l4lbd:not-this-one")
        election = f"zk://{stage.ZOOKEEPER}:{stage.ZOOKEEPER_PORT}/mesos"
        node.start([election], mode="stream", resync="20s", basic=f"file:{PASSWORD}")
        status = report.told(
            "a wrong password is told as such", node, lambda s: s.exit == 2 and "401" in str(s.reason("source"))
        )
        report.now("there is no state then", status.source["good_at"], None)
        report.now("the elected master was asked", stage.SECURED in str(status.reason("source")))

        guest.write(path=PASSWORD, text=SecuredCluster.credentials + "\n")
        status = report.told("the right one counts without a restart", node, Status.calm)
        report.now("status says how masters are asked", "as they come" in status.source["pace"])
        secrets = [node.log(), node.command("status")["output"], node.command("status", "--json")["output"]]
        report.now("no password is shown", any("a secret" in text or "not-this-one" in text for text in secrets), False)

        web = launch_web(world, "/guarded", port=PORT, healthy=True)
        report.check("an app is served", dials(guest, web.host), reached(*web.servers()))
        changes(world, web)
        with undisturbed(world, web, "during the election"):
            cluster.kill_master()
            status = report.told(
                "the next leader is followed",
                node,
                lambda s: stage.SECURED_STANDBY in s.source["place"] and s.calm(),
            )
        report.now("the app is served as before", dials(guest, web.host)(), served(*web.servers()))
        report.now("the daemon ends when asked to", node.stop(), 0)


def changes(world, web):
    """Health updates are told by events, not by the next question."""
    task, delays, passes = web.tasks[0], [], []
    for change in range(CHANGES):
        weight = change % 2
        began = time.monotonic()
        world.cluster.set_health(task, bool(weight))
        status = world.node.look()
        while status.backends(web.name) != web.weights(weight, 1) and time.monotonic() - began < 15:
            status = world.node.look()
        delays.append(time.monotonic() - began)
        passes.append(status.document["pass"]["seconds"])
    world.report.now("each of several health updates is in the kernel by its event", max(delays) < 15)
    total, programming = (statistics.median(times) * 1000 for times in (delays, passes))
    world.report.note(f"medians in this emulated machine: {total:.0f} ms until seen, {programming:.0f} ms for the pass")
