"""When checks run, and what a reload keeps: with a fake check, in real time but short."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from shaper.agent.health_runner import HealthChange, HealthRunner, targets
from shaper.health.probes import ProbeResult
from shaper.model import Address, HealthCheck, HealthKind
from tests.agent_fakes import make_gateway, make_service

CHECK = HealthCheck(HealthKind.TCP, interval_ms=40, timeout_ms=40, rise=2, fall=3)
S1, S2 = ("www", "s1"), ("www", "s2")
GATEWAY = make_gateway(make_service(count=2, check=CHECK))


class Backends:
    """A fake check: who is dead, how long an answer takes, and who was asked when."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.delay_s = 0.0
        self.asked: list[tuple[float, Address, int]] = []
        self.classids: list[int] = []

    async def probe(self, address: Address, port: int, _: HealthCheck, classid: int) -> ProbeResult:
        self.asked.append((time.monotonic(), address, port))
        self.classids.append(classid)
        await asyncio.sleep(self.delay_s)
        alive = int(str(address).rpartition(".")[2]) not in self.dead
        return ProbeResult(alive, "answered" if alive else "connection refused", 0.0)

    def times(self, last_byte: int) -> list[float]:
        return [at for at, address, _ in self.asked if str(address) == f"203.0.113.{last_byte}"]


class Harness:
    def __init__(self) -> None:
        self.backends = Backends()
        self.changes: list[tuple[float, HealthChange]] = []
        self.runner = HealthRunner(
            lambda change: self.changes.append((time.monotonic(), change)), self.backends.probe
        )

    async def until_changes(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.changes) < count:
                await asyncio.sleep(0.005)

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.backends.asked) < count:
                await asyncio.sleep(0.005)


def drive(harness: Harness, story: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        try:
            await story
        finally:
            harness.runner.close()

    asyncio.run(whole())


def test_runner_takes_a_dead_backend_down_and_brings_it_back() -> None:
    harness = Harness()

    async def story() -> None:
        harness.runner.configure(GATEWAY)
        await harness.until_asked(4)
        harness.backends.dead = {1}
        await harness.until_changes(1)
        assert harness.runner.down() == {S1}
        harness.backends.dead = set()
        await harness.until_changes(2)

    drive(harness, story())
    assert [change for _, change in harness.changes] == [
        HealthChange(S1, False, "connection refused"),
        HealthChange(S1, True, "answered"),
    ]


def test_runner_reports_within_fall_intervals() -> None:
    """Ten deaths at odd moments: each is known after at most interval × fall, and some slack."""
    harness = Harness()
    delays: list[float] = []

    async def story() -> None:
        harness.runner.configure(make_gateway(make_service(count=1, check=replace(CHECK, rise=1))))
        for round_ in range(10):
            await asyncio.sleep(0.0137)
            harness.backends.dead = {1}
            died = time.monotonic()
            await harness.until_changes(2 * round_ + 1)
            delays.append(harness.changes[-1][0] - died)
            harness.backends.dead = set()
            await harness.until_changes(2 * round_ + 2)

    drive(harness, story())
    bound_s = CHECK.fall * CHECK.interval_ms / 1000
    assert max(delays) < bound_s + 0.2
    assert sorted(delays)[5] < bound_s + 0.05
    assert min(delays) > bound_s - 2 * CHECK.interval_ms / 1000


def test_runner_keeps_the_beat_while_checks_are_slow() -> None:
    """Checks that take nearly an interval neither delay nor skip the next ones; nothing drifts."""
    harness = Harness()
    harness.backends.delay_s = 0.035

    async def story() -> None:
        harness.runner.configure(make_gateway(make_service(count=1, check=CHECK)))
        await harness.until_asked(26)

    drive(harness, story())
    since = [at - harness.backends.times(1)[0] for at in harness.backends.times(1)]
    off_beat = sorted(abs(at - round(at / 0.040) * 0.040) for at in since)
    assert off_beat[13] < 0.006  # a clock that drifts or waits would wander over ±20 ms
    assert since[25] < 1.5  # 25 beats are 1 s


def test_runner_spreads_the_backends_over_the_interval() -> None:
    harness = Harness()
    check = replace(CHECK, interval_ms=400, timeout_ms=100)

    async def story() -> None:
        harness.runner.configure(make_gateway(make_service(count=4, check=check)))
        await harness.until_asked(4)

    drive(harness, story())
    starts = [at for at, _, _ in harness.backends.asked]
    assert [str(address)[-1] for _, address, _ in harness.backends.asked] == ["1", "2", "3", "4"]
    assert 0.2 < starts[3] - starts[0] < 0.6  # three quarters of the interval are 0.3 s


def test_runner_takes_over_what_an_earlier_agent_knew() -> None:
    harness = Harness()

    async def story() -> None:
        harness.runner.configure(GATEWAY, frozenset({S1}))
        assert harness.runner.down() == {S1}
        await harness.until_changes(1)

    drive(harness, story())
    assert harness.changes[0][1] == HealthChange(S1, True, "answered")


def test_reload_keeps_the_state_of_what_did_not_change() -> None:
    harness = Harness()
    harness.backends.dead = {1}

    async def story() -> None:
        harness.runner.configure(GATEWAY)
        await harness.until_changes(1)
        harness.runner.configure(make_gateway(*GATEWAY.services, make_service("dns", 1, None)))
        assert harness.runner.down() == {S1}
        await harness.until_asked(len(harness.backends.asked) + 6)

    drive(harness, story())
    assert len(harness.changes) == 1


def test_reload_keeps_the_clock_of_what_did_not_change() -> None:
    """The first check of a new clock is at once: a kept one asks no second time within 10 s."""
    harness = Harness()
    service = make_service(count=1, check=replace(CHECK, interval_ms=10_000))

    async def story() -> None:
        harness.runner.configure(make_gateway(service))
        await harness.until_asked(1)
        harness.runner.configure(
            make_gateway(service, make_service("dns", 1, replace(CHECK, port=53)))
        )
        await harness.until_asked(4)

    drive(harness, story())
    assert len([port for _, _, port in harness.backends.asked if port == 8080]) == 1


def test_reload_with_another_check_keeps_a_dead_backend_down() -> None:
    harness = Harness()
    harness.backends.dead = {1}

    async def story() -> None:
        harness.runner.configure(GATEWAY)
        await harness.until_changes(1)
        harness.runner.configure(make_gateway(make_service(count=2, check=replace(CHECK, fall=9))))
        assert harness.runner.down() == {S1}

    drive(harness, story())


def test_reload_with_another_address_starts_anew() -> None:
    harness = Harness()
    harness.backends.dead = {1}

    async def story() -> None:
        harness.runner.configure(GATEWAY)
        await harness.until_changes(1)
        service = GATEWAY.services[0]
        moved = replace(service.backends[0], address=IPv4Address("203.0.113.77"))
        harness.runner.configure(
            make_gateway(replace(service, backends=(moved, service.backends[1])))
        )
        assert harness.runner.down() == frozenset()

    drive(harness, story())


def test_reload_without_checks_forgets_everything() -> None:
    harness = Harness()
    harness.backends.dead = {1}

    async def story() -> None:
        harness.runner.configure(GATEWAY)
        await harness.until_changes(1)
        harness.runner.configure(make_gateway(make_service(count=2, check=None)))
        assert harness.runner.down() == frozenset()
        seen = len(harness.backends.asked)
        await asyncio.sleep(0.1)
        assert len(harness.backends.asked) == seen

    drive(harness, story())


def test_runner_checks_in_the_class_of_the_service_and_keeps_the_clock() -> None:
    """The second check of a kept clock comes an interval after the first, in the new class."""
    harness = Harness()
    check = replace(CHECK, interval_ms=200)

    async def story() -> None:
        harness.runner.use_classes({"www": 0x5348_0010, "other": 0x5348_0099})
        harness.runner.configure(make_gateway(make_service(count=1, check=check)))
        await harness.until_asked(1)
        harness.runner.use_classes({"www": 0x5348_0011})
        await harness.until_asked(2)
        harness.runner.use_classes({})
        await harness.until_asked(3)

    drive(harness, story())
    assert harness.backends.classids == [0x5348_0010, 0x5348_0011, 0]
    first, second, _ = harness.backends.times(1)
    assert second - first > 0.15


def test_targets_prefer_the_port_of_the_check() -> None:
    gateway = make_gateway(make_service(count=1, check=replace(CHECK, port=9000)))
    assert [target.port for _, target in targets(gateway)] == [9000]
    assert [target.port for _, target in targets(GATEWAY)] == [8080, 8080]
