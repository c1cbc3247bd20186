"""The master dies and another one takes over, which at first knows nobody."""

from ..node import Status
from ..stage import AGENTS, LEADER, url
from .apps import dials, launch_web, reached, served, undisturbed

# Long enough that the daemon and a person notice.
DOWN = 8


def failover(world):
    """a new master with an empty, then a partial document takes nothing away"""
    report, guest, cluster, node = world.report, world.guest, world.cluster, world.node
    web = launch_web(world, "/steady", nodes=["node-2", "node-3", "node-1"])
    report.need("nothing is wrong before", node.look, Status.calm)
    before, old = guest.services(), cluster.state()["id"]

    with undisturbed(world, web, "during the fail-over"):
        # Frozen agents can't register with the new master, so that its document stays as empty as it starts.
        for agent in AGENTS:
            cluster.freeze(agent)
        restart = cluster.restart_master(DOWN)
        try:
            status = report.told(
                "without a master, status says that the state is old",
                node,
                lambda s: s.exit == 2 and s.reason("source"),
            )
            report.now("and names the master", LEADER in (status.reason("source") or ""))
            report.check("the kernel's table is as before", guest.services, before)
            restart.join()

            state = report.check(
                "a new master leads, with a document without agents and tasks",
                cluster.state,
                lambda s: s["id"] != old and blank(s),
            )
            empty = report.told(
                "status says that tasks are held",
                node,
                lambda s: s.source["master"] == state["id"] and s.exit == 2 and s.reason("held"),
            )
            report.check("with an empty document it is so, too", guest.services, before)

            cluster.thaw("node-1")
            cluster.thaw("node-2")
            report.check(
                "then the document has a part of the agents",
                lambda: {agent["hostname"] for agent in cluster.state()["slaves"]},
                {"node-1", "node-2"},
            )
            report.told(
                "status still says that tasks are held, and fewer",
                node,
                lambda s: s.exit == 2 and s.source["held"] and s.source["held"] != empty.source["held"],
            )
            report.check("and with a partial one", guest.services, before)
        finally:
            restart.join()
            for agent in AGENTS:
                cluster.thaw(agent)
        report.told("with the last agent back, nothing is held any more", node, Status.calm)
        report.check("and with the whole one", guest.services, before)

    after = launch_web(world, "/afterwards")
    report.check("what starts then is served", dials(guest, after.host), reached(*after.servers()))


def relapse(world):
    """the daemon itself is restarted during a fail-over"""
    report, guest, cluster, node = world.report, world.guest, world.cluster, world.node
    web = launch_web(world, "/steadfast")
    report.need("nothing is wrong before", node.look, Status.calm)
    before, old = guest.services(), cluster.state()["id"]

    with undisturbed(world, web, "during both"):
        for agent in AGENTS:
            cluster.freeze(agent)
        try:
            cluster.restart_master(down=1).join()
            report.need(
                "a new master leads, with a document without agents and tasks",
                cluster.state,
                lambda state: state["id"] != old and blank(state),
            )
            report.now("the daemon ends when asked to", node.stop(), 0)
            node.start([url(LEADER)])
            report.told(
                "it starts with that document, and says that it is not to be trusted",
                node,
                lambda s: s.source["good_at"] and s.exit == 2,
            )
            report.now("the kernel's table is as before", guest.services(), before)
            report.now("the name works", dials(guest, web.host)(), served(*web.servers()))
        finally:
            for agent in AGENTS:
                cluster.thaw(agent)
        report.told("when the agents are back, all is well", node, Status.calm)
        report.now("the kernel's table is as before", guest.services(), before)


def blank(state):
    return not state["slaves"] and not any(framework["tasks"] for framework in state["frameworks"])
