"""The agent without its process: what is applied, what is steered, and when.

One lock orders everything that changes the kernel, so that steering always speaks of the gateway
that is applied. Health results and weights reach the kernel through one task, woken by either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shaper.agent.control import WeightController
from shaper.agent.events import Event, EventKind, EventLog
from shaper.agent.health_runner import HealthChange, HealthRunner
from shaper.agent.ports import BackendKey, Engine, Plan
from shaper.agent.supervisor import Supervisor, Ticker, describe_error
from shaper.agent.worker import Worker
from shaper.config import ConfigError, Loaded, read_text
from shaper.health.probes import Probe, probe
from shaper.model import BackendRuntime, Gateway, Runtime
from shaper.reconcile.operations import Operation
from shaper.status import Status

SWEEP_INTERVAL_S: Final = 5.0
REPAIR_INTERVAL_S: Final = 10.0
_SHOWN_PROBLEMS: Final = 20

Parse = Callable[[str, str], Loaded]
"""(text, name for messages) -> gateway and warnings; raises `ConfigError`."""


class Agent:
    """Applies configurations and keeps the data plane steered. All of it runs on one event loop."""

    def __init__(
        self,
        engine: Engine,
        parse: Parse,
        probe: Probe = probe,
        repair_interval_s: float = REPAIR_INTERVAL_S,
    ) -> None:
        self.events = EventLog()
        self._engine = engine
        self._parse = parse
        self._worker = Worker()
        self.supervisor = Supervisor(self.events)
        self._health = HealthRunner(self._on_health, probe)
        self._controller = WeightController()
        self._changing = asyncio.Lock()
        self._unsteered = asyncio.Event()
        self._gateway: Gateway | None = None
        self._text = ""
        self._control_ticker = Ticker(1.0)
        self._sweep_ticker = Ticker(SWEEP_INTERVAL_S, SWEEP_INTERVAL_S)
        self._repair_ticker = Ticker(repair_interval_s, repair_interval_s)

    async def start(self, text: str, name: str) -> None:
        """The first apply. What an earlier agent knew of backends is taken over from the kernel.

        Raises:
            ShaperError: the configuration is bad, or the kernel refused it.
        """
        loaded = self._parse(text, name)
        gateway = loaded.gateway
        known = await self._worker.call(self._engine.runtime)
        self._controller.configure(gateway, known)
        down = frozenset(key for key, entry in known.items() if not entry.up)
        runtime = self._runtime(gateway, down)
        async with self._changing:
            plan = await self._apply(gateway, runtime, text)
            self._adopt(gateway, text, runtime, down)
        self._report_apply(loaded, plan, name)

    async def run(self) -> None:
        """Steers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, step in (
                ("steering", self._steer),
                ("the weight controller", self._control),
                ("the sweep of idle flows", self._sweep),
                ("the repair of what others changed", self._repair),
            ):
                group.create_task(self.supervisor.forever(name, step))

    def close(self) -> None:
        """Ends checks and waits for the engine call that runs. The data plane is left as it is."""
        self._health.close()
        self._worker.close()

    async def apply(self, text: str, name: str) -> tuple[Operation, ...]:
        """Makes `text` the applied configuration and says what was done.

        Where the kernel refuses, what was applied before is applied again.

        Raises:
            ShaperError: the configuration is bad (nothing was changed), or the kernel refused it.
        """
        try:
            return await self._change(text, name)
        except Exception as error:
            self._report_refusal(name, error)
            raise

    async def reload(self, file: Path) -> None:
        """Reads the file again. A file that cannot be applied changes nothing and is reported."""
        try:
            await self._change(read_text(file), str(file))
        except Exception as error:  # noqa: BLE001 - whatever it is, the old state goes on
            self._report_refusal(str(file), error)

    async def plan(self, text: str, name: str) -> tuple[Operation, ...]:
        """What `apply` would do. Raises as it does."""
        gateway = (await asyncio.to_thread(self._parse, text, name)).gateway
        async with self._changing:
            runtime = self._runtime(gateway, self._health.down())
            plan = await self._worker.call(self._engine.plan, gateway, runtime)
        return plan.operations

    async def status(self) -> Status:
        return await self._worker.call(self._engine.status)

    def events_since(self, number: int) -> tuple[Event, ...]:
        return self.events.since(number)

    def failing(self) -> dict[str, str]:
        """What does not work at the moment, with the reason; empty when all is well."""
        return dict(self.supervisor.failing)

    async def _change(self, text: str, name: str) -> tuple[Operation, ...]:
        loaded = await asyncio.to_thread(self._parse, text, name)
        gateway = loaded.gateway
        async with self._changing:
            runtime = self._runtime(gateway, self._health.down())
            try:
                plan = await self._apply(gateway, runtime, text)
            except Exception:
                await self._restore()
                raise
            self._adopt(gateway, text, runtime)
        self._report_apply(loaded, plan, name)
        return plan.operations

    async def _apply(self, gateway: Gateway, runtime: Runtime, text: str) -> Plan:
        """Every apply comes here, because each may give a class another number."""
        plan = await self._worker.call(self._engine.apply, gateway, runtime, text)
        self._health.use_classes(await self._worker.call(self._engine.classids))
        return plan

    def _report_refusal(self, name: str, error: Exception) -> None:
        if not isinstance(error, ConfigError):
            self.events.add(EventKind.ERROR, f"{name} refused: {describe_error(error)}")
            return
        lines = error.lines()
        for line in lines[:_SHOWN_PROBLEMS]:
            self.events.add(EventKind.ERROR, line)
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
        self.events.add(EventKind.ERROR, f"{name} refused ({count}), the old configuration stays")

    def _report_apply(self, loaded: Loaded, plan: Plan, name: str) -> None:
        for warning in loaded.warnings:
            self.events.add(EventKind.APPLY, f"warning: {warning.render(name)}")
        self.events.add(EventKind.APPLY, f"{name} applied, {len(plan.operations)} changes")

    def _adopt(
        self,
        gateway: Gateway,
        text: str,
        runtime: Runtime,
        down: frozenset[BackendKey] = frozenset(),
    ) -> None:
        self._gateway, self._text = gateway, text
        self._controller.configure(gateway, runtime)
        self._health.configure(gateway, down)
        self._control_ticker = Ticker(gateway.controller.interval_ms / 1000)
        self._unsteered.set()  # health may have changed while the apply ran

    async def _restore(self) -> None:
        if self._gateway is None:
            return
        try:
            runtime = self._runtime(self._gateway, self._health.down())
            await self._apply(self._gateway, runtime, self._text)
        except Exception as error:  # noqa: BLE001 - the first error is what the caller must see
            reason = describe_error(error)
            self.events.add(
                EventKind.ERROR, f"going back to the old configuration failed: {reason}"
            )
        else:
            self.events.add(EventKind.APPLY, "the old configuration is applied again")

    def _runtime(self, gateway: Gateway, down: frozenset[BackendKey]) -> Runtime:
        """A backend that nobody checks is up, whatever it was when it was checked."""
        return {
            (service.name, backend.name): BackendRuntime(
                up=service.health is None or (service.name, backend.name) not in down,
                factor=self._controller.factor((service.name, backend.name)),
            )
            for service in gateway.services
            for backend in service.backends
        }

    def _on_health(self, change: HealthChange) -> None:
        state = "up" if change.up else "down"
        self.events.add(EventKind.HEALTH, f"{'/'.join(change.key)} is {state}: {change.reason}")
        self._unsteered.set()

    async def _steer(self) -> None:
        await self._unsteered.wait()
        self._unsteered.clear()
        async with self._changing:
            if self._gateway is None:
                return
            try:
                runtime = self._runtime(self._gateway, self._health.down())
                await self._worker.call(self._engine.steer, self._gateway, runtime)
            except Exception:
                self._unsteered.set()
                raise

    async def _control(self) -> None:
        await self._control_ticker.wait()
        async with self._changing:
            if self._gateway is None or not self._controller.active:
                return
            counts = await self._worker.call(self._engine.backend_loads)
            decisions = self._controller.tick(counts, self._health.down())
        for decision in decisions:
            self.events.add(EventKind.WEIGHTS, f"{decision.service}: {decision.reason}")
        if decisions:
            self._unsteered.set()

    async def _sweep(self) -> None:
        await self._sweep_ticker.wait()
        await self._worker.call(self._engine.sweep)

    async def _repair(self) -> None:
        """A device that went down and up has lost its IPv6 addresses, one that was made anew has
        lost everything, and people try out commands: what differs is applied again."""
        await self._repair_ticker.wait()
        async with self._changing:
            if self._gateway is None:
                return
            runtime = self._runtime(self._gateway, self._health.down())
            plan = await self._worker.call(self._engine.plan, self._gateway, runtime)
            if not plan.operations:
                return
            self._report_drift(plan)
            await self._apply(self._gateway, runtime, self._text)

    def _report_drift(self, plan: Plan) -> None:
        first, *others = (operation.describe() for operation in plan.operations)
        more = f" and {len(others)} more" if others else ""
        self.events.add(EventKind.APPLY, f"the kernel differs, repairing: {first}{more}")
