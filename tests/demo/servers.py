"""HTTP servers on the given ports of this host, each of which says who it is and whom it saw."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{NAME} port {self.server.server_port} answered a client at {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


for port in sys.argv[2:]:
    server = ThreadingHTTPServer(("", int(port)), Handler)
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
