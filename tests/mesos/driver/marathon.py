"""A stand-in for two Marathons: one leads, one follows. Behaves as their HTTP interface does: a follower answers for
the leader, but redirects who wants events, and says 502 while it knows no leader.

The apps are those of the framework `marathon` in the real Mesos, each with an HTTP health check of Marathon's own.
"""

import http.server
import json
import queue
import threading

from . import stage

VERSION = "2026-01-01T00:00:00.000Z"


class Marathon:
    def __init__(self, cluster):
        self.cluster, self.leader, self.alive, self.streams, self.played = cluster, None, {}, [], set()
        addresses = (stage.MARATHON, stage.MARATHON_FOLLOWER)
        self.servers = [self.server(address) for address in addresses]

    def server(self, address):
        marathon = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                marathon.answer(self, address)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer((address, stage.MARATHON_PORT), Handler)
        server.daemon_threads = True
        return server

    def elect(self):
        self.leader = stage.MARATHON

    def set_alive(self, task, alive):
        """The outcome of Marathon's check of a task."""
        self.alive[task.id] = alive
        event = {"eventType": "instance_health_changed_event", "instanceId": task.id.split("._app")[0], "healthy": alive}
        for stream in self.streams:
            stream.put(event)

    def roles(self):
        """What followers did."""
        return self.played

    def answer(self, request, address):
        path = request.path.split("?")[0]
        if self.leader is None:
            return self.send(request, 502, {"message": "Could not determine the current leader"})
        follows = self.leader != address
        if path == "/v2/events" and follows:
            self.played.add("redirect")
            request.send_response(302)
            request.send_header("Location", f"http://{self.leader}:{stage.MARATHON_PORT}{request.path}")
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif path == "/v2/events":
            self.stream(request)
        else:
            if follows:
                self.played.add("proxy")
            answers = {"/v2/info": self.info, "/v2/apps": self.apps, "/v2/pods/::status": list}
            answer = answers.get(path)
            self.send(request, 200 if answer else 404, answer() if answer else {"message": "not found"})

    def send(self, request, status, body):
        body = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        if self.leader:
            request.send_header("X-Marathon-Leader", f"http://{self.leader}:{stage.MARATHON_PORT}")
        request.end_headers()
        request.wfile.write(body)

    def stream(self, request):
        events = queue.Queue()
        events.put({"eventType": "event_stream_attached"})
        self.streams.append(events)
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream;charset=utf-8")
        request.send_header("Connection", "close")
        request.end_headers()
        try:
            while True:
                event = events.get()
                text = f"event: {event['eventType']}\r\ndata: {json.dumps(event)}\r\n\r\n"
                request.wfile.write(text.encode())
                request.wfile.flush()
        except OSError:
            self.streams.remove(events)

    def framework(self):
        frameworks = self.cluster.state()["frameworks"]
        return next(framework for framework in frameworks if framework["name"] == "marathon")

    def info(self):
        return {
            "name": "marathon",
            "version": "1.11.24",
            "frameworkId": self.framework()["id"],
            "leader": f"{self.leader}:{stage.MARATHON_PORT}",
            "marathon_config": {"framework_name": "marathon"},
        }

    def apps(self):
        apps = {}
        for task in self.framework()["tasks"]:
            id = "/" + task["id"].split(".instance-")[0].replace("_", "/")
            app = apps.setdefault(
                id,
                {
                    "id": id,
                    "version": VERSION,
                    "networks": [{"mode": "host"}],
                    "portDefinitions": [],
                    "healthChecks": [{"protocol": "HTTP", "path": "/"}] if id == "/judged" else [],
                    "deployments": [],
                    "tasks": [],
                },
            )
            entry = {
                "appId": id,
                "id": task["id"],
                "host": "somewhere",
                "slaveId": task["slave_id"],
                "state": task["state"],
                "ports": [port["number"] for port in task["discovery"]["ports"].get("ports", ())],
                "ipAddresses": [],
                "startedAt": VERSION,
                "version": VERSION,
            }
            if task["id"] in self.alive:
                alive = self.alive[task["id"]]
                # As long as Marathon ignores failures it counts none.
                entry["healthCheckResults"] = [{"alive": alive, "consecutiveFailures": 0 if alive else 1}]
            app["tasks"].append(entry)
        return {"apps": list(apps.values())}

    def __enter__(self):
        for server in self.servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()
