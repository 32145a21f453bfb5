"""A service's schedule: what the kernel's picker reads from its region of slot_map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from shaper.balance.maglev import PRIMES, maglev_table
from shaper.balance.rings import MAX_RING, smooth_ring
from shaper.model import Scheduler

MAX_SLOTS: Final = 1 << 20
"""Slots of all schedules together (bpf/shared.h; a test compares them)."""

_SLOTS_PER_BACKEND: Final = 100
_MIN_MAGLEV: Final = 4093


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A backend that takes new flows. `weight_milli`: thousandths of the configured unit."""

    name: str
    index: int
    weight_milli: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Slot by slot: the backend's index and its weight in thousandths. Empty: nobody accepts."""

    backends: tuple[int, ...]
    weights: tuple[int, ...]


def build_schedule(
    scheduler: Scheduler, entries: Sequence[ScheduleEntry], budget: int = MAX_SLOTS
) -> Schedule:
    """The slots of a service.

    Args:
        entries: in the order of the file, which is the order of turns; those of weight 0 are left
            out. Names decide Maglev tables, so they must be stable and unique.
        budget: the most slots that this service may have.
    Raises:
        ValueError: the scheduler has no schedule in the kernel, or `budget` is too small.
    """
    taking = [entry for entry in entries if entry.weight_milli > 0]
    if not taking:
        return Schedule((), ())
    weight_of = {entry.index: entry.weight_milli for entry in taking}
    backends = _slots(scheduler, taking, budget)
    return Schedule(backends, tuple(weight_of[index] for index in backends))


def _slots(scheduler: Scheduler, taking: Sequence[ScheduleEntry], budget: int) -> tuple[int, ...]:
    if scheduler is Scheduler.ROUND_ROBIN:
        ring = smooth_ring([entry.weight_milli for entry in taking], min(MAX_RING, budget))
        return tuple(taking[place].index for place in ring)
    if scheduler is Scheduler.LEAST_CONNECTIONS:
        if len(taking) > budget:
            raise ValueError(f"{len(taking)} backends do not fit {budget} slots")
        return tuple(entry.index for entry in taking)
    if scheduler in (Scheduler.MAGLEV, Scheduler.SOURCE_HASH):
        rows = [(entry.name, entry.index, entry.weight_milli) for entry in taking]
        return maglev_table(rows, maglev_size(len(taking), budget))
    raise ValueError(f"{scheduler} has no schedule in the kernel")


def maglev_size(backends: int, budget: int) -> int:
    """The smallest prime with 100 slots per backend, 4093 at least; else the largest that fits.

    Raises:
        ValueError: not even one slot per backend.
    """
    wanted = max(_MIN_MAGLEV, _SLOTS_PER_BACKEND * backends)
    fitting = [prime for prime in PRIMES if backends <= prime <= budget]
    if not fitting:
        raise ValueError(f"{backends} backends do not fit {budget} Maglev slots")
    return next((prime for prime in fitting if prime >= wanted), fitting[-1])


def allocate_region(
    used: Iterable[tuple[int, int]], count: int, total: int = MAX_SLOTS
) -> int | None:
    """First fit: where `count` free slots begin, or None.

    Args:
        used: (first, count) of the regions in use; they may repeat, overlap or be empty.
    """
    end = 0
    for first, length in sorted(used):
        if not length:
            continue
        if first - end >= count:
            return end
        end = max(end, first + length)
    return end if total - end >= count else None
