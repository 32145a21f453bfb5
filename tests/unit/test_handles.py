"""Numbers stay with their names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.errors import ShaperError
from shaper.model import MAX_BACKENDS
from shaper.reconcile.handles import Handles, allocate
from tests.unit.machine import gateway, service, traffic_class


def test_what_did_not_change_keeps_its_number() -> None:
    before = allocate(Handles(), gateway())
    after = allocate(
        before,
        gateway(
            classes=(traffic_class("new"), traffic_class("web"), traffic_class("bulk")),
            services=(service("a", "198.51.100.20"), service()),
        ),
    )
    assert before.classes.items() <= after.classes.items()
    assert before.services.items() <= after.services.items()
    assert before.backends.items() <= after.backends.items()


def test_minors_that_exist_in_the_kernel_are_not_given_to_new_classes() -> None:
    handles = allocate(Handles(), gateway(), busy_minors={0x10, 0x11})
    assert min(handles.classes.values()) == 0x12


def test_an_index_with_flows_is_not_given_out_again() -> None:
    taken = Handles(backends={}, retired=tuple(range(MAX_BACKENDS)))
    handles = allocate(taken, gateway(), busy_backends={0, 1})
    assert sorted(handles.backends.values()) == [2, 3]
    assert handles.retired[:2] == (0, 1)


def test_a_fresh_index_is_preferred_to_a_used_one() -> None:
    before = allocate(Handles(), gateway())
    without = allocate(before, gateway(services=()))
    assert sorted(without.retired) == [0, 1]
    again = allocate(without, gateway())
    assert sorted(again.backends.values()) == [2, 3]


def test_too_many_is_said() -> None:
    full = Handles(retired=tuple(range(MAX_BACKENDS)))
    with pytest.raises(ShaperError, match="no numbers left for more backends"):
        allocate(full, gateway(), busy_backends=range(MAX_BACKENDS))


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c", "d", "bulk"])), max_size=12))
def test_numbers_are_unique_and_stable_through_any_edits(edits: list[set[str]]) -> None:
    handles = Handles()
    for names in edits:
        wanted = gateway(
            classes=tuple(traffic_class(name, rate_bps=10**6) for name in sorted(names | {"bulk"})),
            services=tuple(
                replace(service(name, f"198.51.100.{ord(name[0])}"), class_name=None)
                for name in sorted(names)
            ),
        )
        after = allocate(handles, wanted)
        for old, new in (
            (handles.classes, after.classes),
            (handles.services, after.services),
            (handles.backends, after.backends),
        ):
            assert len(set(new.values())) == len(new)
            assert all(new[key] == number for key, number in old.items() if key in new)
        assert not set(after.retired) & set(after.backends.values())
        handles = after
