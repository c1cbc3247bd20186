"""What every play has: the machine, the cluster, the node under test, and their logs when something went wrong."""

from . import stage
from .cluster import Cluster
from .guest import Guest
from .node import Node


def perform(report, args, play, **limits):
    """Sets everything up and calls `play` with guest, cluster and node."""
    stage.prepare(args.work)
    with Guest(args.rig, args.work, **limits) as guest, Cluster(args.lab, args.work) as cluster:
        node = Node(guest, args.program)
        with report.step("start"):
            cluster.wait_for_agents()
            guest.wait()
            guest.build_network()
            report.note("a real Mesos with three agents runs, the guest has its network")
            play(guest, cluster, node)
            if report.failed:
                report.quote("the daemon's log", node.log())
        if report.failed:
            report.quote("the machine", guest.log())
            report.quote("the lab", cluster.log())
