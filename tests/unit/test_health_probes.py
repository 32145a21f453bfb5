"""The checks against real sockets on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address

import pytest

from shaper.health.probes import ProbeResult, probe
from shaper.model import HealthCheck, HealthKind

LOOPBACK = IPv4Address("127.0.0.1")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

TCP = HealthCheck(HealthKind.TCP, timeout_ms=300)
HTTP = HealthCheck(HealthKind.HTTP, timeout_ms=300, path="/healthz?full=1")


@asynccontextmanager
async def _server(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Its port."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _answering(answer: bytes, requests: list[bytes] | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if requests is not None:
            requests.append(request)
        writer.write(answer)
        await writer.drain()

    return handler


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def _probe(handler: Handler, check: HealthCheck, host: str = "127.0.0.1") -> ProbeResult:
    async def run() -> ProbeResult:
        async with _server(handler, host) as port:
            return await probe(ip_address(host), port, check)

    return asyncio.run(run())


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_tcp_probe_connects() -> None:
    result = _probe(_silent, TCP)
    assert (result.ok, result.reason) == (True, "connected")
    assert 0 < result.duration_ms < TCP.timeout_ms


@pytest.mark.parametrize("check", [TCP, HTTP])
def test_probe_of_a_closed_port_fails_at_once(check: HealthCheck) -> None:
    result = asyncio.run(probe(LOOPBACK, _free_port(), check))
    assert (result.ok, result.reason) == (False, "connection refused")
    assert result.duration_ms < check.timeout_ms / 2


def test_tcp_probe_times_out_where_nobody_accepts() -> None:
    """A full backlog: the kernel answers no further SYN, as a host that is gone."""

    async def run() -> ProbeResult:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = listener.getsockname()
            fillers = [socket.socket() for _ in range(3)]
            try:
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(address)
                return await probe(LOOPBACK, address[1], TCP)
            finally:
                for filler in fillers:
                    filler.close()

    result = asyncio.run(run())
    assert (result.ok, result.reason) == (False, "no answer within 300 ms")
    assert 300 <= result.duration_ms < 450


def test_http_probe_times_out_where_nothing_is_said() -> None:
    result = _probe(_silent, HTTP)
    assert (result.ok, result.reason) == (False, "no answer within 300 ms")
    assert 300 <= result.duration_ms < 450


def test_http_probe_times_out_on_a_dripping_answer() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    result = _probe(drip, HTTP)
    assert (result.ok, result.reason) == (False, "no answer within 300 ms")


@pytest.mark.parametrize(
    ("status", "expect", "ok"),
    [
        (200, (200, 399), True),
        (399, (200, 399), True),
        (302, (200, 399), True),
        (400, (200, 399), False),
        (500, (200, 399), False),
        (204, (204, 204), True),
        (200, (204, 204), False),
        (503, (503, 503), True),
    ],
)
def test_http_probe_judges_the_status(status: int, expect: tuple[int, int], ok: bool) -> None:
    check = HealthCheck(HealthKind.HTTP, expect=expect)
    answer = f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nLocation: /elsewhere\r\n\r\n"
    result = _probe(_answering(answer.encode()), check)
    assert (result.ok, result.reason) == (ok, f"status {status}")


def test_http_probe_asks_for_path_and_host() -> None:
    requests: list[bytes] = []
    check = HealthCheck(HealthKind.HTTP, path="/healthz?full=1", host="www.example.org")
    assert _probe(_answering(b"HTTP/1.0 200 OK\r\n\r\n", requests), check).ok
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "GET /healthz?full=1 HTTP/1.1"
    assert "Host: www.example.org" in lines
    assert "Connection: close" in lines


def test_http_probe_without_host_names_address_and_port() -> None:
    requests: list[bytes] = []
    assert _probe(_answering(b"HTTP/1.1 200 OK\r\n\r\n", requests), HTTP).ok
    assert b"\r\nHost: 127.0.0.1:" in requests[0]


def test_http_probe_works_over_ipv6() -> None:
    requests: list[bytes] = []
    result = _probe(_answering(b"HTTP/1.1 200 OK\r\n\r\n", requests), HTTP, host="::1")
    assert result.ok
    assert b"\r\nHost: [::1]:" in requests[0]


def test_tcp_probe_works_over_ipv6() -> None:
    assert _probe(_silent, TCP, host="::1").ok


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("check", [TCP, HTTP])
def test_probe_connects_with_the_class_of_its_service(
    check: HealthCheck, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The priority is on the socket before it connects, so that the SYN carries it."""
    seen: list[int] = []

    async def connect(_: object, sock: socket.socket, _address: object) -> None:
        seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY))
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    for classid in (0, 6):  # up to 6 needs no privilege
        assert not asyncio.run(probe(ip_address(host), 9, check, classid)).ok
    assert seen == [0, 6]


def test_http_probe_skips_interim_answers() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    assert _probe(_answering(answer), HTTP).reason == "status 200"


def test_http_probe_does_not_wait_for_the_body() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx")
        await reader.read()

    assert _probe(handler, HTTP).ok


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\xff" * 40,
        b"HTTP/1.1 9999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
)
def test_http_probe_of_nonsense_fails_without_raising(answer: bytes) -> None:
    result = _probe(_answering(answer), HTTP)
    assert not result.ok
    assert "HTTP answer" in result.reason or "reset" in result.reason


def test_http_probe_of_a_resetting_server_fails() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    assert not _probe(handler, HTTP).ok


def test_probe_with_an_impossible_path_fails_without_raising() -> None:
    check = HealthCheck(HealthKind.HTTP, path="/two words\r\nX: y")
    result = _probe(_silent, check)
    assert not result.ok
    assert "not a valid request" in result.reason


def test_probe_of_a_broadcast_address_fails_without_raising() -> None:
    """The kernel refuses before any packet is sent."""
    result = asyncio.run(probe(IPv4Address("255.255.255.255"), 9, TCP))
    assert not result.ok
    assert result.reason
