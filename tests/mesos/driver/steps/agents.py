"""Agents come and go."""

from .apps import dials, launch_web, reached


def lost_agent(world):
    """an agent is lost, and returns with its tasks"""
    report, guest, cluster = world.report, world.guest, world.cluster
    web = launch_web(world, "/wanderer")
    staying, _ = web.tasks
    cluster.freeze("node-3")
    try:
        report.check(
            "once Mesos gives the agent up, its task is no backend",
            lambda: world.node.look().backends(web.name),
            web.weights(1, None),
        )
        report.check("the others serve", dials(guest, web.host), reached(web.server(staying)))
    finally:
        cluster.thaw("node-3")
    report.check(
        "it returns, and so does its backend", lambda: world.node.look().backends(web.name), web.weights(1, 1)
    )
    report.check("both serve", dials(guest, web.host), reached(*web.servers()))
