"""What the kernel really holds, read without the daemon."""

import subprocess
import threading

watches = {}


def services():
    """As `ipvsadm` sees it: `{"tcp 11.1.2.3:80": {"10.0.0.1:31000": weight}}`."""
    output = subprocess.run(["ipvsadm", "-Sn"], capture_output=True, text=True, check=True).stdout
    table = {}
    for line in output.split("\n"):
        words = line.split()
        if not words:
            continue
        protocol = {"-t": "tcp", "-u": "udp"}.get(words[1], words[1])
        backends = table.setdefault(f"{protocol} {words[2]}", {})
        if words[0] == "-a":
            backends[words[words.index("-r") + 1]] = int(words[words.index("-w") + 1])
    return table


def start_watch(pause=0.2):
    """Starts to look at the table all the time."""
    watches["table"] = Watch(pause)


def stop_watch():
    """Ends it; returns how often it looked and how many lines came or went, compared with the first look."""
    return watches.pop("table").stop()


class Watch:
    def __init__(self, pause):
        self.pause, self.ended = pause, threading.Event()
        self.first = self.table()
        self.looks, self.gone, self.new = 1, set(), set()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.ended.wait(self.pause):
            now = self.table()
            self.looks += 1
            self.gone |= self.first - now
            self.new |= now - self.first

    def stop(self):
        self.ended.set()
        self.thread.join()
        return {
            "looks": self.looks,
            "size": len(self.first),
            "gone": sorted(self.gone),
            "new": sorted(self.new),
        }

    @staticmethod
    def table():
        """Services, and their backends with weights; connection counters left out."""
        lines, service = set(), ""
        with open("/proc/net/ip_vs") as table:
            for line in table.read().split("\n")[3:]:
                words = line.split()
                if words[:1] == ["->"]:
                    lines.add(f"{service} {words[1]} {words[3]}")
                elif words:
                    service = " ".join(words[:2])
                    lines.add(service)
        return lines
