"""An engine without a kernel, and gateways to steer, for the tests of agent and API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from shaper.agent.ports import BackendKey
from shaper.config import ConfigError, Loaded, Problem
from shaper.errors import KernelError, ShaperError
from shaper.model import (
    Backend,
    Controller,
    Forwarding,
    Gateway,
    HealthCheck,
    Protocol,
    Runtime,
    Scheduler,
    Service,
    Unavailable,
    WeightMode,
)
from shaper.status import (
    BackendStatus,
    ClassStatus,
    InterfaceStatus,
    Latency,
    ServiceStatus,
    Status,
)

TICK_MS = 20


def make_service(
    name: str = "www",
    count: int = 2,
    check: HealthCheck | None = None,
    scheduler: Scheduler = Scheduler.ROUND_ROBIN,
) -> Service:
    """A service of `count` backends s1, s2, … of weight 10 at 203.0.113.1, .2, … port 8080."""
    backends = [
        Backend(f"s{number}", IPv4Address(f"203.0.113.{number}"), 8080, 10)
        for number in range(1, count + 1)
    ]
    return Service(
        name=name,
        address=IPv4Address("198.51.100.10"),
        ports=(80,),
        protocol=Protocol.TCP,
        scheduler=scheduler,
        forwarding=Forwarding.NAT,
        class_name=None,
        announce=True,
        unavailable=Unavailable.REJECT,
        backends=tuple(backends),
        health=check,
    )


def make_gateway(*services: Service, weights: WeightMode = WeightMode.STATIC) -> Gateway:
    return Gateway(
        interfaces=(),
        classes=(),
        default_class=None,
        services=services,
        controller=Controller(interval_ms=TICK_MS, weights=weights),
    )


class FakeParser:
    """Knows texts by heart; any other text is a bad configuration."""

    def __init__(self, **gateways: Gateway) -> None:
        self.gateways = gateways

    def __call__(self, text: str, name: str) -> Loaded:
        if text not in self.gateways:
            raise ConfigError(
                name, [Problem(3, 7, "no such text", "try another"), Problem(9, 1, "x")]
            )
        warnings = (Problem(2, 1, "odd, but allowed"),) if text == "odd" else ()
        return Loaded(self.gateways[text], warnings)


@dataclass(frozen=True, slots=True)
class FakeOperation:
    sentence: str

    def describe(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class FakePlan:
    operations: tuple[FakeOperation, ...]


@dataclass
class FakeEngine:
    """Remembers what it was asked. Refuses what the real one must never get: two callers at once,
    calls from the event loop's thread or from several threads, steering another gateway than the
    applied one."""

    known: Runtime = field(default_factory=dict)
    loads: dict[BackendKey, int] = field(default_factory=dict)
    applied: list[tuple[str, Runtime]] = field(default_factory=list)
    steered: list[tuple[float, Runtime]] = field(default_factory=list)
    sweeps: int = 0
    refuse_apply: Callable[[str], bool] = lambda _: False
    steer_failures: int = 0
    drift: tuple[FakeOperation, ...] = ()
    classid: int = 0x5348_0010
    apply_s: float = 0.0
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _threads: set[int] = field(default_factory=set)
    _gateway: Gateway | None = None

    def plan(self, gateway: Gateway, runtime: Runtime) -> FakePlan:
        with self._call():
            assert set(runtime) == _keys(gateway)
            if gateway is self._gateway:
                return FakePlan(self.drift)
            return FakePlan((FakeOperation("add something"),))

    def apply(self, gateway: Gateway, runtime: Runtime, text: str) -> FakePlan:
        with self._call():
            assert set(runtime) == _keys(gateway)
            time.sleep(self.apply_s)
            if self.refuse_apply(text):
                raise KernelError("device lan0 is gone", "plug it in")
            self.applied.append((text, runtime))
            self._gateway = gateway
            self.drift = ()
            return FakePlan((FakeOperation("load programs"), FakeOperation("add a class")))

    def steer(self, gateway: Gateway, runtime: Runtime) -> bool:
        with self._call():
            assert gateway is self._gateway, "steered a gateway that is not applied"
            if self.steer_failures:
                self.steer_failures -= 1
                raise KernelError("the tables are gone")
            self.steered.append((time.monotonic(), runtime))
            return True

    def status(self) -> Status:
        with self._call():
            if self._gateway is None:
                raise ShaperError("nothing is applied", "apply something")
            return make_status()

    def backend_loads(self) -> Mapping[BackendKey, int]:
        with self._call():
            return dict(self.loads)

    def runtime(self) -> Runtime:
        with self._call():
            return self.known

    def classids(self) -> Mapping[str, int]:
        with self._call():
            assert self._gateway is not None
            return {service.name: self.classid for service in self._gateway.services}

    def sweep(self) -> None:
        with self._call():
            self.sweeps += 1

    def _call(self) -> threading.Lock:
        self._threads.add(threading.get_ident())
        assert threading.current_thread() is not threading.main_thread()
        assert len(self._threads) == 1, "called from several threads"
        assert not self._busy.locked(), "called while another call runs"
        return self._busy


def _keys(gateway: Gateway) -> set[BackendKey]:
    return {(s.name, b.name) for s in gateway.services for b in s.backends}


def make_status() -> Status:
    """One of everything."""
    backend = BackendStatus(
        "s1", "203.0.113.1", 8080, "up", 10, 7.5, 3, 40, 500, 6000, 700, 8000, Latency(1, 2, 3)
    )
    service = ServiceStatus(
        "www", "198.51.100.10", [80, 443], "tcp", "round-robin", "nat", "web", (backend,)
    )
    return Status(
        instance="default",
        generation=4,
        warnings=("no fq_codel",),
        interfaces=(InterfaceStatus("wan", "eth0", "client", "generic", None),),
        services=(service,),
        classes=(
            ClassStatus("web", "wan", "5348:10", None, 10**6, 10**7, 2, "pfifo", 10, 1000, 0, 0),
        ),
    )
