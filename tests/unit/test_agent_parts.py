"""Events, supervision, the beat and the worker thread."""

from __future__ import annotations

import asyncio
import configparser
import logging
import threading
import time
from pathlib import Path

import pytest

from shaper.agent.events import Event, EventKind, EventLog
from shaper.agent.supervisor import Supervisor, Ticker, describe_error
from shaper.agent.worker import Worker
from shaper.config import ConfigError
from shaper.errors import KernelError


def test_events_are_kept_up_to_the_capacity() -> None:
    log = EventLog(capacity=3, clock=lambda: 12.5)
    for number in range(1, 6):
        log.add(EventKind.HEALTH, f"event {number}")
    assert [event.number for event in log.since()] == [3, 4, 5]
    assert log.since(4) == (Event(5, 12.5, EventKind.HEALTH, "event 5"),)
    assert log.since(5) == ()


def test_events_are_one_log_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shaper.agent")
    EventLog().add(EventKind.ERROR, "first\nsecond")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "error: first | second")
    ]


def test_errors_are_described_in_their_own_words() -> None:
    assert describe_error(KernelError("no device", "plug it in")) == "no device (plug it in)"
    assert describe_error(KernelError("no device")) == "no device"
    assert describe_error(KeyError("x")) == "KeyError: 'x'"


def test_supervisor_reports_a_failing_task_and_tries_again() -> None:
    events = EventLog()
    supervisor = Supervisor(events, first_backoff_s=0.01)
    calls = 0

    async def step() -> None:
        nonlocal calls
        calls += 1
        assert supervisor.failing == {}
        if calls <= 2:
            raise RuntimeError("broken")
        if calls == 4:
            raise asyncio.CancelledError

    async def watch() -> None:
        while "the task" not in supervisor.failing:
            await asyncio.sleep(0)
        assert supervisor.failing == {"the task": "RuntimeError: broken"}

    async def run() -> None:
        async with asyncio.timeout(10):
            watching = asyncio.create_task(watch())
            with pytest.raises(asyncio.CancelledError):
                await supervisor.forever("the task", step)
            await watching

    asyncio.run(run())
    assert calls == 4
    assert [(event.kind, event.message) for event in events.since()] == [
        (EventKind.ERROR, "the task failed, will be tried again: RuntimeError: broken"),
        (EventKind.ERROR, "the task failed, will be tried again: RuntimeError: broken"),
        (EventKind.AGENT, "the task works again"),
    ]


def test_supervisor_waits_longer_after_each_failure() -> None:
    supervisor = Supervisor(EventLog(), first_backoff_s=0.02)
    times: list[float] = []

    async def step() -> None:
        times.append(time.monotonic())
        if len(times) == 4:
            raise asyncio.CancelledError
        raise RuntimeError

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await supervisor.forever("the task", step)

    asyncio.run(run())
    assert times[1] - times[0] >= 0.02
    assert times[2] - times[1] >= 0.04
    assert times[3] - times[2] >= 0.08


def test_ticker_skips_missed_beats_and_keeps_its_phase() -> None:
    async def run() -> list[float]:
        start = time.monotonic()
        ticker = Ticker(0.05)
        beats = []
        for beat in range(4):
            await ticker.wait()
            beats.append(time.monotonic() - start)
            if beat == 0:
                time.sleep(0.12)  # the process is blocked
        return beats

    beats = asyncio.run(run())
    assert beats[0] < 0.05
    assert beats[1] >= 0.12  # the beat at 0.05 comes late, the one at 0.1 not at all
    assert beats[2] >= 0.15
    assert beats[3] >= 0.2


def test_worker_runs_calls_one_by_one_on_one_other_thread() -> None:
    running = threading.Lock()
    threads = set()

    def call(number: int) -> int:
        assert running.acquire(blocking=False)
        threads.add(threading.get_ident())
        time.sleep(0.002)
        running.release()
        return number

    async def run() -> list[int]:
        worker = Worker()
        try:
            return list(await asyncio.gather(*(worker.call(call, n) for n in range(20))))
        finally:
            worker.close()

    assert asyncio.run(run()) == list(range(20))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_worker_passes_errors_on() -> None:
    def call() -> None:
        raise KernelError("refused")

    async def run() -> None:
        worker = Worker()
        try:
            with pytest.raises(KernelError, match="refused"):
                await worker.call(call)
        finally:
            worker.close()

    asyncio.run(run())


def test_unit_does_not_restart_an_agent_whose_file_has_mistakes() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(Path(__file__).parents[2] / "docs" / "shaper.service")
    assert unit["Service"]["RestartPreventExitStatus"] == str(ConfigError.exit_code)
