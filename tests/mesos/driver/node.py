"""The node under test: the daemon in the guest, and what its commands say."""

import json

CONFIG = "/run/l4lbd-test/l4lbd.toml"
SOCKET = "/run/l4lbd/l4lbd.sock"
LOG = "/run/l4lbd-test/log"
ZONE = "l4lb.thisdcos.directory"
ADDRESS = "10.77.0.1"
# Exit status of `l4lbd status` when somebody is needed.
DEGRADED = 2


def full(name):
    return f"{name}.{ZONE}"


class Node:
    def __init__(self, guest, program):
        self.guest, self.program = guest, str(program)

    def start(self, masters, more="", marathons=(), **source):
        """Starts the daemon with this list of masters, other keys of [source], and more of a configuration."""
        source = {"masters": masters, "interval": "1s", "timeout": "5s", "max_backoff": "4s", **source}
        config = "[source]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in source.items())
        # So long that only events can tell of changes.
        config += f'[marathon]\nurls = {json.dumps(list(marathons))}\ninterval = "10m"\n'
        config += f'[node]\naddress = "{ADDRESS}"\n{more}'
        self.guest.write(path=CONFIG, text=config)
        self.guest.start(label="daemon", command=[self.program, "run", "--config", CONFIG], log=LOG)

    def stop(self):
        """Ends it; returns its exit status."""
        return self.guest.stop(label="daemon")

    def crash(self):
        """Ends it in the middle of whatever it does."""
        self.guest.kill(label="daemon")

    def usage(self):
        """What it takes: memory in MB, file descriptors, threads."""
        return self.guest.usage(label="daemon")

    def command(self, *words):
        """Runs one of the program's commands."""
        return self.guest.execute(command=[self.program, *words, "--config", CONFIG])

    def status(self):
        """`l4lbd status --json`, with its exit status."""
        done = self.command("status", "--json")
        if not done["output"]:
            raise RuntimeError(f"status: exit {done['status']}: {done['errors'].strip()}")
        return Status(done["status"], json.loads(done["output"]))

    def look(self):
        """The same from the daemon's socket, which there is much quicker than to start a program."""
        status = json.loads(self.guest.get(path=SOCKET, url="/status")["body"])
        return Status(DEGRADED if status["degraded"] else 0, status)

    def told(self, wanted):
        """A probe that looks, and as soon as that is as wanted, takes what the command says."""
        return lambda: self.status() if wanted(self.look()) else self.look()

    def log(self):
        return self.guest.execute(command=["cat", LOG])["output"]


class Status:
    def __init__(self, exit, document):
        self.exit, self.document = exit, document
        self.source, self.reasons = document["source"], document["reasons"]

    def calm(self):
        """Whether nothing is wrong or held back."""
        return self.exit == 0 and not self.reasons and not self.source["held"]

    def backends(self, name=None, address=None, port=80, protocol="tcp", ipv6=False):
        """Weights by backend address of one VIP; None if there is no such VIP."""
        for vip in self.document["vips"]:
            same = vip["name"] == full(name) if name else vip["address"] == address
            if (
                same
                and vip["port"] == port
                and vip["protocol"] == protocol
                and (":" in vip["address"]) == ipv6
            ):
                return {join(b["address"], b["port"]): b["weight"] for b in vip["backends"]}
        return None

    def conditions(self, name):
        """Why the backends of a named VIP get connections or not."""
        vips = (vip for vip in self.document["vips"] if vip["name"] == full(name))
        return {backend["condition"] for vip in vips for backend in vip["backends"]}

    def reason(self, kind):
        """The first reason of a kind such as `source`, or None."""
        return next((reason for reason in self.reasons if reason.startswith(f"{kind}:")), None)

    def skipped(self):
        """Reasons by label value."""
        return {entry.get("value"): entry.get("reason") for entry in self.document["skipped"]}

    def __repr__(self):
        vips = [
            f"{v['name'] or v['address']}:{v['port']}/{v['protocol']} "
            + ",".join(f"{join(b['address'], b['port'])}={b['weight']}" for b in v["backends"])
            for v in self.document["vips"]
        ]
        return f"exit {self.exit}, reasons {self.reasons}, source {self.source}, vips {vips}"


def join(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
