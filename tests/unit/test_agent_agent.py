"""The agent with a fake engine: start, steering, reload, failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from shaper.agent.agent import Agent
from shaper.config import ConfigError
from shaper.errors import KernelError
from shaper.health.probes import ProbeResult
from shaper.model import Address, BackendRuntime, HealthCheck, HealthKind, Runtime, WeightMode
from tests.agent_fakes import (
    FakeEngine,
    FakeOperation,
    FakeParser,
    make_gateway,
    make_service,
)

CHECK = HealthCheck(HealthKind.TCP, interval_ms=30, timeout_ms=30, rise=2, fall=3)
CHECKED = make_gateway(make_service(check=CHECK))
PLAIN = make_gateway(make_service())
ADAPTIVE = make_gateway(make_service(), weights=WeightMode.ADAPTIVE)
BIGGER = make_gateway(make_service(count=3))
S1, S2 = ("www", "s1"), ("www", "s2")


class Harness:
    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.dead: set[str] = set()
        self.probed_as: list[int] = []
        self.parser = FakeParser(
            checked=CHECKED, plain=PLAIN, odd=PLAIN, adaptive=ADAPTIVE, bigger=BIGGER
        )
        self.agent: Agent

    async def probe(
        self, address: Address, _port: int, _check: HealthCheck, classid: int
    ) -> ProbeResult:
        self.probed_as.append(classid)
        alive = str(address) not in self.dead
        return ProbeResult(alive, "connected" if alive else "connection refused", 0.1)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    def messages(self) -> list[str]:
        return [event.message for event in self.agent.events.since()]

    def last_steered(self) -> Runtime:
        return self.engine.steered[-1][1]

    def run(self, text: str, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`story` runs beside an agent that was started with `text`."""

        async def whole() -> None:
            self.agent = Agent(self.engine, self.parser, self.probe, repair_interval_s=0.02)
            await self.agent.start(text, "gw.yaml")
            running = asyncio.create_task(self.agent.run())
            try:
                await story()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                self.agent.close()

        asyncio.run(whole())


def test_agent_applies_then_steers() -> None:
    harness = Harness()

    async def story() -> None:
        await harness.until(lambda: harness.engine.steered)

    harness.run("plain", story)
    everyone_up = {S1: BackendRuntime(), S2: BackendRuntime()}
    assert harness.engine.applied == [("plain", everyone_up)]
    assert harness.last_steered() == everyone_up
    assert harness.messages() == ["gw.yaml applied, 2 changes"]


def test_agent_checks_in_the_class_that_the_last_apply_made() -> None:
    harness = Harness()

    async def story() -> None:
        await harness.until(lambda: len(harness.probed_as) > 3)
        assert set(harness.probed_as) == {0x5348_0010}
        harness.engine.classid = 0x5348_0011
        await harness.agent.apply("checked", "gw.yaml")
        seen = len(harness.probed_as)
        await harness.until(lambda: len(harness.probed_as) > seen + 3)
        assert set(harness.probed_as[seen:]) == {0x5348_0011}
        harness.engine.classid = 0x5348_0012
        harness.engine.drift = (FakeOperation("add a class"),)
        await harness.until(lambda: harness.probed_as[-1] == 0x5348_0012)

    harness.run("checked", story)


def test_agent_reports_warnings_of_the_file() -> None:
    harness = Harness()

    async def story() -> None:
        pass

    harness.run("odd", story)
    assert harness.messages()[0] == "warning: gw.yaml:2:1: odd, but allowed"


def test_agent_steers_a_dead_backend_out_at_once_and_back_in() -> None:
    harness = Harness()
    died = 0.0

    async def story() -> None:
        nonlocal died
        await harness.until(lambda: harness.engine.steered)
        harness.dead = {"203.0.113.1"}
        died = time.monotonic()
        await harness.until(lambda: not harness.last_steered()[S1].up)
        harness.dead = set()
        await harness.until(lambda: harness.last_steered()[S1].up)

    harness.run("checked", story)
    out = next(at for at, runtime in harness.engine.steered if not runtime[S1].up)
    assert out - died < CHECK.interval_ms * CHECK.fall / 1000 + 0.2
    assert all(runtime[S2].up for _, runtime in harness.engine.steered)
    assert harness.messages()[1:] == [
        "www/s1 is down: connection refused",
        "www/s1 is up: connected",
    ]


def test_agent_steers_only_when_something_changed() -> None:
    harness = Harness()

    async def story() -> None:
        await harness.until(lambda: harness.engine.steered)
        await asyncio.sleep(0.3)

    harness.run("checked", story)
    assert len(harness.engine.steered) == 1


def test_agent_takes_over_what_the_kernel_knows() -> None:
    harness = Harness()
    harness.dead = {"203.0.113.1"}
    harness.engine.known = {
        S1: BackendRuntime(up=False),
        S2: BackendRuntime(),
        ("gone", "x"): BackendRuntime(up=False),
    }

    async def story() -> None:
        await harness.until(lambda: harness.engine.steered)
        assert not harness.last_steered()[S1].up

    harness.run("checked", story)
    assert harness.engine.applied[0][1] == {S1: BackendRuntime(up=False), S2: BackendRuntime()}


def test_agent_believes_in_a_backend_that_nobody_checks_any_more() -> None:
    harness = Harness()
    harness.engine.known = {S1: BackendRuntime(up=False, factor=0.5), S2: BackendRuntime()}

    async def story() -> None:
        await harness.until(lambda: harness.engine.steered)

    harness.run("plain", story)
    assert harness.engine.applied[0][1][S1] == BackendRuntime(up=True, factor=1.0)


def test_agent_steers_by_load() -> None:
    harness = Harness()
    harness.engine.loads = {S1: 9000, S2: 1000}

    async def story() -> None:
        await harness.until(
            lambda: harness.engine.steered and harness.last_steered()[S1].factor < 0.8
        )

    harness.run("adaptive", story)
    assert harness.messages()[1].startswith("www: s1 10.00 → 9.00 (9000 flows)")


def test_agent_leaves_static_weights_alone() -> None:
    harness = Harness()
    harness.engine.loads = {S1: 9000, S2: 1000}

    async def story() -> None:
        await asyncio.sleep(0.2)

    harness.run("plain", story)
    assert all(
        entry.factor == 1.0 for _, runtime in harness.engine.steered for entry in runtime.values()
    )


def test_agent_applies_another_configuration() -> None:
    harness = Harness()

    async def story() -> None:
        operations = await harness.agent.apply("bigger", "new.yaml")
        assert [operation.describe() for operation in operations] == [
            "load programs",
            "add a class",
        ]
        await harness.until(lambda: len(harness.last_steered()) == 3)

    harness.run("plain", story)
    assert [text for text, _ in harness.engine.applied] == ["plain", "bigger"]


def test_agent_believes_in_a_dead_backend_that_moved() -> None:
    harness = Harness()
    service = CHECKED.services[0]
    moved = replace(service.backends[0], address=IPv4Address("203.0.113.77"))
    harness.parser.gateways["moved"] = make_gateway(
        replace(service, backends=(moved, service.backends[1]))
    )

    async def story() -> None:
        harness.dead = {"203.0.113.1"}
        await harness.until(lambda: harness.engine.steered and not harness.last_steered()[S1].up)
        await harness.agent.apply("moved", "gw.yaml")
        await harness.until(lambda: harness.last_steered()[S1].up)

    harness.run("checked", story)


def test_agent_plans_without_applying() -> None:
    harness = Harness()

    async def story() -> None:
        operations = await harness.agent.plan("bigger", "new.yaml")
        assert [operation.describe() for operation in operations] == ["add something"]

    harness.run("plain", story)
    assert [text for text, _ in harness.engine.applied] == ["plain"]


def test_agent_refuses_a_bad_configuration_and_changes_nothing() -> None:
    harness = Harness()

    async def story() -> None:
        for call in (harness.agent.apply, harness.agent.plan):
            with pytest.raises(ConfigError, match=r"new.yaml:3:7: no such text \(try another\)"):
                await call("nonsense", "new.yaml")

    harness.run("plain", story)
    assert [text for text, _ in harness.engine.applied] == ["plain"]


def test_agent_goes_back_where_the_kernel_refuses() -> None:
    harness = Harness()
    harness.engine.refuse_apply = lambda text: text == "bigger"

    async def story() -> None:
        with pytest.raises(KernelError, match="lan0 is gone"):
            await harness.agent.apply("bigger", "new.yaml")

    harness.run("plain", story)
    assert [text for text, _ in harness.engine.applied] == ["plain", "plain"]


def test_agent_reports_where_going_back_fails_too() -> None:
    harness = Harness()

    async def story() -> None:
        harness.engine.refuse_apply = lambda _: True
        with pytest.raises(KernelError, match="lan0 is gone"):
            await harness.agent.apply("bigger", "new.yaml")

    harness.run("plain", story)
    assert harness.messages()[-2:] == [
        "going back to the old configuration failed: device lan0 is gone (plug it in)",
        "new.yaml refused: device lan0 is gone (plug it in)",
    ]


def test_agent_reloads_its_file(tmp_path: Path) -> None:
    harness = Harness()
    file = tmp_path / "gw.yaml"

    async def story() -> None:
        file.write_text("bigger")
        await harness.agent.reload(file)

    harness.run("plain", story)
    assert [text for text, _ in harness.engine.applied] == ["plain", "bigger"]
    assert harness.messages()[-1] == f"{file} applied, 2 changes"


def test_agent_keeps_the_old_state_and_says_all_problems_of_a_broken_file(tmp_path: Path) -> None:
    harness = Harness()
    file = tmp_path / "gw.yaml"

    async def story() -> None:
        file.write_text("nonsense")
        await harness.agent.reload(file)

    harness.run("plain", story)
    assert [text for text, _ in harness.engine.applied] == ["plain"]
    assert harness.messages()[1:] == [
        f"{file}:3:7: no such text (try another)",
        f"{file}:9:1: x",
        f"{file} refused (2 problems), the old configuration stays",
    ]


def test_agent_survives_a_reload_without_a_file(tmp_path: Path) -> None:
    harness = Harness()

    async def story() -> None:
        await harness.agent.reload(tmp_path / "missing.yaml")

    harness.run("plain", story)
    assert harness.messages()[-1].endswith("refused (1 problem), the old configuration stays")


def test_agent_survives_a_reload_that_the_kernel_refuses(tmp_path: Path) -> None:
    harness = Harness()
    file = tmp_path / "gw.yaml"
    harness.engine.refuse_apply = lambda text: text == "bigger"

    async def story() -> None:
        file.write_text("bigger")
        await harness.agent.reload(file)

    harness.run("plain", story)
    assert harness.messages()[-2:] == [
        "the old configuration is applied again",
        f"{file} refused: device lan0 is gone (plug it in)",
    ]


def test_agent_tries_again_where_steering_fails() -> None:
    harness = Harness()
    harness.engine.steer_failures = 1

    async def story() -> None:
        await harness.until(harness.agent.failing)
        assert harness.agent.failing() == {"steering": "the tables are gone"}
        await harness.until(lambda: harness.messages()[-1] == "steering works again")
        assert harness.agent.failing() == {}

    harness.run("plain", story)
    assert len(harness.engine.steered) == 1


def test_agent_steers_what_changed_while_an_apply_ran() -> None:
    """The fake engine refuses to steer another gateway than the one applied."""
    harness = Harness()

    async def story() -> None:
        await harness.until(lambda: harness.engine.steered)
        harness.engine.apply_s = 0.3
        harness.dead = {"203.0.113.2"}
        await harness.agent.apply("checked", "gw.yaml")
        await harness.until(lambda: not harness.last_steered()[S2].up)

    harness.run("checked", story)
    assert not harness.agent.failing()


def test_agent_does_not_start_where_the_kernel_refuses() -> None:
    harness = Harness()
    harness.engine.refuse_apply = lambda _: True

    async def story() -> None:
        raise AssertionError("must not get here")

    with pytest.raises(KernelError, match="lan0 is gone"):
        harness.run("plain", story)


def test_agent_repairs_what_somebody_changed() -> None:
    harness = Harness()

    async def story() -> None:
        harness.engine.drift = (FakeOperation("announce it"), FakeOperation("add a class"))
        await harness.until(lambda: len(harness.engine.applied) == 2)
        await asyncio.sleep(0.1)
        assert len(harness.engine.applied) == 2

    harness.run("plain", story)
    assert harness.engine.applied[-1][0] == "plain"
    assert "the kernel differs, repairing: announce it and 1 more" in harness.messages()
