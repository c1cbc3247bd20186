"""The life of an app: it starts, falls ill, recovers, is killed, comes back."""

from ..node import ADDRESS, Status
from ..stage import LEADER
from .apps import dials, launch_web, reached, refused


def names(world):
    """an app is dialled by its name"""
    report, guest = world.report, world.guest
    status = report.told("the daemon is content before there is any VIP", world.node, Status.calm)
    report.now(
        "it knows the master and three agents",
        (LEADER in status.source["place"], status.source["agents"]),
        (True, 3),
    )
    report.check(
        "a name that does not exist is NXDOMAIN",
        lambda: guest.lookup(name="web.marathon.l4lb.thisdcos.directory")["status"],
        "NXDOMAIN",
    )
    web = launch_web(world, "/web")
    answer = report.check(
        "the name has one address", lambda: guest.lookup(name=web.host), lambda a: len(a["addresses"]) == 1
    )
    report.now("it is in the range of named VIPs", answer["addresses"][0].startswith("11."))
    answer = report.check("the name reaches both tasks", dials(guest, web.host), reached(*web.servers()))
    report.now("they see the node's own address", answer["seen"], [ADDRESS])
    report.check(
        "so it does from a container", dials(guest, web.host, namespace="c1"), reached(*web.servers())
    )
    report.check("another port of the VIP is refused at once", dials(guest, web.host, port=81), refused)


def health(world):
    """a task that falls ill gets no connections until it is healthy again"""
    report, guest, cluster = world.report, world.guest, world.cluster
    web = launch_web(world, "/ill", healthy=True)
    ill, other = web.tasks
    service = service_of(guest, web)

    cluster.set_health(ill, False)
    report.check("its weight is 0 in status", lambda: world.node.look().backends(web.name), web.weights(0, 1))
    report.now("and in the kernel", guest.services()[service], web.weights(0, 1))
    report.check("connections go to the other one only", dials(guest, web.host), reached(web.server(other)))

    cluster.set_health(ill, True)
    report.check(
        "healthy again, its weight is 1 in status",
        lambda: world.node.look().backends(web.name),
        web.weights(1, 1),
    )
    report.now("and in the kernel", guest.services()[service], web.weights(1, 1))
    report.check("connections go to both", dials(guest, web.host), reached(*web.servers()))


def kill(world):
    """tasks are killed one by one, and the app comes back"""
    report, guest, cluster = world.report, world.guest, world.cluster
    web = launch_web(world, "/mortal", options={"kill_delay": 10})
    dying, other = web.tasks
    service = service_of(guest, web)
    address = guest.lookup(name=web.host)["addresses"]
    report.now(
        "a connection to the first task is open",
        guest.connect(label="old", host=web.host, port=80, server=web.server(dying)),
    )

    cluster.kill(dying)
    report.check(
        "while it is being killed, its weight is 0",
        lambda: guest.services()[service],
        web.weights(0, 1),
        pause=0.5,
    )
    report.now("the open connection goes on", guest.talk(label="old"))
    report.now("new ones go to the other task", dials(guest, web.host)(), reached(web.server(other)))
    report.told(
        "once it is dead, it is kept for the open connection",
        world.node,
        lambda status: "gone" in status.conditions(web.name),
    )
    report.now("which goes on", guest.talk(label="old"))
    guest.disconnect(label="old")
    report.check(
        "when that has ended, it is no backend any more",
        lambda: world.node.look().backends(web.name),
        web.weights(None, 1),
    )
    report.now("neither in the kernel", guest.services()[service], web.weights(None, 1))
    report.check("the other one serves", dials(guest, web.host), reached(web.server(other)))

    cluster.kill(other)
    report.check("all are dead", lambda: world.node.look().backends(web.name), {})
    report.check("connections are refused at once", dials(guest, web.host), refused)
    report.check("the name keeps its address", lambda: guest.lookup(name=web.host)["addresses"], address)

    again = launch_web(world, "/mortal", nodes=["node-3"])
    report.check(
        "the app comes back at the same address", lambda: guest.lookup(name=web.host)["addresses"], address
    )
    report.check("and serves", dials(guest, web.host), reached(*again.servers()))


def service_of(guest, web):
    return f"tcp {guest.lookup(name=web.host)['addresses'][0]}:80"
