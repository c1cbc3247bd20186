"""The real Mesos: started, asked and disturbed through the lab's control port."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass

from . import stage

CONTROL_PORT = 5060


@dataclass(frozen=True)
class Task:
    """A running task, as the master tells of it."""

    id: str
    node: str
    """Name of its agent's host, such as `node-2`."""
    agent: str
    """Address of that host."""
    ports: tuple
    """Port numbers, in the order of its definition."""


class Cluster:
    def __init__(self, lab, work):
        self.output = work / "lab.log"
        command = [sys.executable, lab / "lab.py", "--dir", work / "lab", "--env-dir", lab / "env"]
        command += ["--ip", stage.LEADER, "--port", stage.MASTER_PORT, "--control", CONTROL_PORT]
        command += ["--agents", 0, "--docker", "--registry", "replicated_log"]
        command += ["--standby", f"{stage.STANDBY}:{stage.MASTER_PORT}"]
        command += ["--standby", f"{stage.LEADERLESS}:{stage.MASTER_PORT}=none"]
        for name, address in stage.AGENTS.items():
            command += ["--node", f"{address}:{stage.AGENT_PORT}={name}"]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def wait_for_agents(self, seconds=40):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError("the lab ended at once")
            try:
                self.control("lab")  # the lab is complete
                if self.state()["activated_slaves"] == len(stage.AGENTS):
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"Mesos had no {len(stage.AGENTS)} agents in {seconds} s")

    def control(self, command, **body):
        """One command of the lab."""
        request = urllib.request.Request(
            f"http://{stage.LEADER}:{CONTROL_PORT}/{command}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def state(self):
        """The master's document."""
        with urllib.request.urlopen(f"{stage.url(stage.LEADER)}/master/state", timeout=5) as answer:
            return json.load(answer)

    def launch(self, app, nodes, **more):
        """Starts an app's instances on these hosts, one after the other, and waits until all run."""
        wanted = self.control("app", app={**app, "instances": len(nodes)}, agents=nodes, **more)
        return self.wait_for_tasks(wanted)

    def launch_task(self, node, **task):
        return self.wait_for_tasks([self.control("task", agent=node, **task)])[0]

    def launch_pod(self, node, **pod):
        return self.wait_for_tasks(self.control("pod", agent=node, **pod))

    def wait_for_tasks(self, wanted, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            tasks = self.tasks()
            if all(task in tasks for task in wanted):
                return [tasks[task] for task in wanted]
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all of {wanted} came to run in {seconds} s")
            time.sleep(0.1)

    def tasks(self):
        """Running tasks by their ids."""
        state = self.state()
        hosts = {agent["id"]: agent["hostname"] for agent in state["slaves"]}
        tasks = {}
        for framework in state["frameworks"]:
            for task in framework["tasks"]:
                node = hosts.get(task["slave_id"])
                if task["state"] == "TASK_RUNNING" and node:
                    ports = tuple(port["number"] for port in task["discovery"]["ports"].get("ports", ()))
                    tasks[task["id"]] = Task(task["id"], node, stage.AGENTS[node], ports)
        return tasks

    def set_health(self, task, healthy):
        self.control("health", task=task.id, healthy=healthy)

    def kill(self, task):
        self.control("kill", task=task.id)

    def freeze(self, node):
        """An agent stops in the middle of what it does, and its connections stay open."""
        self.control("signal_node", node=self.process_of(node), signal="SIGSTOP")

    def thaw(self, node):
        self.control("signal_node", node=self.process_of(node), signal="SIGCONT")

    @staticmethod
    def process_of(node):
        return f"node-{stage.AGENTS[node]}-{stage.AGENT_PORT}"

    def restart_master(self, down):
        """Kills the master and starts a new one on the same registry after `down` seconds; returns at once."""
        thread = threading.Thread(
            target=self.control, args=("restart_main",), kwargs={"down": down}, daemon=True
        )
        thread.start()
        return thread

    def kill_master(self):
        self.control("kill_node", node="main")

    def log(self):
        return self.output.read_text(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
