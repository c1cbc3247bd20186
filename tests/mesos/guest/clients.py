"""Clients of VIPs, on the node or in one of its containers."""

import socket
import subprocess
import threading
import time
from collections import Counter

from .network import inside

# Longest wait of a client; the guest is emulated, hence slow.
PATIENCE = 8

connections = {}
streams = {}


def lookup(name, kind="A"):
    """Asks the daemon's name server; returns status and addresses."""
    command = ["dig", "@198.51.100.1", name, kind, "+tries=2", "+time=3"]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    status = next(
        (line.split("status: ")[1].split(",")[0] for line in output.split("\n") if "status: " in line), None
    )
    records = [line.split() for line in output.split("\n") if line and not line.startswith(";")]
    return {"status": status, "addresses": [record[4] for record in records if record[3] == kind]}


def dial(host, port, times=1, namespace=None):
    """Connects again and again, by name or address.

    Returns how often each server answered, each error, the client addresses that the servers saw, and the slowest
    attempt in seconds.
    """
    address = resolve(host)
    servers, errors, seen, slowest = Counter(), Counter(), set(), 0
    for _ in range(times):
        started = time.monotonic()
        try:
            with opened(address, port, namespace) as (_, line):
                servers[line[0]] += 1
                seen.add(line[1])
        except OSError as error:
            errors[reason(error)] += 1
        slowest = max(slowest, time.monotonic() - started)
    return {"servers": servers, "errors": errors, "seen": sorted(seen), "slowest": slowest}


def ask(host, port, times=1, namespace=None):
    """The same by UDP: one datagram and its answer each time, from a new port."""
    address = resolve(host)
    servers, errors = Counter(), Counter()
    for _ in range(times):
        try:
            with client(address, socket.SOCK_DGRAM, namespace) as datagrams:
                datagrams.connect((address, port))
                datagrams.send(b"who are you?")
                servers[datagrams.recv(4096).decode().split()[0]] += 1
        except OSError as error:
            errors[reason(error)] += 1
    return {"servers": servers, "errors": errors}


def connect(label, host, port, server, attempts=20):
    """Opens a connection that stays open and goes to one server; `label` is for `talk`."""
    address = resolve(host)
    for _ in range(attempts):
        connection = opened(address, port, None)
        if connection.line[0] == server:
            connections[label] = connection
            return True
        connection.close()
    return False


def talk(label):
    """Sends something on an open connection; returns whether it comes back."""
    return connections[label].echo()


def disconnect(label):
    """Closes it."""
    connections.pop(label).close()


def start_stream(label, host, port, pause=0.1):
    """Starts a client that connects again and again, and one that keeps talking on one connection."""
    streams[label] = Stream(host, port, pause)


def stop_stream(label):
    """Ends it; returns how often each part of it worked and what went wrong, with the time since the start."""
    return streams.pop(label).stop()


class Stream:
    def __init__(self, host, port, pause):
        self.address, self.port, self.pause = resolve(host), port, pause
        self.began = time.monotonic()
        self.ended = threading.Event()
        self.connected, self.echoed, self.failures = 0, 0, []
        self.threads = [threading.Thread(target=part, daemon=True) for part in (self.reconnect, self.remain)]
        for thread in self.threads:
            thread.start()

    def reconnect(self):
        while not self.ended.wait(self.pause):
            try:
                opened(self.address, self.port, None).close()
                self.connected += 1
            except OSError as error:
                self.fail("a new connection", error)

    def remain(self):
        try:
            with opened(self.address, self.port, None) as (connection, _):
                while not self.ended.wait(self.pause):
                    if not connection.echo():
                        raise ConnectionError("something else came back")
                    self.echoed += 1
        except OSError as error:
            self.fail("the open connection", error)

    def fail(self, part, error):
        self.failures.append(f"{part} after {time.monotonic() - self.began:.1f} s: {reason(error)}")

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        return {
            "connected": self.connected,
            "echoed": self.echoed,
            "failures": self.failures,
            "seconds": round(time.monotonic() - self.began, 1),
        }


class Connection:
    """An open connection whose server has said who it is."""

    def __init__(self, stream):
        self.stream, self.lines = stream, stream.makefile("rb")
        self.line = self.lines.readline().decode().split()
        if len(self.line) != 2:
            raise ConnectionError("closed without a word")

    def echo(self):
        self.stream.sendall(b"hello\n")
        return self.lines.readline() == b"hello\n"

    def close(self):
        self.lines.close()
        self.stream.close()

    def __enter__(self):
        return self, self.line

    def __exit__(self, *_):
        self.close()


def opened(address, port, namespace):
    stream = client(address, socket.SOCK_STREAM, namespace)
    try:
        stream.connect((address, port))
        return Connection(stream)
    except OSError:
        stream.close()
        raise


def client(address, kind, namespace):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = inside(namespace, lambda: socket.socket(family, kind))
    made.settimeout(PATIENCE)
    return made


def resolve(host):
    """As programs do it, through the resolver of the C library."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]


def reason(error):
    return "timeout" if isinstance(error, TimeoutError) else error.strerror or str(error)
