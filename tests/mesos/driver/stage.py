"""The private network on this side: addresses and names of masters and agents.

The guest reaches them by the same addresses, because its gateway connects here on its behalf. Only the agents'
addresses mean something else there: itself and the two other hosts of its LAN.
"""

import subprocess
from pathlib import Path

# The guest's name for this side's loopback.
GATEWAY = "10.0.2.2"

LEADER = "10.78.0.1"
STANDBY = "10.78.0.2"
LEADERLESS = "10.78.0.3"
# Nothing listens there; somebody listens who is no master.
DEAD = "10.78.0.4"
IMPOSTOR = "10.78.0.5"
# Masters that want a password and elect their leader in ZooKeeper; two Marathons.
SECURED = "10.78.0.7"
SECURED_STANDBY = "10.78.0.8"
ZOOKEEPER = "10.78.0.9"
MARATHON = "10.78.0.10"
MARATHON_FOLLOWER = "10.78.0.11"
# Not even this address exists.
NOWHERE = "10.79.0.1"

MASTER_PORT = 5050
AGENT_PORT = 5051
SECURED_AGENT_PORT = 5061
ZOOKEEPER_PORT = 2181
MARATHON_PORT = 8080

NAMES = {LEADER: "mesos-1", STANDBY: "mesos-2", LEADERLESS: "mesos-3", SECURED: "mesos-7", SECURED_STANDBY: "mesos-8"}
OTHERS = (DEAD, IMPOSTOR, ZOOKEEPER, MARATHON, MARATHON_FOLLOWER)
AGENTS = {"node-1": "10.77.0.1", "node-2": "10.77.0.2", "node-3": "10.77.0.3"}


def url(master):
    return f"http://{master}:{MASTER_PORT}"


def prepare(work):
    """Brings up addresses and names; needs network and mount namespaces of our own."""
    commands = ["link set lo up"]
    commands += [f"address add {a}/32 dev lo" for a in (*NAMES, *OTHERS, *AGENTS.values())]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
    # A standby redirects to the leader's name, and a master does not start without its own.
    hosts = Path("/etc/hosts").read_text() + "".join(f"{address} {name}\n" for address, name in NAMES.items())
    (work / "hosts").write_text(hosts)
    subprocess.run(["mount", "--bind", work / "hosts", "/etc/hosts"], check=True)
