"""Marathon's own health checks, which Mesos knows nothing of."""

from .. import stage
from ..marathon import Marathon
from ..node import Status
from .apps import dials, launch_web, reached


def marathon(world):
    """Marathon's health checks are joined with the tasks of Mesos"""
    report, guest, cluster, node = world.report, world.guest, world.cluster, world.node
    web = launch_web(world, "/judged")
    ill, _ = web.tasks
    with Marathon(cluster) as stand_in:
        node.stop()
        undecided = f"http://{stage.MARATHON_FOLLOWER}:{stage.MARATHON_PORT}"
        node.start([stage.url(stage.LEADER)], marathons=[undecided])
        report.told(
            "a Marathon that knows no leader is told as such",
            node,
            lambda s: s.exit == 2 and "502" in str(s.reason("source")),
        )
        stand_in.elect()
        report.told("once it follows one, all is well", node, Status.calm)
        report.check(
            "tasks that served stay while Marathon has no result of any",
            lambda: node.look().backends(web.name),
            web.weights(1, 1),
        )
        for task in web.tasks:
            stand_in.set_alive(task, True)
        report.check(
            "they are, once Marathon finds them healthy", lambda: node.look().backends(web.name), web.weights(1, 1)
        )
        stand_in.set_alive(ill, False)
        report.check(
            "one that falls ill is none any more", lambda: node.look().backends(web.name), web.weights(0, 1)
        )
        report.check("connections go to the other one", dials(guest, web.host), reached(web.server(web.tasks[1])))
        report.now("a follower redirected events and answered for its leader", stand_in.roles(), {"proxy", "redirect"})
    node.stop()
    node.start([stage.url(stage.LEADER)])
    report.told("without Marathon, Mesos alone decides", node, Status.calm)
    report.check("both serve", dials(guest, web.host), reached(*web.servers()))
