"""A load client: many short exchanges, each on its own flow. Runs inside a client's namespace.

    python -m shaper.lab.load

The job (JSON, one line) comes on standard input. Standard output gets a line when the load starts
and one with the result. SIGTERM ends the load early: what is open is still finished.

One process, one epoll loop: asyncio spends more time per connection than the gateway under test.
Times are CLOCK_MONOTONIC nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Final

BACKEND_HEADER: Final = "X-Backend"
_MARK: Final = b"\r\n" + BACKEND_HEADER.encode() + b": "
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_FIRST_UDP_PORT: Final = 20000


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    Args:
        kind: `http` (connection closed after each answer), `udp`, or `hold` (HTTP connections
            that are kept until standard input ends).
        requests: how many; 0: until `duration_s` is over.
        rate_per_s: how many to start per second; 0: as fast as they are answered.
        timeout_s: for one exchange.
    """

    kind: str
    address: str
    port: int
    sources: list[str]
    requests: int = 0
    duration_s: float = 0.0
    concurrency: int = 16
    rate_per_s: float = 0.0
    timeout_s: float = 5.0
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Sample:
    """One exchange. `backend` is who answered; empty where `error` says what went wrong."""

    started_ns: int
    duration_ns: int
    backend: str
    error: str

    @property
    def ended_ns(self) -> int:
        return self.started_ns + self.duration_ns


@dataclass(slots=True, eq=False)
class _Exchange:
    socket: socket.socket
    started_ns: int
    sent: bool = False
    answer: bytes = b""


@dataclass(slots=True)
class Client:
    """Runs a job. `hold` keeps the sockets in `held`."""

    job: Job
    samples: list[Sample] = field(default_factory=list)
    held: list[socket.socket] = field(default_factory=list)
    _open: dict[int, _Exchange] = field(default_factory=dict)
    _queue: deque[_Exchange] = field(default_factory=deque)
    _epoll: select.epoll = field(default_factory=select.epoll)
    _started: int = 0
    _stopping: bool = False

    def stop(self) -> None:
        """Starts no further exchange."""
        self._stopping = True

    def run(self) -> list[Sample]:
        begin = time.monotonic_ns()
        while True:
            pause_s = self._start_due(begin)
            if pause_s < 0 and not self._open:
                return self.samples
            for fd, _ in self._epoll.poll(min(pause_s, 0.1) if pause_s >= 0 else 0.1):
                exchange = self._open.get(fd)
                if exchange is not None:
                    self._advance(exchange)
            self._expire()

    def _start_due(self, begin: int) -> float:
        """Starts what is due; gives the seconds to the next start, negative when none is left."""
        job = self.job
        while True:
            now = time.monotonic_ns()
            if self._stopping or (job.requests and self._started >= job.requests):
                return -1.0
            if job.duration_s and now - begin >= job.duration_s * 1e9:
                return -1.0
            if len(self._open) >= job.concurrency:
                return 0.1
            if job.rate_per_s:
                due = begin + int(self._started / job.rate_per_s * 1e9)
                if due > now:
                    return (due - now) / 1e9
            self._start()

    def _start(self) -> None:
        job, number = self.job, self._started
        self._started += 1
        datagram = job.kind == "udp"
        kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
        family = socket.AF_INET6 if ":" in job.address else socket.AF_INET
        client = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        source = job.sources[number % len(job.sources)]
        exchange = _Exchange(client, time.monotonic_ns())
        self._open[client.fileno()] = exchange
        self._queue.append(exchange)
        try:
            if datagram:  # a port is never used twice: each datagram is a flow
                client.bind((source, _FIRST_UDP_PORT + number // len(job.sources)))
            else:
                client.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                client.bind((source, 0))
            error = client.connect_ex((job.address, job.port))
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
            self._epoll.register(client, select.EPOLLOUT)
        except OSError as error:
            self._finish(exchange, error=_describe(error))

    def _advance(self, exchange: _Exchange) -> None:
        try:
            if not exchange.sent:
                self._send(exchange)
                return
            data = exchange.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(exchange, error=_describe(error))
            return
        exchange.answer += data
        if self.job.kind == "udp":
            self._finish(exchange, backend=exchange.answer.split(b" ", 1)[0].decode())
        elif not data or (self.job.kind == "hold" and b"\r\n\r\n" in exchange.answer):
            self._judge(exchange)

    def _send(self, exchange: _Exchange) -> None:
        error = exchange.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        exchange.socket.send(self._request())
        exchange.sent = True
        self._epoll.modify(exchange.socket, select.EPOLLIN)

    def _request(self) -> bytes:
        if self.job.kind == "udp":
            return b"who"
        after = "keep-alive" if self.job.kind == "hold" else "close"
        return f"GET {self.job.path} HTTP/1.1\r\nHost: lab\r\nConnection: {after}\r\n\r\n".encode()

    def _judge(self, exchange: _Exchange) -> None:
        answer = exchange.answer
        if not answer:
            self._finish(exchange, error="closed without an answer")
        elif not answer.startswith(b"HTTP/1.1 200 "):
            self._finish(exchange, error=answer[:20].decode(errors="replace"))
        else:
            self._finish(exchange, backend=answer.partition(_MARK)[2].split(b"\r", 1)[0].decode())

    def _finish(self, exchange: _Exchange, *, backend: str = "", error: str = "") -> None:
        del self._open[exchange.socket.fileno()]
        now = time.monotonic_ns()
        self.samples.append(Sample(exchange.started_ns, now - exchange.started_ns, backend, error))
        if self.job.kind == "hold" and not error:
            self._epoll.unregister(exchange.socket)
            self.held.append(exchange.socket)
        else:
            exchange.socket.close()  # takes it out of the epoll set

    def _expire(self) -> None:
        """Exchanges stand in `_queue` in the order of their starts, so the oldest is first."""
        oldest = time.monotonic_ns() - int(self.job.timeout_s * 1e9)
        while self._queue:
            exchange = self._queue[0]
            ended = exchange.socket.fileno() < 0 or exchange.socket.fileno() not in self._open
            if not ended and exchange.started_ns > oldest:
                return
            self._queue.popleft()
            if not ended:
                self._finish(exchange, error="timeout")


def _describe(error: OSError) -> str:
    return error.strerror or type(error).__name__


def main() -> None:
    job = Job(**json.loads(sys.stdin.readline()))
    client = Client(job)
    signal.signal(signal.SIGTERM, lambda *_: client.stop())
    print(json.dumps(time.monotonic_ns()), flush=True)
    samples = client.run()
    print(json.dumps([list(asdict(sample).values()) for sample in samples]), flush=True)
    if job.kind == "hold":
        sys.stdin.read()


if __name__ == "__main__":
    main()
