"""A draft without problems becomes the `Gateway`: defaults resolved, spans made numbers."""

from __future__ import annotations

from shaper.config.checks.services import single_port
from shaper.config.draft import Draft
from shaper.config.fields import Announce
from shaper.config.schema import BackendSpec, HealthSpec, LeafSpec, ServiceSpec
from shaper.config.unknown import Unknown, known, optional
from shaper.model import (
    IMPLICIT_CLASS,
    Address,
    Backend,
    Controller,
    Gateway,
    HealthCheck,
    Interface,
    Leaf,
    LeafKind,
    Service,
    TrafficClass,
)

DEFAULT_TIMEOUT_MS = 1000


def build(draft: Draft) -> Gateway:
    """The desired state that the file asks for."""
    spec = draft.spec
    classes = tuple(_class(draft, name) for name in spec.classes) or _implicit_class(draft)
    controller = spec.controller
    return Gateway(
        interfaces=tuple(
            Interface(
                name=name,
                device=known(interface.device),
                role=known(interface.role),
                bandwidth_bps=optional(interface.bandwidth),
            )
            for name, interface in spec.interfaces.items()
        ),
        classes=classes,
        default_class=_default_class(draft) if classes else None,
        services=tuple(_service(name, service) for name, service in spec.services.items()),
        controller=Controller(known(controller.interval), known(controller.weights))
        if controller
        else Controller(),
    )


def _default_class(draft: Draft) -> str:
    name = draft.spec.default_class
    return IMPLICIT_CLASS if name is None else known(name)


def _implicit_class(draft: Draft) -> tuple[TrafficClass, ...]:
    """Interfaces with a bandwidth and no classes: one class that may use all of it.

    Its rate and ceil are the largest bandwidth, so that no interface is throttled; the tree
    builder clips both to each interface's own.
    """
    bandwidths_bps = draft.bandwidths_bps
    if not bandwidths_bps:
        return ()
    rate_bps = max(bandwidths_bps.values())
    return (
        TrafficClass(
            name=IMPLICIT_CLASS,
            parent=None,
            rate_bps=rate_bps,
            ceil_bps=rate_bps,
            priority=0,
            leaf=Leaf(),
            interfaces=tuple(bandwidths_bps),
        ),
    )


def _class(draft: Draft, name: str) -> TrafficClass:
    spec = draft.spec.classes[name]
    rate_bps = known(spec.rate)
    return TrafficClass(
        name=name,
        parent=optional(spec.parent),
        rate_bps=rate_bps,
        ceil_bps=rate_bps if spec.ceil is None else known(spec.ceil),
        priority=known(spec.priority),
        leaf=_leaf(spec.leaf) if spec.leaf else Leaf(),
        interfaces=draft.interfaces_of(name),
    )


def _leaf(spec: LeafSpec) -> Leaf:
    return Leaf(
        kind=LeafKind(known(spec.kind).value),
        limit_packets=optional(spec.limit),
        target_us=optional(spec.target),
        interval_us=optional(spec.interval),
        flows=optional(spec.flows),
        quantum_bytes=optional(spec.quantum),
        memory_limit_bytes=optional(spec.memory_limit),
        ecn=optional(spec.ecn),
    )


def _service(name: str, spec: ServiceSpec) -> Service:
    return Service(
        name=name,
        address=_address(spec.address),
        ports=tuple(known(span).first for span in spec.port),
        protocol=known(spec.protocol),
        scheduler=known(spec.scheduler),
        forwarding=known(spec.forwarding),
        class_name=optional(spec.class_),
        announce=known(spec.announce) is Announce.AUTO,
        unavailable=known(spec.unavailable),
        backends=tuple(
            _backend(backend_name, backend, spec) for backend_name, backend in spec.backends.items()
        ),
        health=_health(spec.health) if spec.health else None,
    )


def _address(value: Address | Unknown) -> Address:
    return known(value)  # type: ignore[return-value]  # mypy joins both kinds to their base class


def _backend(name: str, spec: BackendSpec, service: ServiceSpec) -> Backend:
    port = single_port(service) if spec.port is None else known(spec.port)
    if port is None:
        raise AssertionError(f"backend {name!r} has no port although no problem was reported")
    return Backend(name, _address(spec.address), port, known(spec.weight))


def _health(spec: HealthSpec) -> HealthCheck:
    defaults = HealthCheck(known(spec.type))
    interval_ms = known(spec.interval)
    timeout = min(DEFAULT_TIMEOUT_MS, interval_ms) if spec.timeout is None else spec.timeout
    expect = optional(spec.expect)
    return HealthCheck(
        kind=known(spec.type),
        interval_ms=interval_ms,
        timeout_ms=known(timeout),
        rise=known(spec.rise),
        fall=known(spec.fall),
        port=optional(spec.port),
        path=defaults.path if spec.path is None else known(spec.path),
        host=optional(spec.host),
        expect=defaults.expect if expect is None else (expect.first, expect.last),
    )
