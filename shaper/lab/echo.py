"""A UDP echo server that says who it is. Runs inside a backend's namespace.

    python -m shaper.lab.echo NAME PORT

Answers every datagram with `NAME ` and the datagram. A wildcard socket answers from the address
that the route prefers, not from the one asked: right here, where a backend has one per family.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys


def serve(name: str, port: int) -> None:
    selector = selectors.DefaultSelector()
    for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        server = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((wildcard, port))
        selector.register(server, selectors.EVENT_READ, server)
    prefix = name.encode() + b" "
    while True:
        for key, _ in selector.select():
            listener: socket.socket = key.data
            data, peer = listener.recvfrom(65536)
            with contextlib.suppress(OSError):  # an unreachable client is not this server's trouble
                listener.sendto(prefix + data, peer)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
