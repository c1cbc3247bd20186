"""Stand-ins for the programs that tasks run: they say who they are and whom they see.

TCP: the line `NAME CLIENT-ADDRESS` at once, then every line is sent back. UDP: that line for every datagram.
"""

import socket
import threading

from .network import inside


def serve(name, namespace, protocol, port, ipv6=False):
    """Serves until the guest ends."""
    family = socket.AF_INET6 if ipv6 else socket.AF_INET

    def listen():
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("", port))
        if protocol == "tcp":
            server.listen(256)
        return server

    server = inside(namespace, listen)
    loop = tcp if protocol == "tcp" else udp
    threading.Thread(target=loop, args=(server, name), daemon=True).start()


def tcp(server, name):
    while True:
        client, address = server.accept()
        threading.Thread(target=converse, args=(client, address, name), daemon=True).start()


def converse(client, address, name):
    try:
        with client:
            client.sendall(f"{name} {address[0]}\n".encode())
            while data := client.recv(4096):
                client.sendall(data)
    except OSError:
        pass  # the client went away


def udp(server, name):
    while True:
        _, address = server.recvfrom(4096)
        server.sendto(f"{name} {address[0]}\n".encode(), address)
