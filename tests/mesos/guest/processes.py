"""Programs, files and sockets in the guest."""

import http.client
import os
import signal
import socket
import subprocess

started = {}


def write(path, text):
    """Writes a file; the guest's copy goes with the guest."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def execute(command, timeout=60):
    """Runs a program to its end."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    return {"status": done.returncode, "output": done.stdout, "errors": done.stderr}


def start(label, command, log):
    """Starts a program that goes on; what it says goes to the end of `log`."""
    with open(log, "a") as output:
        started[label] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def is_started(label):
    """Whether something was started by this name."""
    return label in started


def stop(label, timeout=30):
    """Asks it to end, and returns its exit status."""
    process = started.pop(label)
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def kill(label):
    """Ends it at once."""
    process = started.pop(label)
    process.kill()
    process.wait()


def usage(label):
    """Memory in MB, file descriptors and threads of a running program."""
    process = f"/proc/{started[label].pid}"
    with open(f"{process}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {
        "MB": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(os.listdir(f"{process}/fd")),
        "threads": int(fields["Threads"]),
    }


def get(path, url):
    """The answer of an HTTP server on a Unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        return {"status": answer.status, "body": answer.read().decode()}
    finally:
        connection.close()
