"""Runs in the guest and does what the driver asks: `python3 -m guest HOST:PORT`.

Connects to the driver and takes one request a line, `{"do": NAME, "with": {...}}`; answers each with one line,
`{"result": ...}` or `{"error": TEXT}`. Ends with the connection.
"""

import json
import socket
import sys

from . import clients, kernel, network, processes, servers

OPERATIONS = {
    "build_network": network.build,
    "publish": network.publish,
    "serve": servers.serve,
    "lookup": clients.lookup,
    "dial": clients.dial,
    "ask": clients.ask,
    "connect": clients.connect,
    "talk": clients.talk,
    "disconnect": clients.disconnect,
    "start_stream": clients.start_stream,
    "stop_stream": clients.stop_stream,
    "services": kernel.services,
    "start_watch": kernel.start_watch,
    "stop_watch": kernel.stop_watch,
    "write": processes.write,
    "execute": processes.execute,
    "start": processes.start,
    "is_started": processes.is_started,
    "stop": processes.stop,
    "kill": processes.kill,
    "usage": processes.usage,
    "get": processes.get,
}


def answer(line):
    try:
        request = json.loads(line)
        return {"result": OPERATIONS[request["do"]](**request["with"])}
    except Exception as error:  # whatever it is, the driver must know
        return {"error": f"{type(error).__name__}: {error}"}


def main(driver):
    host, port = driver.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as channel:
        for line in channel.makefile("rb"):
            channel.sendall(json.dumps(answer(line)).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
