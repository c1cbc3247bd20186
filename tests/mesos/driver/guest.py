"""The guest, as the driver sees it: a machine that does what it is asked, one thing after the other."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from .stage import GATEWAY

# Seconds until the guest must have started, until it must answer, and until it ends in any case.
BOOT, ANSWER, LIFETIME = 90, 120, 600

# Where the guest finds its part.
MODULES = Path(__file__).resolve().parent.parent


class Guest:
    """`guest.NAME(...)` does the operation NAME of `guest/__main__.py` there."""

    def __init__(self, rig, work, lifetime=LIFETIME):
        self.output = work / "guest.log"
        self.trace = (work / "requests.log").open("w", buffering=1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        # The interpreter itself, because what is found by PATH may be a wrapper, which is slow there.
        program = ["env", f"PYTHONPATH={MODULES}", sys.executable, "-B", "-m", "guest", f"{GATEWAY}:{port}"]
        with self.output.open("w") as output:
            self.machine = subprocess.Popen(
                [rig, "--timeout", str(lifetime), *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.channel = None

    def wait(self):
        """Waits until it is ready."""
        self.listener.settimeout(1)
        for _ in range(BOOT):
            if self.machine.poll() is not None:
                raise RuntimeError(f"the guest ended at once, with status {self.machine.returncode}")
            try:
                self.channel, _ = self.listener.accept()
                break
            except TimeoutError:
                continue
        else:
            raise RuntimeError(f"the guest did not start in {BOOT} s")
        self.channel.settimeout(ANSWER)
        self.answers = self.channel.makefile("rb")

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda **arguments: self.call(name, arguments)

    def call(self, name, arguments):
        request = json.dumps({"do": name, "with": arguments})
        asked = time.monotonic()
        self.channel.sendall(request.encode() + b"\n")
        line = self.answers.readline()
        self.trace.write(f"{time.monotonic() - asked:6.2f} s  {request}\n          {line.decode()}")
        if not line:
            raise RuntimeError(f"the guest died during {name}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{name}: {answer['error']}")
        return answer["result"]

    def log(self):
        return self.output.read_text(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.channel:
            self.channel.close()
            try:
                self.machine.wait(15)
            except subprocess.TimeoutExpired:
                pass
        self.machine.terminate()
        self.machine.wait()
