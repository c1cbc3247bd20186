"""The real Mesos: started, asked and disturbed through the lab's control port."""

import base64
import json
import os
import signal
import socket
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
    # What a variant has otherwise.
    name, leader, agent_port, agents, credentials = "lab", stage.LEADER, stage.AGENT_PORT, stage.AGENTS, None
    options = (
        *("--docker", "--registry", "replicated_log"),
        *("--standby", f"{stage.STANDBY}:{stage.MASTER_PORT}"),
        *("--standby", f"{stage.LEADERLESS}:{stage.MASTER_PORT}=none"),
    )

    def __init__(self, lab, work):
        self.output = work / f"{self.name}.log"
        command = [sys.executable, lab / "lab.py", "--dir", work / self.name, "--env-dir", lab / "env"]
        command += ["--ip", self.leader, "--port", stage.MASTER_PORT, "--control", CONTROL_PORT]
        command += ["--agents", 0, *self.options]
        for name, address in self.agents.items():
            command += ["--node", f"{address}:{self.agent_port}={name}"]
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
                if self.state()["activated_slaves"] == len(self.agents):
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"Mesos had no {len(self.agents)} agents in {seconds} s")

    def control(self, command, **body):
        """One command of the lab."""
        request = urllib.request.Request(
            f"http://{self.leader}:{CONTROL_PORT}/{command}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def state(self):
        """The master's document."""
        request = urllib.request.Request(f"{stage.url(self.leader)}/master/state")
        if self.credentials:
            encoded = base64.b64encode(self.credentials.encode()).decode()
            request.add_header("Authorization", f"Basic {encoded}")
        with urllib.request.urlopen(request, timeout=5) as answer:
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
                    tasks[task["id"]] = Task(task["id"], node, self.agents[node], ports)
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

    def process_of(self, node):
        return f"node-{self.agents[node]}-{self.agent_port}"

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


class SecuredCluster(Cluster):
    """Masters that want a password and stand for election in ZooKeeper."""

    name, leader, agent_port = "secured", stage.SECURED, stage.SECURED_AGENT_PORT
    agents = {name: stage.AGENTS[name] for name in ("node-2", "node-3")}
    credentials = "l4lbd:a secret of this test"
    options = (
        *("--auth", credentials),
        *("--zk", f"zk://{stage.ZOOKEEPER}:{stage.ZOOKEEPER_PORT}/mesos"),
        *("--standby", f"{stage.SECURED_STANDBY}:{stage.MASTER_PORT}"),
    )


class ZooKeeper:
    """One server, in the foreground; Debian's."""

    def __init__(self, work):
        data = work / "zookeeper"
        data.mkdir()
        config = data / "zoo.cfg"
        config.write_text(
            f"tickTime=500\ndataDir={data}\nclientPort={stage.ZOOKEEPER_PORT}\n"
            f"clientPortAddress={stage.ZOOKEEPER}\nadmin.enableServer=false\n"
        )
        command = ["/usr/share/zookeeper/bin/zkServer.sh", "start-foreground", str(config)]
        with (work / "zookeeper.log").open("w") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        for _ in range(300):
            try:
                socket.create_connection((stage.ZOOKEEPER, stage.ZOOKEEPER_PORT), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("ZooKeeper did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
