"""Runs the health checks of all backends, each by its own steady clock.

How long a dead backend can get new flows: a check starts every `interval`, whether or not the one
before has ended, so at most `fall` intervals pass from the death to the start of the check that
decides. That check ends at once where the host answers with a reset or an ICMP error, and after
`timeout` where nobody answers. The change is reported from there, not at the next controller tick:

    refused:    interval × fall + steering (milliseconds)
    blackholed: interval × fall + timeout + steering

Checks are spread over the interval, so that hundreds of backends are not probed in the same
millisecond. Each is sent in the class of its service. All of this runs on the event loop's thread
and needs no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from shaper.agent.ports import BackendKey
from shaper.agent.supervisor import Ticker
from shaper.health.probes import Probe, ProbeResult, probe
from shaper.health.state import HealthState, observe
from shaper.model import Address, Gateway, HealthCheck


@dataclass(frozen=True, slots=True)
class Target:
    """What is checked, and how."""

    address: Address
    port: int
    check: HealthCheck


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A backend went down or came back; `reason` is that of the deciding check."""

    key: BackendKey
    up: bool
    reason: str


@dataclass(slots=True)
class _Monitor:
    target: Target
    state: HealthState
    clock: asyncio.Task[None] | None = None
    probes: set[asyncio.Task[None]] = field(default_factory=set)

    def cancel(self) -> None:
        for task in (self.clock, *self.probes):
            if task is not None:
                task.cancel()


class HealthRunner:
    """Checks what `configure` was last given, and calls `on_change` for every transition."""

    def __init__(self, on_change: Callable[[HealthChange], None], probe: Probe = probe) -> None:
        self._on_change = on_change
        self._probe = probe
        self._monitors: dict[BackendKey, _Monitor] = {}
        self._classids: Mapping[str, int] = {}

    def configure(self, gateway: Gateway, down: frozenset[BackendKey] = frozenset()) -> None:
        """Checks the backends of `gateway` from now on.

        A backend that is checked as before keeps its state and its clock; one whose check changed
        keeps its state; a new one is up, unless it is in `down` (from an earlier agent).
        """
        wanted = dict(targets(gateway))
        changed = [k for k, monitor in self._monitors.items() if wanted.get(k) != monitor.target]
        for key in changed:
            if self._forget(key, wanted.get(key)):
                down |= {key}
        for position, (key, target) in enumerate(wanted.items()):
            if key not in self._monitors:
                monitor = _Monitor(target, HealthState(up=key not in down))
                self._monitors[key] = monitor
                phase_s = target.check.interval_ms / 1000 * position / len(wanted)
                monitor.clock = asyncio.create_task(self._run(key, monitor, phase_s))

    def use_classes(self, classids: Mapping[str, int]) -> None:
        """Sends the checks of each service in its tc class from now on; of no class otherwise.

        Running clocks and states are kept: a class that moved says nothing about a backend.
        """
        self._classids = dict(classids)

    def down(self) -> frozenset[BackendKey]:
        """The backends that the checks found down."""
        return frozenset(key for key, monitor in self._monitors.items() if not monitor.state.up)

    def close(self) -> None:
        for monitor in self._monitors.values():
            monitor.cancel()
        self._monitors.clear()

    def _forget(self, key: BackendKey, successor: Target | None) -> bool:
        """Stops a monitor; True where its server is still wanted, and was down."""
        monitor = self._monitors.pop(key)
        monitor.cancel()
        same = successor is not None and _server(successor) == _server(monitor.target)
        return same and not monitor.state.up

    async def _run(self, key: BackendKey, monitor: _Monitor, phase_s: float) -> None:
        ticker = Ticker(monitor.target.check.interval_ms / 1000, phase_s)
        while True:
            await ticker.wait()
            task = asyncio.create_task(self._check(key, monitor))
            monitor.probes.add(task)
            task.add_done_callback(monitor.probes.discard)

    async def _check(self, key: BackendKey, monitor: _Monitor) -> None:
        target = monitor.target
        classid = self._classids.get(key[0], 0)
        result: ProbeResult = await self._probe(target.address, target.port, target.check, classid)
        before = monitor.state
        monitor.state = observe(before, target.check, result.ok)
        if monitor.state.up != before.up:
            self._on_change(HealthChange(key, monitor.state.up, result.reason))


def _server(target: Target) -> tuple[Address, int]:
    return target.address, target.port


def targets(gateway: Gateway) -> Iterator[tuple[BackendKey, Target]]:
    """Every backend whose service has a check; the check's port stands before the backend's."""
    for service in gateway.services:
        if service.health is not None:
            for backend in service.backends:
                port = service.health.port or backend.port
                yield (service.name, backend.name), Target(backend.address, port, service.health)
