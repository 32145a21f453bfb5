"""What the agent needs of the engine, so that tests can run it without a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shaper.model import Gateway, Runtime
from shaper.reconcile.operations import Operation
from shaper.status import Status

BackendKey = tuple[str, str]
"""(service name, backend name)."""


class Plan(Protocol):
    @property
    def operations(self) -> tuple[Operation, ...]: ...


class Engine(Protocol):
    """See `shaper.agent.engine.Engine`. Every call blocks; none may run beside another."""

    def plan(self, gateway: Gateway, runtime: Runtime) -> Plan: ...
    def apply(self, gateway: Gateway, runtime: Runtime, text: str) -> Plan: ...
    def steer(self, gateway: Gateway, runtime: Runtime) -> bool: ...
    def status(self) -> Status: ...
    def backend_loads(self) -> Mapping[BackendKey, int]: ...
    def runtime(self) -> Runtime: ...
    def classids(self) -> Mapping[str, int]: ...
    def sweep(self) -> None: ...
