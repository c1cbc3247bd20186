"""Plays the scenario; started by `run`, in namespaces of its own."""

import argparse
import sys
from pathlib import Path

from . import stage
from .report import Report
from .scene import perform
from .steps import STEPS


class World:
    """What every step has at hand."""

    def __init__(self, report, cluster, guest, node, args):
        self.report, self.cluster, self.guest, self.node = report, cluster, guest, node
        self.lab, self.work = args.lab, args.work


def arguments():
    parser = argparse.ArgumentParser(prog="tests/mesos/run", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument("--lab", type=Path)
    parser.add_argument("--rig", type=Path)
    parser.add_argument("--program", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    args = parser.parse_args()
    unknown = set(args.steps) - set(STEPS)
    if unknown:
        parser.error(f"unknown step {sorted(unknown)[0]}; there are {', '.join(STEPS)}")
    return args


def main():
    args = arguments()
    if args.list:
        for name, step in STEPS.items():
            print(f"{name:10} {step.__doc__.splitlines()[0]}")
        return 0
    report = Report()

    def play(guest, cluster, node):
        node.start([stage.url(stage.LEADER)])
        world = World(report, cluster, guest, node, args)
        for name in args.steps or STEPS:
            with report.step(f"{name}: {STEPS[name].__doc__.splitlines()[0]}"):
                STEPS[name](world)

    perform(report, args, play)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
