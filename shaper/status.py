"""The status document: what `shaper status --json` and `GET /api/server-status` answer.

A contract that people script against: keep the names, add only. `to_json` gives plain data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    name: str
    device: str
    role: str
    xdp: str  # native | generic | off
    bandwidth_bps: int | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds; 0 where nothing was measured."""

    ewma: int = 0
    p50: int = 0
    p99: int = 0


@dataclass(frozen=True, slots=True)
class BackendStatus:
    name: str
    address: str
    port: int
    state: str  # up | down | draining | disabled
    weight: int
    effective_weight: float
    active_flows: int
    new_flows_total: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    latency_us: Latency


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    name: str
    address: str
    port: int | list[int]
    protocol: str
    scheduler: str
    forwarding: str
    class_: str | None
    backends: tuple[BackendStatus, ...]


@dataclass(frozen=True, slots=True)
class ClassStatus:
    name: str
    interface: str
    handle: str
    parent: str | None
    rate_bps: int
    ceil_bps: int
    priority: int
    leaf: str
    packets: int
    bytes: int
    drops: int
    backlog_bytes: int


@dataclass(frozen=True, slots=True)
class Events:
    """Packets for a service that got no backend. `unavailable`: none was up. `no_flow`: TCP in the
    middle of a connection that is not known (the stack answers RST). `collision`: another flow of
    this client port is at the same backend (dropped). `table_full`: the kernel took no entry
    (dropped). `fragment`: not translated, the stack gets it."""

    unavailable: int = 0
    no_flow: int = 0
    collision: int = 0
    table_full: int = 0
    fragment: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    instance: str
    generation: int
    warnings: tuple[str, ...]
    interfaces: tuple[InterfaceStatus, ...]
    services: tuple[ServiceStatus, ...]
    classes: tuple[ClassStatus, ...]
    events: Events = Events()
    allocations: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts; `class_` becomes the contract's `class`."""
        document = asdict(self)
        for service in document["services"]:
            service["class"] = service.pop("class_")
        return document
