"""One health check: a TCP connect, or an HTTP GET answered by a status in the expected range.

A check never raises: whatever goes wrong is a `ProbeResult` with a reason that fits a log line. The
timeout covers the whole exchange, from the first SYN to the status line. The HTTP exchange is h11
over a plain socket instead of an HTTP client: no pool, no proxy from the environment, no redirect,
no name look-up, and the answer's body is not read. One connection a check, closed afterwards.

A check's packets come from the gateway's own stack and belong to no flow. Without a class of their
own they would leave in the default class, and a busy default class would delay them until healthy
backends seem dead. So the socket carries the class of its service: socket(7), SO_PRIORITY.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import h11

from shaper.model import Address, HealthCheck, HealthKind

_READ_BYTES: Final = 4096
_MAX_HEADER_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`reason` says why a check failed, or what the answer was."""

    ok: bool
    reason: str
    duration_ms: float


Probe = Callable[[Address, int, HealthCheck, int], Awaitable[ProbeResult]]
"""(backend address, port, check, classid) -> result. The port is the check's own where it has one;
classid 0: the packets belong to no class."""


async def probe(address: Address, port: int, check: HealthCheck, classid: int = 0) -> ProbeResult:
    """Runs one check to its end, or to its timeout. Never raises.

    Args:
        classid: tc class (major << 16 | minor) of the check's packets; 0: none. Any other needs
            CAP_NET_ADMIN.
    """
    started = time.monotonic()
    ok = False
    try:
        async with asyncio.timeout(check.timeout_ms / 1000):
            ok, reason = await _exchange(address, port, check, classid)
    except TimeoutError:
        reason = f"no answer within {check.timeout_ms} ms"
    except OSError as error:
        reason = _describe(error)
    except h11.RemoteProtocolError as error:
        reason = f"not an HTTP answer ({error})"
    except h11.LocalProtocolError as error:
        reason = f"the check is not a valid request ({error})"
    return ProbeResult(ok, reason, (time.monotonic() - started) * 1000)


async def _exchange(
    address: Address, port: int, check: HealthCheck, classid: int
) -> tuple[bool, str]:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        if classid:  # before the SYN, which has to carry it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, classid)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        if check.kind is HealthKind.TCP:
            return True, "connected"
        status = await _get_status(sock, _request(address, port, check))
    first, last = check.expect
    return first <= status <= last, f"status {status}"


def _request(address: Address, port: int, check: HealthCheck) -> h11.Request:
    literal = f"[{address}]" if address.version == 6 else str(address)
    host = check.host or (literal if port == 80 else f"{literal}:{port}")
    headers = [
        ("Host", host),
        ("User-Agent", "shaper-health"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ]
    return h11.Request(method="GET", target=check.path, headers=headers)


async def _get_status(sock: socket.socket, request: h11.Request) -> int:
    """The status of the answer; 1xx are skipped. Raises h11's errors and OSError."""
    loop = asyncio.get_running_loop()
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
    await loop.sock_sendall(sock, connection.send(request) + connection.send(h11.EndOfMessage()))
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            data = await loop.sock_recv(sock, _READ_BYTES)
            if not data:
                raise h11.RemoteProtocolError("the connection was closed")
            connection.receive_data(data)


def _describe(error: OSError) -> str:
    """`connection refused` rather than `[Errno 111] Connect call failed ('192.0.2.1', 80)`."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
