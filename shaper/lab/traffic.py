"""Load and measurements from a client of a lab: HTTP, UDP, held connections, iperf3, ping.

Every function bounds its load in count or time. `start_…` gives something whose `result()` waits,
so that several can run beside each other.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from shaper.lab.load import Job, Sample
from shaper.lab.namespace import LabError, stop_process
from shaper.lab.network import Client
from shaper.lab.plan import Address

PAYLOAD_SHARE: Final = 1448 / 1514
"""TCP payload in a full Ethernet frame (MTU 1500, IPv4, timestamps), as HTB counts frames."""

PAYLOAD_SHARE6: Final = 1428 / 1514

_GRACE_S: Final = 60.0
_PING_TIME: Final = re.compile(r" time=([\d.]+) ms")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load client saw, in the order in which exchanges ended."""

    samples: tuple[Sample, ...]

    @property
    def answered(self) -> Counter[str]:
        """Backend -> exchanges that it answered."""
        return Counter(sample.backend for sample in self.samples if not sample.error)

    @property
    def failures(self) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.error)

    def started_between(self, begin_ns: int, end_ns: int) -> LoadResult:
        """Only exchanges that started in [begin, end) of CLOCK_MONOTONIC."""
        chosen = (sample for sample in self.samples if begin_ns <= sample.started_ns < end_ns)
        return LoadResult(tuple(chosen))


class RunningLoad:
    """A load client at work in a client's namespace. `started_ns`: when its load began."""

    def __init__(self, client: Client, job: Job) -> None:
        self._job = job
        self._process = client.namespace.popen(
            [sys.executable, "-m", "shaper.lab.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        self.started_ns = int(self._read_line())

    def stop(self) -> None:
        """Ends the load before its bound; what has started is still finished and counted."""
        self._process.terminate()

    def result(self) -> LoadResult:
        """Waits for the samples. LabError when the client fails or outlives its bound."""
        return LoadResult(tuple(Sample(*values) for values in json.loads(self._read_line())))

    def release(self) -> None:
        """Lets a `hold` job close its connections, and waits for the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_GRACE_S)

    def _read_line(self) -> str:
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        overdue = threading.Timer(self._job.duration_s + _GRACE_S, process.kill)
        overdue.start()
        try:
            line = process.stdout.readline()
        finally:
            overdue.cancel()
        if not line:
            code = process.wait(_GRACE_S)
            raise LabError(f"the load client ended with {code}: {process.stderr.read().strip()}")
        return str(line)


def start_load(
    client: Client,
    address: Address | str,
    port: int,
    *,
    kind: str = "http",
    requests: int = 0,
    duration_s: float = 0.0,
    rate_per_s: float = 0.0,
    concurrency: int = 16,
    sources: Sequence[str] | None = None,
) -> RunningLoad:
    """Starts `requests` exchanges, or as many as fit in `duration_s`: see `load.Job`."""
    if not requests and not duration_s:
        raise ValueError("a load needs a bound: requests or duration_s")
    job = Job(
        kind=kind,
        address=str(address),
        port=port,
        sources=list(sources or client.sources_for(str(address))),
        requests=requests,
        duration_s=duration_s,
        rate_per_s=rate_per_s,
        concurrency=concurrency,
    )
    return RunningLoad(client, job)


def http_load(
    client: Client, address: Address | str, port: int, requests: int, *, concurrency: int = 16
) -> LoadResult:
    """HTTP requests, each on a connection of its own."""
    return start_load(client, address, port, requests=requests, concurrency=concurrency).result()


def udp_load(
    client: Client, address: Address | str, port: int, requests: int, *, concurrency: int = 16
) -> LoadResult:
    """Datagrams to an echo service, each from a source port of its own."""
    return start_load(
        client, address, port, kind="udp", requests=requests, concurrency=concurrency
    ).result()


@contextmanager
def held_connections(
    client: Client, address: Address | str, port: int, count: int
) -> Iterator[LoadResult]:
    """Opens `count` connections one after the other; they stay open inside the block."""
    running = start_load(client, address, port, kind="hold", requests=count, concurrency=1)
    try:
        yield running.result()
    finally:
        running.release()


@dataclass(frozen=True, slots=True)
class Goodput:
    """TCP payload per second, as the receiver counted it."""

    goodput_bps: float
    retransmits: int


class RunningIperf:
    """An iperf3 client at work; its server must not serve another test at the same time."""

    def __init__(self, client: Client, argv: Sequence[str], seconds: float) -> None:
        self._seconds = seconds
        self.process = client.namespace.popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def result(self) -> Goodput:
        """LabError when iperf3 fails or does not end."""
        try:
            output, _ = self.process.communicate(timeout=self._seconds + _GRACE_S)
        except subprocess.TimeoutExpired as error:
            stop_process(self.process)
            raise LabError("iperf3 did not end in time") from error
        if not output.startswith("{"):
            raise LabError(f"iperf3: {output.strip()}")
        document: dict[str, Any] = json.loads(output)
        if "error" in document:
            raise LabError(f"iperf3: {document['error']}")
        end = document["end"]
        return Goodput(
            goodput_bps=float(end["sum_received"]["bits_per_second"]),
            retransmits=int(end["sum_sent"].get("retransmits", 0)),
        )


def start_iperf(
    client: Client,
    address: Address | str,
    port: int,
    *,
    seconds: int = 3,
    omit: int = 1,
    download: bool = True,
    streams: int = 1,
) -> RunningIperf:
    """One TCP test of `omit` (not counted: slow start) + `seconds` seconds.

    Args:
        download: the server sends; the gateway's client-side egress shapes it.
        streams: parallel connections. One alone does not fill a long queue here: a packet keeps
            its sender's socket across veth, so TCP small queues see it waiting in the gateway.
    """
    argv = ["iperf3", "--client", str(address), "--port", str(port), "--json"]
    argv += ["--time", str(seconds), "--omit", str(omit), "--parallel", str(streams)]
    argv += ["--connect-timeout", "5000", *(["--reverse"] if download else [])]
    return RunningIperf(client, argv, seconds + omit)


def iperf(
    client: Client,
    address: Address | str,
    port: int,
    *,
    seconds: int = 3,
    download: bool = True,
) -> Goodput:
    return start_iperf(client, address, port, seconds=seconds, download=download).result()


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Answered pings, in the order in which they were sent."""

    times_ms: tuple[float, ...]
    sent: int

    def percentile(self, percent: float) -> float:
        """Nearest rank. LabError when nothing was answered."""
        if not self.times_ms:
            raise LabError("no ping was answered")
        ordered = sorted(self.times_ms)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class RunningPing:
    def __init__(self, client: Client, address: Address | str, count: int, interval_s: float):
        self._bound_s = count * interval_s
        argv = ["ping", "-n", "-c", str(count), "-i", f"{interval_s:g}", "-W", "5", str(address)]
        self._count = count
        self.process = client.namespace.popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def result(self) -> RoundTrips:
        output, _ = self.process.communicate(timeout=self._bound_s + _GRACE_S)
        return RoundTrips(tuple(map(float, _PING_TIME.findall(output))), self._count)


def start_ping(
    client: Client, address: Address | str, *, seconds: float = 3.0, interval_s: float = 0.02
) -> RunningPing:
    """ICMP echo requests at a steady pace."""
    return RunningPing(client, address, max(1, round(seconds / interval_s)), interval_s)
