"""The status document from what the kernel counts."""

from __future__ import annotations

from collections.abc import Mapping

from shaper.agent.store import StoredState
from shaper.instance import Instance
from shaper.kernel.links import Links
from shaper.kernel.tables import BackendCounters, DataPlaneTables
from shaper.kernel.tc import ClassStatistics, Observed, TrafficControl
from shaper.model import Gateway, Interface, Service, TrafficClass
from shaper.reconcile.entries import BACKEND_UP, BackendEntry
from shaper.reconcile.handles import backend_key
from shaper.shaping.tree import MAJOR, class_key, target_minor
from shaper.status import (
    BackendStatus,
    ClassStatus,
    Events,
    InterfaceStatus,
    Latency,
    ServiceStatus,
    Status,
)


def build_status(
    instance: Instance,
    state: StoredState,
    gateway: Gateway,
    links: Links,
    tc: TrafficControl,
    tables: DataPlaneTables | None,
) -> Status:
    """Joins the applied configuration with counters.

    Args:
        tables: None where the maps are gone (after a reboot): everything is then down.
    """
    indices = [
        state.handles.backends[backend_key(service, backend)]
        for service in gateway.services
        for backend in service.backends
    ]
    entries: Mapping[int, BackendEntry] = tables.read().backends if tables is not None else {}
    counters = tables.counters(indices) if tables is not None else {}
    return Status(
        instance=instance.name,
        generation=state.generation,
        warnings=_warnings(state, gateway, links, tables),
        interfaces=tuple(_interface(interface, links) for interface in gateway.interfaces),
        services=tuple(
            _service(service, gateway, state, entries, counters) for service in gateway.services
        ),
        classes=tuple(
            row
            for interface in gateway.interfaces
            if interface.bandwidth_bps is not None and links.find(interface.device) is not None
            for row in _classes(interface, gateway, state, tc)
        ),
        events=Events(**tables.events()) if tables is not None else Events(),
    )


def _warnings(
    state: StoredState, gateway: Gateway, links: Links, tables: DataPlaneTables | None
) -> tuple[str, ...]:
    warnings = list(state.warnings)
    if tables is None and gateway.services:
        warnings.append("the data plane is not loaded (reboot?): apply again")
    for interface in gateway.interfaces:
        if links.find(interface.device) is None:
            warnings.append(f"interface {interface.name}: there is no device {interface.device}")
    return tuple(warnings)


def _interface(interface: Interface, links: Links) -> InterfaceStatus:
    link = links.find(interface.device)
    return InterfaceStatus(
        name=interface.name,
        device=interface.device,
        role=str(interface.role),
        xdp=link.xdp_mode if link is not None else "off",
        bandwidth_bps=interface.bandwidth_bps,
    )


def _service(
    service: Service,
    gateway: Gateway,
    state: StoredState,
    entries: Mapping[int, BackendEntry],
    counters: dict[int, BackendCounters],
) -> ServiceStatus:
    rows = []
    for backend in service.backends:
        index = state.handles.backends[backend_key(service, backend)]
        entry = entries.get(index)
        count = counters.get(index, BackendCounters())
        rows.append(
            BackendStatus(
                name=backend.name,
                address=str(backend.address),
                port=backend.port,
                state="up" if entry is not None and entry.flags & BACKEND_UP else "down",
                weight=backend.weight,
                effective_weight=entry.weight_milli / 1000 if entry is not None else 0,
                active_flows=count.active_flows,
                new_flows_total=count.new_flows,
                packets_in=count.packets_in,
                bytes_in=count.bytes_in,
                packets_out=count.packets_out,
                bytes_out=count.bytes_out,
                latency_us=Latency(),
            )
        )
    return ServiceStatus(
        name=service.name,
        address=str(service.address),
        port=service.ports[0] if len(service.ports) == 1 else list(service.ports),
        protocol=str(service.protocol),
        scheduler=str(service.scheduler),
        forwarding=str(service.forwarding),
        class_=service.class_name or gateway.default_class,
        backends=tuple(rows),
    )


def _classes(
    interface: Interface, gateway: Gateway, state: StoredState, tc: TrafficControl
) -> list[ClassStatus]:
    observed = tc.observe(interface.device)
    statistics = tc.class_statistics(interface.device)
    return [
        _class(item, interface, gateway, state, observed, statistics)
        for item in gateway.classes
        if interface.name in item.interfaces
    ]


def _class(
    item: TrafficClass,
    interface: Interface,
    gateway: Gateway,
    state: StoredState,
    observed: Observed,
    statistics: dict[int, ClassStatistics],
) -> ClassStatus:
    """One row. Counters of a class with children include them; leaf and priority are those of its
    own packets, because an inner class of HTB has neither."""
    minor = state.handles.classes[class_key(gateway, item.name)]
    own_minor = target_minor(gateway, item.name, state.handles.classes)
    tree = observed.tree
    specs = {spec.minor: spec for spec in tree.classes} if tree is not None else {}
    leaves = {leaf.class_minor: leaf.kind for leaf in tree.leaves} if tree is not None else {}
    spec, own = specs.get(minor), specs.get(own_minor)
    counted = statistics.get(minor, ClassStatistics(0, 0, 0, 0))
    return ClassStatus(
        name=item.name,
        interface=interface.name,
        handle=f"{MAJOR:x}:{minor:x}",
        parent=item.parent,
        rate_bps=spec.rate_bps if spec is not None else 0,
        ceil_bps=spec.ceil_bps if spec is not None else 0,
        priority=own.priority if own is not None else item.priority,
        leaf=leaves.get(own_minor, "none"),
        packets=counted.packets,
        bytes=counted.bytes,
        drops=counted.drops,
        backlog_bytes=counted.backlog_bytes,
    )
