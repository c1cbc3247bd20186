"""Lists of masters: standbys, wrong ones, dead ones, and none at all."""

import http.server
import threading
from contextlib import contextmanager

from .. import stage
from ..node import Status
from ..stage import url
from .apps import dials, launch_web, reached, served, undisturbed


def standby(world):
    """a standby master is asked, which only knows the leader's name"""
    report, guest, node = world.report, world.guest, world.node
    web = launch_web(world, "/patient")
    with undisturbed(world, web, "while the daemon was restarted"):
        report.now("the daemon ends when asked to", node.stop(), 0)
        node.start([url(stage.STANDBY)])
        status = report.told("it follows the standby's redirect", node, Status.calm)
        report.now("to the leader", "mesos-1" in status.source["place"])
    later = launch_web(world, "/later")
    report.check("changes arrive this way", dials(guest, later.host), reached(*later.servers()))
    done = node.command("plan")
    report.now("plan has nothing to do", "\n# 0 operations" in "\n" + done["output"])


def masters(world):
    """wrong and dead masters are skipped"""
    report, guest, node = world.report, world.guest, world.node
    web = launch_web(world, "/careful")
    with impostor() as asked, undisturbed(world, web, "while the daemon was restarted"):
        node.stop()
        wrong = [url(stage.NOWHERE), url(stage.DEAD), url(stage.IMPOSTOR), url(stage.IMPOSTOR) + "/missing"]
        node.start([*wrong, url(stage.LEADERLESS), url(stage.STANDBY)])
        status = report.told("the master at the end of the list is found", node, Status.calm)
        report.now("which is the leader", "mesos-1" in status.source["place"])
        report.now("those before it were asked", asked, {"/master/state", "/missing/master/state"})
    later = launch_web(world, "/later-still")
    report.check("changes arrive this way", dials(guest, later.host), reached(*later.servers()))


def gone(world):
    """the master is killed for good"""
    report, guest, node = world.report, world.guest, world.node
    web = launch_web(world, "/last")
    report.need("nothing is wrong before", node.look, Status.calm)
    before = guest.services()
    with undisturbed(world, web, "without a master"):
        world.cluster.kill_master()
        status = report.told(
            "status says so by its exit code, and why", node, lambda s: s.exit == 2 and s.reason("source")
        )
        report.now(
            "it names the master",
            "mesos-1" in str(status.reason("source")) or stage.LEADER in str(status.reason("source")),
        )
        text = node.command("status")
        report.note(text["output"].split("\n\n")[0])
        report.now(
            "a person sees that in the first lines", "source:" in "\n".join(text["output"].split("\n")[:3])
        )
        report.now("the kernel's table is kept", guest.services(), before)

        node.stop()
        node.start([url(stage.LEADER)])
        report.told(
            "a daemon that starts now says that it waits for a state",
            node,
            lambda s: s.exit == 2 and s.source["good_at"] is None and s.reason("source"),
        )
        report.check("the name is answered", lambda: len(guest.lookup(name=web.host)["addresses"]), 1)
        report.check("and works", dials(guest, web.host), served(*web.servers()))
        report.now("the kernel's table is kept", guest.services(), before)

    foreign = "tcp 192.0.2.50:80"
    guest.execute(command=["ipvsadm", "-A", "-t", "192.0.2.50:80", "-s", "rr"])
    report.now("purge is refused while the daemon runs", node.command("purge")["status"], 1)
    report.now("the daemon ends when asked to", node.stop(), 0)
    report.now("the kernel goes on without it", guest.services(), {**before, foreign: {}})
    report.now("purge works then", node.command("purge")["status"], 0)
    report.now("and leaves only what belongs to others", guest.services(), {foreign: {}})


@contextmanager
def impostor():
    """A web server that is no master; gives the set of paths that it was asked for."""
    asked = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.add(self.path)
            self.send_response(404 if self.path.startswith("/missing") else 200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>It works!</html>")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer((stage.IMPOSTOR, stage.MASTER_PORT), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield asked
        finally:
            server.shutdown()
