"""What passed and what failed, one line each."""

import sys
import time
import traceback
from contextlib import contextmanager

# Longest wait for something to become so; everything in the guest is slow.
PATIENCE = 45


class Stop(Exception):
    """The rest of a step makes no sense."""


class Report:
    def __init__(self):
        self.passed = self.failed = 0
        self.began = time.monotonic()

    def check(self, what, probe, wanted=True, within=PATIENCE, pause=0.2):
        """Asks `probe` until it gives what is wanted, a value or a predicate; returns the last answer."""
        deadline = time.monotonic() + within
        while True:
            try:
                answer = probe()
                good = wanted(answer) if callable(wanted) else answer == wanted
            except Exception as error:  # may be different the next time
                answer, good = error, False
            if good:
                self.result(True, what)
                return answer
            if time.monotonic() >= deadline:
                self.result(False, what)
                self.note(f"last seen: {shortened(answer)}")
                if not callable(wanted):
                    self.note(f"wanted:    {shortened(wanted)}")
                return answer
            time.sleep(pause)

    def now(self, what, answer, wanted=True):
        """The same for something that is so or not."""
        return self.check(what, lambda: answer, wanted, within=0)

    def told(self, what, node, wanted):
        """Waits for what the daemon says, and takes the command's word for it."""
        return self.check(what, node.told(wanted), wanted)

    def need(self, *args, **more):
        """A check without which the rest of the step makes no sense."""
        failed = self.failed
        answer = self.check(*args, **more)
        if self.failed > failed:
            raise Stop
        return answer

    @contextmanager
    def step(self, title):
        """A group of checks; whatever goes wrong in it, the next one has its turn."""
        self.note(f"[{time.monotonic() - self.began:.0f} s] {title}")
        try:
            yield
        except Stop:
            self.note("the rest of this step is left out")
        except Exception as error:
            self.result(False, f"{title}: could not be played to the end")
            self.note("".join(traceback.format_exception(error)))

    def result(self, good, what):
        self.passed += good
        self.failed += not good
        self.line(f"{'ok' if good else 'not ok'} - {what}")

    def note(self, text):
        for line in text.rstrip("\n").split("\n"):
            self.line(f"# {line}")

    def quote(self, title, text, lines=60):
        """The end of a longer text."""
        self.note(f"--- {title}")
        self.note("\n".join(text.rstrip("\n").split("\n")[-lines:]))

    def finish(self):
        """Prints the counts; returns the exit status."""
        self.note(f"[{time.monotonic() - self.began:.0f} s] done")
        self.line(f"{self.passed} passed, {self.failed} failed")
        return 0 if self.passed and not self.failed else 1

    @staticmethod
    def line(text):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def shortened(value, most=2000):
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
