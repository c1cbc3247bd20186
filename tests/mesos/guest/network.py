"""The network of the node under test: a LAN with two more hosts, and a container bridge of its own.

    node (the guest itself)  10.77.0.1  fd77::1      lan0 ─┐
    n2                       10.77.0.2  fd77::2          ──┼─ bridge in the namespace "lan"
    n3                       10.77.0.3  fd77::3          ──┘
    c1, c2                   172.17.0.11, .12        on the node's bridge docker0

n3 also holds the addresses of containers on an overlay network: 9.0.3.130 and fd01:b::3:8002.
"""

import ctypes
import os
import subprocess
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

# The node itself, then each namespace: what `ip` has to do there.
NODE = """
netns add lan
netns add n2
netns add n3
netns add c1
netns add c2
link add lan0 type veth peer name to1 netns lan
link add to2 netns lan type veth peer name lan0 netns n2
link add to3 netns lan type veth peer name lan0 netns n3
link set lan0 up
address add 10.77.0.1/24 dev lan0
address add fd77::1/64 dev lan0 nodad
route add 9.0.3.128/25 via 10.77.0.3
route add fd01:b::3:0/112 via fd77::3
link add docker0 type bridge
link add veth1 master docker0 type veth peer name eth0 netns c1
link add veth2 master docker0 type veth peer name eth0 netns c2
link set docker0 up
link set veth1 up
link set veth2 up
address add 172.17.0.1/16 dev docker0
"""

LAN = """
link add bridge type bridge
link set bridge up
link set to1 master bridge up
link set to2 master bridge up
link set to3 master bridge up
"""

HOST = """
link set lo up
link set lan0 up
address add 10.77.0.{n}/24 dev lan0
address add fd77::{n}/64 dev lan0 nodad
"""

OVERLAY = """
address add 9.0.3.130/32 dev lan0
address add fd01:b::3:8002/128 dev lan0 nodad
"""

CONTAINER = """
link set lo up
link set eth0 up
address add 172.17.0.1{n}/16 dev eth0
route add default via 172.17.0.1
"""

NAMESPACES = {
    "lan": LAN,
    "n2": HOST.format(n=2),
    "n3": HOST.format(n=3) + OVERLAY,
    "c1": CONTAINER.format(n=1),
    "c2": CONTAINER.format(n=2),
}

# What Docker does for a bridge: containers leave under the node's address, published ports are rewritten.
DOCKER_RULES = """
table ip docker {
  chain published {}
  chain incoming { type nat hook prerouting priority dstnat; fib daddr type local jump published; }
  chain outgoing { type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local jump published; }
  chain leaving { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
}
"""

RESOLVER = "nameserver 198.51.100.1\noptions timeout:2 attempts:2\n"


def build():
    """Sets all of it up, and makes the daemon the resolver of the node."""
    batch(["ip"], NODE)
    for namespace, lines in NAMESPACES.items():
        batch(["ip", "-n", namespace], lines)
    subprocess.run(["nft", "-f", "-"], input=DOCKER_RULES, text=True, check=True)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as forward:
        forward.write("1")
    with open("/run/resolv.conf", "w") as resolver:
        resolver.write(RESOLVER)
    subprocess.run(["mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf"], check=True)


def batch(ip, lines):
    subprocess.run([*ip, "-batch", "-"], input=lines, text=True, check=True)


def publish(port, address, container_port):
    """Publishes a container's TCP port by a rule, as Docker does."""
    rule = f"add rule ip docker published tcp dport {port} dnat to {address}:{container_port}"
    subprocess.run(["nft", rule], check=True)


def inside(namespace, make):
    """Calls `make` in a network namespace; sockets stay in the one that they were made in."""
    if namespace is None:
        return make()
    outcome = {}

    def enter():
        try:
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                if LIBC.setns(handle, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {namespace}")
            finally:
                os.close(handle)
            outcome["value"] = make()
        except Exception as error:  # handed to the caller's thread
            outcome["error"] = error

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
