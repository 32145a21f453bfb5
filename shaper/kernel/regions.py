"""Which region of slot_map holds which schedule: the bookkeeping of one `DataPlaneTables`. Pure.

Keys with the same schedule share a region (the ports of a service). A region that lost its last
key stays as it is while there is room elsewhere: a program on another CPU may have read the old
service a moment ago, and still picks from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shaper.balance.schedule import Schedule, allocate_region
from shaper.reconcile.entries import ServiceKey


@dataclass(frozen=True, slots=True)
class Region:
    """slot_map[first .. first + count)."""

    first: int
    count: int


class Regions:
    """Every service key's region, and the schedule in it."""

    def __init__(self, elements: Iterable[tuple[ServiceKey, Region, Schedule]] = ()) -> None:
        self._of_key: dict[ServiceKey, Region] = {}
        self._users: dict[Region, int] = {}
        self._schedules: dict[Region, Schedule] = {}
        self._places: dict[Schedule, Region] = {}
        self._left: list[Region] = []
        for key, region, schedule in elements:
            self.assign(key, region, schedule)

    def holding(self, schedule: Schedule) -> Region | None:
        """The region in use that has just these slots."""
        return self._places.get(schedule)

    def free(self, count: int) -> Region | None:
        """Where `count` slots can be written; None where there is no room."""
        used = [(region.first, region.count) for region in self._users]
        left = [(region.first, region.count) for region in self._left]
        first = allocate_region([*used, *left], count)
        if first is None:
            first = allocate_region(used, count)
        return None if first is None else Region(first, count)

    def assign(self, key: ServiceKey, region: Region, schedule: Schedule) -> None:
        """The key's element now points to `region`, which has the slots of `schedule`."""
        self._users[region] = self._users.get(region, 0) + 1
        self.remove(key)
        self._of_key[key] = region
        self._schedules[region] = schedule
        self._places[schedule] = region

    def remove(self, key: ServiceKey) -> None:
        """The key's element is gone."""
        region = self._of_key.pop(key, None)
        if region is None:
            return
        self._users[region] -= 1
        if self._users[region]:
            return
        del self._users[region]
        self._left.append(region)
        schedule = self._schedules.pop(region)
        if self._places.get(schedule) == region:
            del self._places[schedule]
