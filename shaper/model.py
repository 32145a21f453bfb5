"""The frozen desired state: what one configuration file asks for, resolved and checked.

`shaper.config` builds it, everything else reads it. Names are unique within their kind, every
reference has been resolved, every rate is in bits/s. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

Address = IPv4Address | IPv6Address

MAX_SERVICES: Final = 512
MAX_SERVICE_PORTS: Final = 8192  # the ports of all services together: MAX_SERVICE_KEYS
MAX_BACKENDS: Final = 4096
MAX_BACKENDS_PER_SERVICE: Final = 256
MAX_WEIGHT: Final = 1000

IMPLICIT_CLASS: Final = "default"
"""Name of the only class of a gateway whose file sets a bandwidth but no classes."""


class Role(StrEnum):
    """Which side of the gateway a device faces."""

    CLIENT = "client"
    BACKEND = "backend"
    BOTH = "both"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class Scheduler(StrEnum):
    """How the kernel picks the backend of a new flow."""

    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"
    RESPONSE_TIME = "response-time"
    LEAST_BANDWIDTH = "least-bandwidth"
    MAGLEV = "maglev"
    SOURCE_HASH = "source-hash"
    POWER_OF_TWO = "power-of-two"
    BEST_FIT = "best-fit"


class Forwarding(StrEnum):
    NAT = "nat"
    MASQUERADE = "masquerade"
    DSR = "dsr"
    IPIP = "ipip"


class Unavailable(StrEnum):
    """What a new flow gets while its service has no backend that is up."""

    REJECT = "reject"
    DROP = "drop"
    QUEUE = "queue"


class WeightMode(StrEnum):
    STATIC = "static"
    ADAPTIVE = "adaptive"


class LeafKind(StrEnum):
    AUTO = "auto"
    FQ_CODEL = "fq_codel"
    FIFO = "fifo"


class HealthKind(StrEnum):
    TCP = "tcp"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Interface:
    """A device of the gateway. `bandwidth_bps` None: its egress is not shaped."""

    name: str
    device: str
    role: Role
    bandwidth_bps: int | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """The queue at the end of a class. None: the kernel's (fq_codel) or our (fifo) default.

    `limit_packets` is for both kinds, everything else for fq_codel (tc-fq_codel(8)).
    """

    kind: LeafKind = LeafKind.AUTO
    limit_packets: int | None = None
    target_us: int | None = None
    interval_us: int | None = None
    flows: int | None = None
    quantum_bytes: int | None = None
    memory_limit_bytes: int | None = None
    ecn: bool | None = None


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """One class of the HTB tree; `interfaces` are the names of those that carry it."""

    name: str
    parent: str | None
    rate_bps: int
    ceil_bps: int
    priority: int
    leaf: Leaf
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Backend:
    name: str
    address: Address
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A periodic probe. `path`, `host` and `expect` are for http: a GET answered by a status in
    `expect` (inclusive range)."""

    kind: HealthKind
    interval_ms: int = 2000
    timeout_ms: int = 1000
    rise: int = 2
    fall: int = 3
    port: int | None = None
    path: str = "/"
    host: str | None = None
    expect: tuple[int, int] = (200, 399)


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service. `class_name` None: the gateway's default class."""

    name: str
    address: Address
    ports: tuple[int, ...]
    protocol: Protocol
    scheduler: Scheduler
    forwarding: Forwarding
    class_name: str | None
    announce: bool
    unavailable: Unavailable
    backends: tuple[Backend, ...]
    health: HealthCheck | None


@dataclass(frozen=True, slots=True)
class Controller:
    interval_ms: int = 1000
    weights: WeightMode = WeightMode.STATIC


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything one file asks for. Tuples keep the file's order.

    `classes` is empty exactly where no interface has a bandwidth; then `default_class` is None.
    """

    interfaces: tuple[Interface, ...]
    classes: tuple[TrafficClass, ...]
    default_class: str | None
    services: tuple[Service, ...]
    controller: Controller = field(default_factory=Controller)

    @property
    def shaped(self) -> bool:
        return bool(self.classes)


@dataclass(frozen=True, slots=True)
class BackendRuntime:
    """What the agent knows of a backend beside the file: health and the controller's factor."""

    up: bool = True
    factor: float = 1.0

    def effective_weight(self, weight: int) -> float:
        return round(weight * self.factor, 3)


Runtime = Mapping[tuple[str, str], BackendRuntime]
"""(service name, backend name) -> state; a missing entry means up, factor 1."""
