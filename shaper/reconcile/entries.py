"""The content of the data plane's maps as comparable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shaper.balance.schedule import Schedule
from shaper.model import Address, Protocol, Scheduler, Unavailable

BACKEND_UP: Final = 1
BACKEND_ACCEPTS: Final = 2
"""Flags of `struct backend` (bpf/shared.h)."""


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    address: Address
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One key of service_map with the schedule that its region of slot_map holds."""

    key: ServiceKey
    service_id: int
    scheduler: Scheduler
    unavailable: Unavailable
    schedule: Schedule

    def summary(self) -> str:
        backends = len(set(self.schedule.backends))
        slots = len(self.schedule.backends)
        return f"{self.scheduler}, {backends} backends taking new flows, {slots} slots"


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One element of backend_map."""

    index: int
    address: Address
    port: int
    flags: int
    service_id: int
    weight_milli: int

    def flag_names(self) -> str:
        names = [
            name
            for flag, name in ((BACKEND_UP, "up"), (BACKEND_ACCEPTS, "accepts new flows"))
            if self.flags & flag
        ]
        return ", ".join(names) or "down"


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything that user space writes into the maps. Classids are 0 for "none"."""

    services: Mapping[ServiceKey, ServiceEntry] = field(default_factory=dict)
    backends: Mapping[int, BackendEntry] = field(default_factory=dict)
    service_classes: Mapping[int, int] = field(default_factory=dict)
    default_class: int = 0
