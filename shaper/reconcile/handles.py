"""Names to kernel numbers: class minors, service ids, backend indices.

Numbers are stored with the instance, so that an edit or a restart never renumbers what did not
change. A flow's entries refer to its backend and its service by number: one that was used is given
out again only when there are no others, the longest-unused first, and a backend's only when no flow
counts on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from shaper.errors import ShaperError
from shaper.model import MAX_BACKENDS, MAX_SERVICES, Backend, Gateway, Service
from shaper.shaping.tree import class_keys, valid_minor

FIRST_MINOR = 0x10
LAST_MINOR = 0xFFEF


@dataclass(frozen=True, slots=True)
class Handles:
    """`retired` lists backend indices that left the configuration, the oldest first;
    `retired_services` service ids."""

    classes: Mapping[str, int] = field(default_factory=dict)
    services: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, int] = field(default_factory=dict)
    retired: tuple[int, ...] = ()
    retired_services: tuple[int, ...] = ()

    def union(self, new: Handles) -> Handles:
        """Both numberings count while an apply from this one to `new` is under way."""
        return Handles(
            {**self.classes, **new.classes},
            {**self.services, **new.services},
            {**self.backends, **new.backends},
            new.retired,
            new.retired_services,
        )


@dataclass(frozen=True, slots=True)
class _Recycled:
    """Numbers by key, and those that no key has any more."""

    numbers: dict[str, int]
    retired: tuple[int, ...]


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
    services = _recycle(
        [service.name for service in gateway.services],
        handles.services,
        handles.retired_services,
        range(MAX_SERVICES),
        "services",
    )
    backends = _recycle(
        [backend_key(service, b) for service in gateway.services for b in service.backends],
        handles.backends,
        handles.retired,
        [index for index in range(MAX_BACKENDS) if index not in busy_backends],
        "backends",
    )
    return Handles(classes, services.numbers, backends.numbers, backends.retired, services.retired)


def _recycle(
    keys: Iterable[str],
    known: Mapping[str, int],
    retired: Iterable[int],
    usable: Sequence[int],
    what: str,
) -> _Recycled:
    """New keys get usable numbers: fresh ones, then the longest retired.

    Args:
        known, retired: as stored. After an interrupted apply a number may stand in both, or twice.
    """
    before = dict.fromkeys(retired)
    allowed = set(usable)
    fresh = (number for number in usable if number not in before)
    reusable = (number for number in before if number in allowed)
    numbers = _keep_or_give(keys, known, chain(fresh, reusable), what)
    in_use = set(numbers.values())
    left = dict.fromkeys((*before, *known.values()))
    return _Recycled(numbers, tuple(number for number in left if number not in in_use))


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
