"""Names to kernel numbers: class minors, service ids, backend indices.

Numbers are stored with the instance, so that an edit or a restart never renumbers what did not
change. A flow entry refers to its backend by index: an index that was used is given out again only
when no flow counts on it, the longest-unused first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from shaper.errors import ShaperError
from shaper.model import MAX_BACKENDS, MAX_SERVICES, Backend, Gateway, Service
from shaper.shaping.tree import class_keys, valid_minor

FIRST_MINOR = 0x10
LAST_MINOR = 0xFFEF


@dataclass(frozen=True, slots=True)
class Handles:
    """`retired` lists backend indices that left the configuration, the oldest first."""

    classes: Mapping[str, int] = field(default_factory=dict)
    services: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, int] = field(default_factory=dict)
    retired: tuple[int, ...] = ()


def backend_key(service: Service, backend: Backend) -> str:
    """A backend that moves to another address or port is another backend."""
    return f"{service.name}/{backend.name}@{backend.address}:{backend.port}"


def allocate(
    handles: Handles,
    gateway: Gateway,
    busy_minors: Collection[int] = (),
    busy_backends: Collection[int] = (),
) -> Handles:
    """Numbers for everything in `gateway`: the known ones kept, new ones added, gone ones dropped.

    Args:
        busy_minors: minors that exist in the kernel and may still hold packets.
        busy_backends: indices that live flows count on.
    Raises:
        ShaperError: more names than numbers.
    """
    classes = _keep_or_give(
        class_keys(gateway),
        handles.classes,
        (
            minor
            for minor in range(FIRST_MINOR, LAST_MINOR + 1)
            if valid_minor(minor) and minor not in busy_minors
        ),
        "classes",
    )
    services = _keep_or_give(
        [service.name for service in gateway.services],
        handles.services,
        iter(range(MAX_SERVICES)),
        "services",
    )
    keys = [backend_key(service, b) for service in gateway.services for b in service.backends]
    kept = {handles.backends[key] for key in keys if key in handles.backends}
    left = tuple(index for index in handles.backends.values() if index not in kept)
    retired = (*handles.retired, *left)
    known = kept | set(retired)
    fresh = (index for index in range(MAX_BACKENDS) if index not in known)
    reusable = (index for index in handles.retired if index not in busy_backends)
    backends = _keep_or_give(keys, handles.backends, _chain(fresh, reusable), "backends")
    in_use = set(backends.values())
    return Handles(
        classes, services, backends, tuple(index for index in retired if index not in in_use)
    )


def _chain(first: Iterable[int], second: Iterable[int]) -> Iterable[int]:
    yield from first
    yield from second


def _keep_or_give(
    keys: Iterable[str], known: Mapping[str, int], free: Iterable[int], what: str
) -> dict[str, int]:
    keys = list(keys)
    result = {key: known[key] for key in keys if key in known}
    taken = set(known.values())
    numbers = iter(number for number in free if number not in taken)
    for key in keys:
        if key not in result:
            number = next(numbers, None)
            if number is None:
                raise ShaperError(f"there are no numbers left for more {what}")
            result[key] = number
    return result
