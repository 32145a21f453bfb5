"""From a `Gateway` to every piece of kernel state that it asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from shaper.balance.schedule import Schedule, ScheduleEntry, build_schedule
from shaper.model import (
    MAX_SERVICES,
    Address,
    Backend,
    BackendRuntime,
    Gateway,
    Interface,
    Role,
    Runtime,
    Scheduler,
    Service,
)
from shaper.reconcile.entries import (
    BACKEND_ACCEPTS,
    BACKEND_UP,
    BackendEntry,
    ServiceEntry,
    ServiceKey,
    Tables,
)
from shaper.reconcile.handles import Handles, backend_key
from shaper.reconcile.sysctls import IPV6_FORWARDING
from shaper.shaping.tree import MAJOR, TcTree, build_tree, target_minor

SLOT_BUDGET = 1 << 19
"""Slots for all schedules together: half of slot_map, the other half takes their successors.

Shared equally by the services, whose ports have one schedule in common. Even with the most services
that is 1,024 each, enough for the most backends of a service.
"""

_cached_schedule = lru_cache(maxsize=MAX_SERVICES)(build_schedule)
"""One backend's change leaves the tables of all other services as they were."""

_FEATURES = {
    Scheduler.ROUND_ROBIN: "WITH_ROUND_ROBIN",
    Scheduler.LEAST_CONNECTIONS: "WITH_LEAST_CONNECTIONS",
    Scheduler.MAGLEV: "WITH_MAGLEV",
    Scheduler.SOURCE_HASH: "WITH_SOURCE_HASH",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """What the plan depends on and only the kernel can tell."""

    mtu: Mapping[str, int]  # by device
    leaf_kinds: frozenset[str]
    atomic_fetch: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole state; by default, nothing. `classifiers`: device -> program at clsact egress."""

    features: tuple[str, ...] = ()
    trees: Mapping[str, TcTree] = field(default_factory=dict)
    classifiers: Mapping[str, str] = field(default_factory=dict)
    xdp_devices: frozenset[str] = frozenset()
    addresses: frozenset[tuple[str, Address]] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    tables: Tables = field(default_factory=Tables)


def desired_state(
    gateway: Gateway, runtime: Runtime, handles: Handles, environment: Environment
) -> Desired:
    """Everything that `gateway` asks for, with the health and weight factors of `runtime`.

    Raises:
        KernelError: an explicitly named leaf qdisc that this kernel lacks.
    """
    trees = {}
    for interface in gateway.interfaces:
        mtu = environment.mtu[interface.device]
        tree = build_tree(gateway, interface, handles.classes, mtu, environment.leaf_kinds)
        if tree is not None:
            trees[interface.device] = tree
    return Desired(
        features=features(gateway, environment.atomic_fetch),
        trees=trees,
        classifiers={
            interface.device: _classifier(interface)
            for interface in gateway.interfaces
            if interface.device in trees or (_faces_clients(interface) and gateway.services)
        },
        xdp_devices=frozenset(
            interface.device
            for interface in gateway.interfaces
            if _faces_clients(interface) and gateway.services
        ),
        addresses=_addresses(gateway),
        sysctls=_sysctls(gateway),
        tables=desired_tables(gateway, runtime, handles),
    )


def features(gateway: Gateway, atomic_fetch: bool) -> tuple[str, ...]:
    """The preprocessor symbols of the programs, sorted."""
    names = {_FEATURES[service.scheduler] for service in gateway.services}
    if any(service.address.version == 6 for service in gateway.services):
        names.add("WITH_IPV6")
    if atomic_fetch:
        names.add("WITH_ATOMIC_FETCH")
    return tuple(sorted(names))


def desired_tables(gateway: Gateway, runtime: Runtime, handles: Handles) -> Tables:
    """The maps' content; the part that health and the controller change."""
    backends: dict[int, BackendEntry] = {}
    services: dict[ServiceKey, ServiceEntry] = {}
    classes: dict[int, int] = {}
    budget = SLOT_BUDGET // max(1, len(gateway.services))
    for service in gateway.services:
        service_id = handles.services[service.name]
        backends |= _backend_entries(service, service_id, runtime, handles)
        schedule = _schedule(service, runtime, handles, budget)
        for port in service.ports:
            key = ServiceKey(service.address, port, service.protocol)
            services[key] = ServiceEntry(
                key, service_id, service.scheduler, service.unavailable, schedule
            )
        classes[service_id] = _classid(gateway, service.class_name, handles)
    return Tables(services, backends, classes, _classid(gateway, gateway.default_class, handles))


def service_classids(gateway: Gateway, handles: Handles) -> dict[str, int]:
    """The tc class of every service that names one; empty where nothing is shaped."""
    classids = {s.name: _classid(gateway, s.class_name, handles) for s in gateway.services}
    return {name: classid for name, classid in classids.items() if classid}


def _state(runtime: Runtime, service: str, backend: str) -> BackendRuntime:
    return runtime.get((service, backend), BackendRuntime())


def _backend_entries(
    service: Service, service_id: int, runtime: Runtime, handles: Handles
) -> dict[int, BackendEntry]:
    entries = {}
    for backend in service.backends:
        index = handles.backends[backend_key(service, backend)]
        state = _state(runtime, service.name, backend.name)
        flags = 0
        if state.up:
            flags = BACKEND_UP | (BACKEND_ACCEPTS if backend.weight else 0)
        entries[index] = BackendEntry(
            index, backend.address, backend.port, flags, service_id, _weight_milli(backend, state)
        )
    return entries


def _schedule(service: Service, runtime: Runtime, handles: Handles, budget: int) -> Schedule:
    entries = []
    for backend in service.backends:
        state = _state(runtime, service.name, backend.name)
        weight_milli = _weight_milli(backend, state)
        if state.up and weight_milli:
            index = handles.backends[backend_key(service, backend)]
            name = f"{backend.address}:{backend.port}"
            entries.append(ScheduleEntry(name, index, weight_milli))
    return _cached_schedule(service.scheduler, tuple(entries), budget)


def _weight_milli(backend: Backend, state: BackendRuntime) -> int:
    return round(state.effective_weight(backend.weight) * 1000)


def _classid(gateway: Gateway, class_name: str | None, handles: Handles) -> int:
    if class_name is None or not gateway.shaped:
        return 0
    return MAJOR << 16 | target_minor(gateway, class_name, handles.classes)


def _faces_clients(interface: Interface) -> bool:
    return interface.role is not Role.BACKEND


def _classifier(interface: Interface) -> str:
    return "classify_client" if _faces_clients(interface) else "classify_backend"


def _addresses(gateway: Gateway) -> frozenset[tuple[str, Address]]:
    return frozenset(
        (interface.device, service.address)
        for interface in gateway.interfaces
        if _faces_clients(interface)
        for service in gateway.services
        if service.announce
    )


def _sysctls(gateway: Gateway) -> dict[str, str]:
    """Forwarding by device for IPv4; IPv6 forwards only where the global switch is on as well
    (net/ipv6/ip6_output.c, ip6_forward)."""
    versions = {service.address.version for service in gateway.services}
    sysctls = {}
    if 4 in versions:
        for interface in gateway.interfaces:
            sysctls[f"net.ipv4.conf.{interface.device}.forwarding"] = "1"
    if 6 in versions:
        sysctls[IPV6_FORWARDING] = "1"
    return sysctls
