"""Checks of the section `services`: addresses, ports, backends and health."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from shaper.config.draft import Draft
from shaper.config.parsers import ANY_PORT, Span
from shaper.config.problems import Problem
from shaper.config.reader import Loc
from shaper.config.schema import BackendSpec, HealthSpec, ServiceSpec
from shaper.config.unknown import Unknown
from shaper.model import (
    MAX_BACKENDS,
    MAX_BACKENDS_PER_SERVICE,
    MAX_SERVICE_PORTS,
    MAX_SERVICES,
    Address,
    HealthKind,
)
from shaper.units import format_time_us

HTTP_KEYS: Final = ("path", "host", "expect")


def not_too_many(draft: Draft) -> Iterator[Problem]:
    services = draft.declared("services")
    if len(services) > MAX_SERVICES:
        loc = ("services", services[MAX_SERVICES])
        yield draft.at_key(loc, f"more than {MAX_SERVICES} services")
    total = 0
    for name in draft.spec.services:
        backends = draft.raw("services", name, "backends")
        backends = list(backends) if isinstance(backends, dict) else []
        base = ("services", name, "backends")
        if len(backends) > MAX_BACKENDS_PER_SERVICE:
            message = f"more than {MAX_BACKENDS_PER_SERVICE} backends in service {name!r}"
            yield draft.at_key((*base, backends[MAX_BACKENDS_PER_SERVICE]), message)
        if total <= MAX_BACKENDS < total + len(backends):
            at = (*base, backends[MAX_BACKENDS - total])
            yield draft.at_key(at, f"more than {MAX_BACKENDS} backends in all services")
        total += len(backends)


def some_backend(draft: Draft) -> Iterator[Problem]:
    for name in draft.spec.services:
        if draft.raw("services", name, "backends") == {}:
            loc = ("services", name, "backends")
            yield draft.at_value(loc, f"service {name!r} has no backends")


@dataclass(slots=True)
class _Claims:
    """Who has which port of one address and protocol."""

    single: dict[int, str] = field(default_factory=dict)
    ranges: list[tuple[Span, str]] = field(default_factory=list)

    def owner(self, span: Span) -> str | None:
        """Who has a port of the span. `any` means what is left: no contradiction to a port."""
        for taken, name in self.ranges:
            if taken.overlaps(span) and (taken == ANY_PORT) == (span == ANY_PORT):
                return name
        if span.first == span.last:
            return self.single.get(span.first)
        if span == ANY_PORT:
            return None
        return next((self.single[port] for port in self.single if span.holds(port)), None)

    def add(self, span: Span, name: str) -> None:
        if span.first == span.last:
            self.single.setdefault(span.first, name)
        else:
            self.ranges.append((span, name))


def vip_and_port_once(draft: Draft) -> Iterator[Problem]:
    """No two services, and no two entries of one port list, claim the same packets."""
    claims: dict[tuple[Address, object], _Claims] = defaultdict(_Claims)
    for name, service in draft.spec.services.items():
        if isinstance(service.address, Unknown) or isinstance(service.protocol, Unknown):
            continue
        others, own = claims[service.address, service.protocol], _Claims()
        for index, span in enumerate(service.port):
            if isinstance(span, Unknown):
                continue
            owner = own.owner(span) or others.owner(span)
            if owner is not None:
                message = _collision(name, owner, service, span)
                yield draft.at_value(_port_location(draft, name, index), message)
            own.add(span, name)
        for span in service.port:
            if isinstance(span, Span):
                others.add(span, name)


def _collision(name: str, owner: str, service: ServiceSpec, span: Span) -> str:
    shown = str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
    if name == owner:
        return f"port {shown} stands in this list twice"
    protocol = "" if isinstance(service.protocol, Unknown) else service.protocol.value
    return f"{service.address} port {shown}/{protocol} already belongs to service {owner!r}"


def _port_location(draft: Draft, name: str, index: int) -> Loc:
    loc: Loc = ("services", name, "port")
    return (*loc, index) if isinstance(draft.raw(*loc), list) else loc


def not_too_many_ports(draft: Draft) -> Iterator[Problem]:
    """The data plane has an entry for every port of every service."""
    total = 0
    for name, service in draft.spec.services.items():
        if total <= MAX_SERVICE_PORTS < total + len(service.port):
            loc = _port_location(draft, name, MAX_SERVICE_PORTS - total)
            yield draft.at_value(loc, f"more than {MAX_SERVICE_PORTS} ports in all services")
        total += len(service.port)


def backend_addresses_fit(draft: Draft) -> Iterator[Problem]:
    """Same family as the service, and no address that the gateway itself answers for."""
    owners = {
        service.address: name
        for name, service in reversed(draft.spec.services.items())
        if not isinstance(service.address, Unknown)
    }
    for name, backend_name, backend in _backends(draft):
        address, vip = backend.address, draft.spec.services[name].address
        if isinstance(address, Unknown):
            continue
        loc = ("services", name, "backends", backend_name, "address")
        if not isinstance(vip, Unknown) and vip.version != address.version:
            message = (
                f"backend address {address} is {_family(address)}, "
                f"but the service's address {vip} is {_family(vip)}"
            )
            yield draft.at_value(loc, message)
        elif address in owners:
            message = f"backend address {address} is the address of service {owners[address]!r}"
            yield draft.at_value(loc, message)


def _backends(draft: Draft) -> Iterator[tuple[str, str, BackendSpec]]:
    for name, service in draft.spec.services.items():
        for backend_name, backend in service.backends.items():
            yield name, backend_name, backend


def _family(address: IPv4Address | IPv6Address) -> str:
    return f"IPv{address.version}"


def single_port(service: ServiceSpec) -> int | None:
    """The service's port where it has exactly one, which is then its backends' default."""
    if len(service.port) != 1 or isinstance(service.port[0], Unknown):
        return None
    span = service.port[0]
    return span.first if span.first == span.last else None


def backend_port_is_clear(draft: Draft) -> Iterator[Problem]:
    """A backend has one port: with several on the service, it must be said which."""
    for name, backend_name, backend in _backends(draft):
        if backend.port is None and len(draft.spec.services[name].port) > 1:
            message = f"missing key 'port': service {name!r} has several"
            yield draft.at_key(("services", name, "backends", backend_name), message)


def backend_once(draft: Draft) -> Iterator[Problem]:
    seen: dict[tuple[str, Address, int], str] = {}
    for name, backend_name, backend in _backends(draft):
        port = single_port(draft.spec.services[name]) if backend.port is None else backend.port
        if isinstance(backend.address, Unknown) or not isinstance(port, int):
            continue
        owner = seen.setdefault((name, backend.address, port), backend_name)
        if owner != backend_name:
            loc = ("services", name, "backends", backend_name, "address")
            yield draft.at_value(loc, f"{backend.address} port {port} is already backend {owner!r}")


def health_keys_fit_type(draft: Draft) -> Iterator[Problem]:
    for name, health in _health(draft):
        if health.type is not HealthKind.TCP:
            continue
        for key in HTTP_KEYS:
            if draft.raw("services", name, "health", key) is not None:
                loc = ("services", name, "health", key)
                yield draft.at_key(loc, f"{key!r} is for http checks, and this check is tcp")


def health_timeout_fits_interval(draft: Draft) -> Iterator[Problem]:
    for name, health in _health(draft):
        timeout, interval = health.timeout, health.interval
        if isinstance(timeout, int) and isinstance(interval, int) and timeout > interval:
            loc = ("services", name, "health", "timeout")
            message = f"'timeout' ({_ms(timeout)}) is above 'interval' ({_ms(interval)})"
            yield draft.at_value(loc, message)


def _ms(time_ms: int) -> str:
    return format_time_us(time_ms * 1000)


def _health(draft: Draft) -> Iterator[tuple[str, HealthSpec]]:
    for name, service in draft.spec.services.items():
        if service.health is not None:
            yield name, service.health


def affinity_prefix_fits(draft: Draft) -> Iterator[Problem]:
    for name, service in draft.spec.services.items():
        length = service.affinity.source_prefix if service.affinity else None
        if isinstance(service.address, IPv4Address) and isinstance(length, int) and length > 32:
            loc = ("services", name, "affinity", "source_prefix")
            message = f"prefix length {length} is more than an IPv4 address has (32)"
            yield draft.at_value(loc, message)


def some_weight(draft: Draft) -> Iterator[Problem]:
    for name, service in draft.spec.services.items():
        if all(backend.weight == 0 for backend in service.backends.values()):
            message = f"every backend of service {name!r} has weight 0: no new flow is accepted"
            yield draft.at_key(("services", name, "backends"), message)


CHECKS: Final = (
    not_too_many,
    some_backend,
    vip_and_port_once,
    not_too_many_ports,
    backend_addresses_fit,
    backend_port_is_clear,
    backend_once,
    health_keys_fit_type,
    health_timeout_fits_interval,
    affinity_prefix_fits,
)
WARNINGS: Final = (some_weight,)
