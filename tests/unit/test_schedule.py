"""Schedules: which slots a service gets, and where."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.balance.schedule import (
    MAX_SLOTS,
    Schedule,
    ScheduleEntry,
    allocate_region,
    build_schedule,
    maglev_size,
)
from shaper.model import Scheduler

ENTRIES = (
    ScheduleEntry("a", 7, 1000),
    ScheduleEntry("b", 3, 0),
    ScheduleEntry("c", 9, 2000),
)
KERNEL = (
    Scheduler.ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS,
    Scheduler.MAGLEV,
    Scheduler.SOURCE_HASH,
)


def test_round_robin_is_the_ring() -> None:
    schedule = build_schedule(Scheduler.ROUND_ROBIN, ENTRIES)
    assert schedule == Schedule((9, 7, 9), (2000, 1000, 2000))


def test_least_connections_has_one_slot_per_backend() -> None:
    schedule = build_schedule(Scheduler.LEAST_CONNECTIONS, ENTRIES)
    assert schedule == Schedule((7, 9), (1000, 2000))


@pytest.mark.parametrize("scheduler", [Scheduler.MAGLEV, Scheduler.SOURCE_HASH])
def test_hash_schedulers_have_a_table(scheduler: Scheduler) -> None:
    schedule = build_schedule(scheduler, ENTRIES)
    slots = Counter(schedule.backends)
    assert len(schedule.backends) == 4093
    assert set(slots) == {7, 9}
    assert abs(slots[9] - 2 * slots[7]) <= 2
    weights = {7: 1000, 9: 2000}
    assert schedule.weights == tuple(weights[index] for index in schedule.backends)


@pytest.mark.parametrize("scheduler", KERNEL)
@pytest.mark.parametrize("entries", [(), (ScheduleEntry("a", 1, 0),)])
def test_nobody_to_schedule_is_an_empty_schedule(
    scheduler: Scheduler, entries: tuple[ScheduleEntry, ...]
) -> None:
    assert build_schedule(scheduler, entries) == Schedule((), ())


@pytest.mark.parametrize("scheduler", KERNEL)
def test_a_budget_that_is_too_small_is_refused(scheduler: Scheduler) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        build_schedule(scheduler, ENTRIES, budget=1)


@pytest.mark.parametrize("scheduler", sorted(set(Scheduler) - set(KERNEL)))
def test_schedulers_that_the_kernel_lacks_are_refused(scheduler: Scheduler) -> None:
    with pytest.raises(ValueError, match="no schedule in the kernel"):
        build_schedule(scheduler, ENTRIES)


@pytest.mark.parametrize(
    ("backends", "budget", "size"),
    [
        (1, MAX_SLOTS, 4093),
        (40, MAX_SLOTS, 4093),
        (41, MAX_SLOTS, 8191),
        (256, MAX_SLOTS, 32749),
        (256, 5000, 4093),
        (2, 300, 251),
    ],
)
def test_maglev_size_has_a_hundred_slots_per_backend(backends: int, budget: int, size: int) -> None:
    assert maglev_size(backends, budget) == size


@pytest.mark.parametrize(
    ("used", "count", "first"),
    [
        ([], 5, 0),
        ([(0, 10)], 5, 10),
        ([(5, 10)], 5, 0),
        ([(5, 10)], 6, 15),
        ([(20, 5), (0, 10), (0, 10)], 10, 10),
        ([(0, 90)], 10, 90),
        ([(0, 91)], 10, None),
        ([(50, 0)], 100, 0),
        ([(0, 100)], 0, 0),
    ],
)
def test_allocate_region_takes_the_first_that_fits(
    used: list[tuple[int, int]], count: int, first: int | None
) -> None:
    assert allocate_region(used, count, total=100) == first


@given(
    used=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=8),
    count=st.integers(1, 30),
)
def test_allocate_region_never_overlaps_and_never_misses(
    used: list[tuple[int, int]], count: int
) -> None:
    total = 64
    taken = {slot for first, length in used for slot in range(first, first + length)}
    fitting = [
        start
        for start in range(total - count + 1)
        if not taken.intersection(range(start, start + count))
    ]
    assert allocate_region(used, count, total) == (fitting[0] if fitting else None)
