"""Regions of slot_map: shared by equal schedules, never overwritten under a program that reads."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from shaper.balance.schedule import MAX_SLOTS, Schedule
from shaper.kernel.regions import Region, Regions
from shaper.model import Protocol
from shaper.reconcile.entries import ServiceKey


def key(port: int) -> ServiceKey:
    return ServiceKey(IPv4Address("198.51.100.10"), port, Protocol.TCP)


def schedule(*backends: int) -> Schedule:
    return Schedule(backends, (1000,) * len(backends))


def put(regions: Regions, port: int, wanted: Schedule) -> Region:
    """As `DataPlaneTables.put_service` does it."""
    region = regions.holding(wanted) or regions.free(len(wanted.backends))
    assert region is not None
    regions.assign(key(port), region, wanted)
    return region


def test_equal_schedules_share_a_region() -> None:
    regions = Regions()
    assert put(regions, 80, schedule(1, 2, 3)) == Region(0, 3)
    assert put(regions, 81, schedule(1, 2, 3)) == Region(0, 3)
    assert put(regions, 82, schedule(3, 2, 1)) == Region(3, 3)


def test_a_shared_region_stays_until_its_last_key_is_gone() -> None:
    regions = Regions(
        [(key(80), Region(5, 2), schedule(1, 2)), (key(81), Region(5, 2), schedule(1, 2))]
    )
    regions.remove(key(80))
    assert regions.holding(schedule(1, 2)) == Region(5, 2)
    put(regions, 81, schedule(7))
    assert regions.holding(schedule(1, 2)) is None


def test_a_region_that_was_left_is_written_again_only_where_there_is_no_other_room() -> None:
    half = Schedule((1,) * (MAX_SLOTS // 2), (1,) * (MAX_SLOTS // 2))
    other = Schedule((2,) * (MAX_SLOTS // 2), (1,) * (MAX_SLOTS // 2))
    regions = Regions([(key(80), Region(0, MAX_SLOTS // 2), half)])
    assert put(regions, 80, other) == Region(MAX_SLOTS // 2, MAX_SLOTS // 2)
    assert put(regions, 80, half) == Region(0, MAX_SLOTS // 2)
    assert regions.free(MAX_SLOTS) is None


def test_writing_the_same_service_again_keeps_its_region() -> None:
    regions = Regions()
    first = put(regions, 80, schedule(1, 2))
    assert put(regions, 80, schedule(1, 2)) == first
    regions.remove(key(80))
    regions.remove(key(80))
    assert regions.holding(schedule(1, 2)) is None


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.none() | st.lists(st.integers(0, 2), max_size=3)),
        max_size=40,
    )
)
def test_every_key_finds_its_schedule_where_it_points(
    steps: list[tuple[int, list[int] | None]],
) -> None:
    """A plain model: an array of slots, and (region, schedule) by key."""
    regions = Regions()
    slots: dict[int, int] = {}
    pointers: dict[int, tuple[Region, Schedule]] = {}
    for port, backends in steps:
        if backends is None:
            regions.remove(key(port))
            pointers.pop(port, None)
        else:
            wanted = schedule(*backends)
            written = regions.holding(wanted) is not None
            region = put(regions, port, wanted)
            pointers[port] = region, wanted
            if not written:
                slots |= dict(enumerate(backends, region.first))
        for region, held in pointers.values():
            found = tuple(slots[region.first + place] for place in range(region.count))
            assert found == held.backends
        distinct = {held for _, held in pointers.values()}
        assert len({region for region, held in pointers.values() if held.backends}) == len(
            distinct - {schedule()}
        )
