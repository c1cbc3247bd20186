"""What happens in a round of the soak: the order and the details of all events follow from the seed."""

import random
import time
from collections import Counter

from . import stage
from .node import full
from .report import Stop
from .stage import AGENTS, url
from .steps.apps import NAMESPACES
from .steps.apps_of_all_kinds import address, container, discovery

# How often each event comes in a round. A crash makes a process that has no history to leak from, so there is none
# in rounds that memory is measured in.
ROUND = {"launch": 6, "kill": 4, "health": 4, "visit": 3, "damage": 4, "failover": 1, "crash": 2}

# Longest pause after an event, in seconds.
PAUSE = 1.0

# More tasks than that are not launched.
MOST_TASKS = 40

# Names of apps; what kind an app is follows from its place.
APPS = 12

# What the soak configures beyond the driver's own: nothing may take longer than the end of the soak waits.
CONFIG = """address6 = "fd77::1"
[vips]
linger = "8s"
[ipvs]
audit = "5s"
drain = "6s"
"""

# Damage that takes nothing from the steady VIPs; the service, and a server of it, are those that have their turn.
# `ipvsadm -E` is not among it: it removes what marks a service as the daemon's, which then is somebody else's.
DAMAGE = {
    "nft table": lambda service, server: ["nft", "delete", "table", "inet", "l4lbd"],
    "service gone": lambda service, server: ["ipvsadm", "-D", *service],
    "server gone": lambda service, server: ["ipvsadm", "-d", *service, "-r", server],
    "weight": lambda service, server: ["ipvsadm", "-e", *service, "-r", server, "-m", "-w", "7"],
    "server": lambda service, server: ["ipvsadm", "-a", *service, "-r", stray(service), "-m", "-w", "7"],
    "expiry": lambda service, server: ["sysctl", "-q", "-w", "net.ipv4.vs.expire_nodest_conn=0"],
}

# Damage that takes all VIPs away, or the connections to any of them that are just being made.
DISASTERS = {
    "ipvsadm -C": ["ipvsadm", "-C"],
    "route": ["ip", "route", "del", "local", "11.0.0.0/8", "dev", "minuteman", "table", "local"],
    "link": ["ip", "link", "del", "minuteman"],
    "conntrack": ["sysctl", "-q", "-w", "net.ipv4.vs.conntrack=0"],
}


class Idle(Exception):
    """There is nothing that an event could happen to; says what is missing."""


class Churn:
    def __init__(self, report, cluster, guest, node, seed):
        self.report, self.cluster, self.guest, self.node = report, cluster, guest, node
        self.seed, self.number = seed, 0
        self.counts = Counter()
        # Task ids that should run, with their apps; those that have been killed.
        self.running, self.killed = {}, set()
        self.served, self.visits = set(), 0
        # Addresses, as texts, that no event may touch.
        self.sacred = set()
        self.rounds = 0

    def play_round(self, crashes):
        """All events of a round in random order."""
        self.rounds += 1
        bag = [name for name, times in ROUND.items() for _ in range(times) if crashes or name != "crash"]
        self.dice("round").shuffle(bag)
        if self.rounds == 1:  # nothing else can happen before
            bag.sort(key=lambda name: name != "launch")
        for name in bag:
            self.number += 1
            dice = self.dice(self.number)
            began = time.monotonic()
            try:
                what = getattr(self, name)(dice)
                self.counts[name] += 1
            except Idle as reason:
                what = f"left out: {reason}"
            self.report.note(f"{self.number:4} {name} {what} ({time.monotonic() - began:.1f} s)")
            time.sleep(dice.random() * PAUSE)

    def disaster(self):
        """Takes all VIPs away; returns what was done."""
        self.number += 1
        kind = self.dice(self.number).choice(sorted(DISASTERS))
        self.damage_by(DISASTERS[kind])
        self.counts["disaster"] += 1
        return kind

    def dice(self, what):
        return random.Random(f"{self.seed} {what} {self.rounds}")

    def launch(self, dice):
        # The first ones are one of each kind.
        app = self.number - 1 if self.number <= 6 else dice.randrange(APPS)
        nodes = dice.sample(sorted(AGENTS), dice.randint(1, 2))
        options = {"healthy": dice.choice([None, True, False]), "options": {"kill_delay": dice.choice([0, 1, 4])}}
        if len(self.running) >= MOST_TASKS:
            raise Idle("there are enough tasks")
        kind = [self.host, self.both, self.literal, self.docker, self.mesos, self.overlay][app % 6]
        for task in kind(f"soak-{app}", nodes, options):
            self.running[task] = f"soak-{app}"
        return f"soak-{app} on {', '.join(nodes)}, healthy: {options['healthy']}"

    def app(self, app, nodes, options, definition, **more):
        definition = {"id": f"/{app}", "instances": len(nodes), **definition}
        return self.cluster.control("app", app=definition, agents=nodes, **options, **more)

    def host(self, app, nodes, options):
        # Spelled so that the rules of names matter.
        ports = [{"name": "http", "labels": {"VIP_0": f"/{app.replace('-', '_').upper()}/x:80"}}]
        return self.app(app, nodes, options, definition={"portDefinitions": ports})

    def both(self, app, nodes, options):
        ports = [{"name": "dns", "protocol": "tcp,udp", "labels": {"VIP_0": f"{app}:53", "vip_1": f"{app}:54"}}]
        return self.app(app, nodes, options, definition={"portDefinitions": ports})

    def literal(self, app, nodes, options):
        ports = [{"name": "http", "labels": {"VIP_0": f"10.99.0.{app.split('-')[1]}:6666"}}]
        health = [{"protocol": "MESOS_TCP"}]
        return self.app(app, nodes, options, definition={"portDefinitions": ports, "healthChecks": health})

    def docker(self, app, nodes, options):
        mapping = {"containerPort": 8080, "hostPort": 0, "labels": {"VIP_0": f"/{app}:80"}}
        bridge = {"networks": [{"mode": "container/bridge"}], "container": container("DOCKER", mapping)}
        return self.app(app, nodes, options, definition=bridge, status=address("172.17.0.11"))

    def mesos(self, app, nodes, options):
        tasks = []
        for place, node in enumerate(nodes):
            port = 20000 + 2 * self.number + place
            mapping = {"host_port": port, "container_port": port + 1000, "protocol": "tcp"}
            task = {
                "name": app,
                "task_id": {"value": f"{app}.{port}"},
                "container": {
                    "type": "MESOS",
                    "mesos": {},
                    "network_infos": [{"ip_addresses": [{}], "labels": {}, "port_mappings": [mapping]}],
                },
                "discovery": discovery(app, port, {"VIP_0": f"/{app}:80", "network-scope": "host"}),
            }
            tasks.append(
                self.cluster.control("task", agent=node, task=task, status=address("172.17.0.12"), **options)
            )
        return tasks

    def overlay(self, app, nodes, options):
        mapping = {"containerPort": 30000 + self.number, "labels": {"VIP_0": f"/{app}:80"}}
        network = {
            "networks": [{"mode": "container", "name": "dcos"}],
            "container": container("DOCKER", mapping),
        }
        status = address("9.0.3.130", "fd01:b::3:8002", network="dcos")
        return self.app(app, nodes[:1], options, definition=network, status=status)

    def kill(self, dice):
        task = self.any_task(dice)
        self.cluster.wait_for_tasks([task])
        self.cluster.control("kill", task=task)
        self.killed.add(task)
        return f"a task of {self.running.pop(task)}"

    def health(self, dice):
        healthy = dice.random() < 0.6
        task = self.any_task(dice)
        self.cluster.wait_for_tasks([task])
        self.cluster.control("health", task=task, healthy=healthy)
        return f"of a task of {self.running[task]}: {healthy}"

    def visit(self, dice):
        """A client opens a connection to one of those tasks and leaves it open, whatever comes."""
        vips = {"0": ("x", 80), "1": ("", 53), "3": ("", 80)}
        kinds = {app: vips[str(app % 6)] for app in range(APPS) if str(app % 6) in vips}
        task = self.any_task(dice, {f"soak-{app}" for app in kinds})
        app = self.running[task]
        ending, port = kinds[int(app.split("-")[1])]
        (found,) = self.cluster.wait_for_tasks([task])
        if task not in self.served:
            self.served.add(task)
            self.guest.serve(name=task, namespace=NAMESPACES[found.node], protocol="tcp", port=found.ports[0])
        self.visits += 1
        try:
            done = self.guest.connect(
                label=f"visit-{self.visits}",
                host=full(f"{app}{ending}.marathon"),
                port=port,
                server=task,
                attempts=2,
            )
        except RuntimeError as error:  # ill, not known yet, or another task without a server
            return f"{app}: {error}"
        return f"{app}: {'connected' if done else 'somebody else answered'}"

    def damage(self, dice):
        kind, place = dice.choice(sorted(DAMAGE)), dice.random()
        services = self.guest.services()
        mortal = sorted(name for name in services if name.split()[1] not in self.sacred)
        if not mortal:
            raise Idle("there are no services")
        name = mortal[int(place * len(mortal))]
        protocol, service = name.split()
        service = [f"-{protocol[0]}", service]
        self.damage_by(DAMAGE[kind](service, min(services[name], default=stray(service))))
        return f"{kind}, at {name}"

    def damage_by(self, command):
        # May be gone already: the daemon works meanwhile.
        self.guest.execute(command=command)

    def failover(self, dice):
        down = dice.choice([0, 1, 3])
        # What the old master accepts but tells no agent before it dies is lost for good, which is Mesos' way.
        self.settle()
        before = self.cluster.state()["id"]
        self.cluster.restart_master(down).join()
        self.wait("a new master has all agents", lambda: self.complete(before))
        return f"after {down} s"

    def complete(self, before):
        state = self.cluster.state()
        active = [framework["name"] for framework in state["frameworks"] if framework["active"]]
        return state["id"] != before and state["activated_slaves"] == len(AGENTS) and "marathon" in active

    def crash(self, dice):
        down = dice.choice([0, 0.5, 2])
        self.node.crash()
        time.sleep(down)
        self.start()
        return f"for {down} s"

    def start(self):
        self.node.start([url(stage.LEADER)], CONFIG)

    def any_task(self, dice, apps=None):
        """One of those that should run, perhaps of certain apps only; the same for the same seed."""
        place = dice.random()
        tasks = [task for task, app in self.running.items() if apps is None or app in apps]
        if not tasks:
            raise Idle("there are no tasks")
        return tasks[int(place * len(tasks))]

    def settle(self):
        """Waits until what should run does, and what was killed does not."""
        self.wait("Mesos has come to rest", self.settled, within=60)

    def settled(self, finally_=False):
        states = {
            task["id"]: task["state"] for fw in self.cluster.state()["frameworks"] for task in fw["tasks"]
        }
        dying = {task for task, state in states.items() if state == "TASK_KILLING"}
        up = all(states.get(task) == "TASK_RUNNING" for task in self.running)
        return up and not (self.killed & set(states)) - (set() if finally_ else dying)

    def wait(self, what, probe, within=90):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            try:
                if probe():
                    return
            except OSError:  # the master is down
                pass
            time.sleep(0.2)
        self.report.result(False, f"{what} within {within} s")
        raise Stop


def stray(service):
    """A server that no task has."""
    return "[fd77::9]:9" if "[" in service[1] else "10.77.0.9:9"
