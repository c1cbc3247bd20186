"""Plays the soak; started by `soak` through `run`, in namespaces of its own."""

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path

from .churn import ROUND, Churn
from .node import Status, full
from .oracle import Oracle
from .report import Report
from .scene import perform
from .steps.apps import dials, launch_web, served

# Apps that nothing happens to, each with two tasks, and how many clients each has, with the pause between attempts.
STEADY = ("/steady-a", "/steady-b", "/steady-c")
CLIENTS = 2
PAUSE = 0.25

# What a daemon may take more at the end than after the first third: what its allocator keeps, and a connection to the
# master that stays open for the next question.
GROWTH_MB = 8
GROWTH_DESCRIPTORS = 2

# Longest wait for everything to drain and to be forgotten, see `churn.CONFIG`.
REST = 90

LEASES = "/var/lib/l4lbd/leases.json"
LEASES_CHANGES = "/var/lib/l4lbd/leases.journal"
SYSCTLS = ("vs.conntrack", "vs.expire_nodest_conn", "vs.expire_quiescent_template", "ip_forward")


class World:
    """What `launch_web` needs."""

    def __init__(self, report, cluster, guest, node):
        self.report, self.cluster, self.guest, self.node = report, cluster, guest, node


class Soak:
    def __init__(self, world, churn):
        self.world, self.churn, self.report = world, churn, world.report
        self.guest, self.node, self.cluster = world.guest, world.node, world.cluster
        self.webs, self.addresses, self.known = [], {}, set()
        self.totals = {"connected": 0, "echoed": 0, "failed": 0}

    def prepare(self):
        """Everything that stays the same from here on."""
        self.churn.start()
        self.report.told("the daemon is content", self.node, Status.calm)
        self.first = self.surroundings()
        self.webs = [launch_web(self.world, id) for id in STEADY]
        self.note_addresses()
        self.churn.sacred = {f"{self.addresses[web.name, 4]}:80" for web in self.webs}

    def disturb(self, seconds):
        """Rounds until the time is over; returns what the daemon took when it had warmed up."""
        began = time.monotonic()
        self.play(crashes=True)
        while time.monotonic() - began < seconds / 3:
            self.play(crashes=True)
        # One round without a crash warms the last process up.
        warm = self.play(crashes=False)
        while time.monotonic() - began < seconds:
            self.play(crashes=False)
        return warm

    def play(self, crashes):
        """A round under the eyes of clients, then a disaster without them; returns what the daemon takes."""
        for place in range(CLIENTS):
            for web in self.webs:
                self.guest.start_stream(label=f"{web.id}{place}", host=web.host, port=80, pause=PAUSE)
        try:
            self.churn.play_round(crashes)
        finally:
            failures = []
            for web in self.webs:
                clients = [self.guest.stop_stream(label=f"{web.id}{place}") for place in range(CLIENTS)]
                self.totals["connected"] += sum(client["connected"] for client in clients)
                self.totals["echoed"] += sum(client["echoed"] for client in clients)
                failures += [f"{web.id}: {failure}" for client in clients for failure in client["failures"]]
                busy = all(client["connected"] and client["echoed"] for client in clients)
                self.report.now(f"round {self.churn.rounds}: clients of {web.id} were at work", busy)
            self.totals["failed"] += len(failures)
            self.report.now(f"round {self.churn.rounds}: none of them failed", failures, [])
        self.note_addresses()
        kind = self.churn.disaster()
        self.report.check(
            f"connection tracking is on ({kind})",
            lambda: self.output("sysctl", "-n", "net.ipv4.vs.conntrack").strip(),
            "1",
        )
        for web in self.webs:
            self.report.check(
                f"{web.name} is served again after the loss of all ({kind})",
                dials(self.guest, web.host, times=4),
                served(*web.servers()),
            )
        usage = self.node.usage()
        self.report.note(f"after round {self.churn.rounds} the daemon takes {usage}")
        return usage

    def note_addresses(self):
        """Looks up the names that there are now, and compares with when they were first seen."""
        moved = {}
        for name, families in Oracle(self.cluster.state()).names().items():
            for family in families:
                found = self.lookup(name, family)
                if len(found) > 1:
                    moved[name, family] = found
                for address in found:
                    if self.addresses.setdefault((name, family), address) != address:
                        moved[name, family] = [self.addresses[name, family], address]
        if moved:
            self.report.now("names keep their addresses", moved, {})

    def lookup(self, name, family):
        return self.guest.lookup(name=full(name), kind={4: "A", 6: "AAAA"}[family])["addresses"]

    def judge(self, warm):
        """When all is quiet: the kernel, the names, what is kept, what the daemon takes."""
        report = self.report
        self.churn.wait("Mesos has come to rest", lambda: self.churn.settled(finally_=True))
        state = self.cluster.state()
        oracle = Oracle(state)
        running = sum(len(framework["tasks"]) for framework in state["frameworks"])
        report.note(f"at the end Mesos runs {running} tasks, with {len(oracle.vips)} VIPs")
        report.told("the daemon is content", self.node, Status.calm)
        report.check(
            "every name has the address that it had at first, and only that",
            lambda: self.names_differ(oracle),
            {},
            within=REST,
        )
        report.check("no two names share an address", self.shared, [])
        self.same("virtual services", lambda: oracle.services(self.addresses), self.services)
        sources = {4: "10.77.0.1", 6: "fd77::1"}
        self.same(
            "local routes on the link",
            lambda: {f"{net} src {sources[f]}" for f, nets in oracle.networks().items() for net in nets},
            self.routes,
        )
        self.same(
            "networks in netfilter's sets",
            lambda: {net for nets in oracle.networks().values() for net in nets},
            self.guarded,
        )
        self.same("other rules, links, addresses, settings", lambda: self.first, self.surroundings)
        self.same("names that are remembered", lambda: {f"{n} {f}" for n, f in self.present(oracle)}, self.leased)
        self.same("VIPs that are remembered", lambda: expected_vips(oracle), self.remembered)
        forgotten = {name for name, _ in self.addresses} - set(oracle.names())
        for name in sorted(forgotten):
            report.check(
                f"{name}, of which no task is left, is unknown",
                lambda name=name: self.guest.lookup(name=full(name))["status"],
                "NXDOMAIN",
            )
        plan = self.node.command("plan")["output"]
        report.now("plan has nothing to do", "\n# 0 operations" in "\n" + plan)
        report.check(
            f"the daemon has no more descriptors open than after warming up ({warm['descriptors']})",
            self.node.usage,
            lambda usage: usage["descriptors"] <= warm["descriptors"] + GROWTH_DESCRIPTORS,
        )
        usage = self.node.usage()
        report.now(
            f"it takes {usage['MB']} MB, at most {GROWTH_MB} more than after warming up ({warm['MB']})",
            usage["MB"] <= warm["MB"] + GROWTH_MB,
        )
        report.note(f"warm: {warm}; at the end: {usage}")

    def same(self, what, wanted, found):
        """Waits until two sets are equal; lists the differences where they stay."""
        difference = self.report.check(
            f"{what}: as the oracle says",
            lambda: {"missing": sorted(wanted() - found()), "too many": sorted(found() - wanted())},
            {"missing": [], "too many": []},
            within=REST,
        )
        for kind in ("missing", "too many"):
            for line in difference.get(kind, ()) if isinstance(difference, dict) else ():
                self.report.note(f"{kind}: {line}")

    @staticmethod
    def present(oracle):
        return {(name, family) for name, families in oracle.names().items() for family in families}

    def names_differ(self, oracle):
        differ = {}
        for name, family in self.present(oracle):
            found = self.lookup(name, family)
            if len(found) != 1 or self.addresses.setdefault((name, family), found[0]) != found[0]:
                differ[name, family] = (self.addresses.get((name, family)), found)
        return differ

    def shared(self):
        addresses = list(self.addresses.values())
        return sorted(address for address in set(addresses) if addresses.count(address) > 1)

    def output(self, *command):
        done = self.guest.execute(command=command)
        if done["status"]:
            raise RuntimeError(f"{' '.join(command)}: {done['errors']}")
        return done["output"]

    def services(self):
        return {line.strip() for line in self.output("ipvsadm", "-Sn").split("\n") if line.strip()}

    def routes(self):
        """Those that the kernel did not make by itself for an address of the link."""
        found = set()
        for family in ("-4", "-6"):
            listing = self.output("ip", family, "route", "show", "table", "local", "dev", "minuteman")
            for line in listing.split("\n"):
                words = line.split()
                if words and words[0] == "local" and "kernel" not in words:
                    source = words[words.index("src") + 1] if "src" in words else None
                    found.add(f"{words[1]} src {source}")
        return found

    def guarded(self):
        text = self.output("nft", "list", "table", "inet", "l4lbd")
        sets = re.findall(r"set vips[46] {.*?elements = {(.*?)}", text, re.DOTALL)
        return {element.strip() for elements in sets for element in elements.split(",")}

    def surroundings(self):
        """What never depends on tasks, one line each."""
        rules = re.sub(
            r"(set vips[46] {[^}]*?)\s*elements = {[^}]*}", r"\1", self.output("nft", "-s", "list", "ruleset")
        )
        found = {f"nft {place}: {line.strip()}" for place, line in enumerate(rules.split("\n")) if line.strip()}
        for command in (["ip", "rule"], ["ip", "-6", "rule"], ["ip", "route"], ["ip", "-6", "route"]):
            lines = re.sub(r"expires \d+sec", "", self.output(*command)).split("\n")
            found |= {f"{' '.join(command)}: {' '.join(line.split())}" for line in lines}
        for link in json.loads(self.output("ip", "-j", "address")):
            found |= {
                f"{link['ifname']}: {address['local']}/{address['prefixlen']}"
                for address in link["addr_info"]
                if address["scope"] != "link"
            } | {f"{link['ifname']}: {flag}" for flag in link["flags"]}
        for setting in SYSCTLS:
            found.add(f"{setting} = {self.output('sysctl', '-n', f'net.ipv4.{setting}').strip()}")
        return found

    def kept(self):
        """The addresses as a start would read them: all of them, and what has changed since."""
        whole = json.loads(self.output("cat", LEASES))
        kept = whole["content"]
        vips = {json.dumps({part: vip[part] for part in ("host", "protocol", "port")}): vip for vip in kept["vips"]}
        changes = self.output("sh", "-c", f"cat {LEASES_CHANGES} 2>/dev/null || true").splitlines()
        records = [json.loads(line.rsplit("\t", 1)[0]) for line in changes]
        if records and records[0]["of"] == whole.get("journal"):
            for record in records[1:]:
                for family in ("leases4", "leases6"):
                    edits = record.get(family, {})
                    kept[family].update(edits.get("set", []))
                    for name in edits.get("gone", []):
                        kept[family].pop(name, None)
                edits = record.get("vips", {})
                for vip, since in edits.get("set", []):
                    vips[json.dumps(vip)] = vip if since is None else vip | {"vacant_since": since}
                for vip in edits.get("gone", []):
                    vips.pop(json.dumps(vip), None)
        return kept | {"vips": list(vips.values())}

    def leased(self):
        kept = self.kept()
        return {f"{name} {family}" for family in (4, 6) for name in kept[f"leases{family}"]}

    def remembered(self):
        """Without the spelling of the file, which is the daemon's own matter."""
        return {json.dumps(sorted(str(value) for value in flat(vip))) for vip in self.kept()["vips"]}


def expected_vips(oracle):
    return {json.dumps(sorted([str(host), protocol, str(port)])) for host, protocol, port in oracle.vips}


def flat(value):
    """The leaves of a document."""
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in flat(part)]
    return [value]


def arguments():
    parser = argparse.ArgumentParser(prog="tests/mesos/soak", description=__doc__)
    parser.add_argument("--seconds", type=int, default=90, metavar="N", help="how long to disturb")
    parser.add_argument("--seed", default=str(random.randrange(1_000_000)), metavar="S")
    for path in ("--lab", "--rig", "--program", "--work"):
        parser.add_argument(path, type=Path)
    return parser.parse_args()


def main():
    args = arguments()
    report = Report()
    report.note(f"seed {args.seed}: events and their details are the same for the same seed")

    def play(guest, cluster, node):
        churn = Churn(report, cluster, guest, node, args.seed)
        soak = Soak(World(report, cluster, guest, node), churn)
        soak.prepare()
        with report.step("disturb"):
            warm = soak.disturb(args.seconds)
            missed = [name for name in ROUND if not churn.counts[name]]
            report.now("every kind of event happened", missed, [])
            with report.step("judge"):
                soak.judge(warm)
        report.note(f"{churn.rounds} rounds, seed {args.seed}: {dict(churn.counts)}; clients: {soak.totals}")

    # Generous: it is only there for the case that nobody ends the guest.
    perform(report, args, play, lifetime=2 * args.seconds + 900)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
