"""Numbers stay with their names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.errors import ShaperError
from shaper.model import MAX_BACKENDS, MAX_SERVICES, Gateway
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


def test_an_index_that_live_flows_count_on_is_not_fresh() -> None:
    """As where the state file was lost while the programs kept running."""
    handles = allocate(Handles(), gateway(), busy_backends={0, 2})
    assert sorted(handles.backends.values()) == [1, 3]


def test_a_service_id_is_used_again_only_when_no_other_is_left() -> None:
    """Flows that live on would be classified as the new service's."""
    before = allocate(Handles(), gateway())
    after = allocate(before, gateway(services=(service("dns", "198.51.100.11"),)))
    assert after.services == {"dns": 1}
    assert after.retired_services == (0,)
    full = Handles(retired_services=(7, *(n for n in range(MAX_SERVICES) if n != 7)))
    assert allocate(full, gateway()).services == {"www": 7}


def test_one_index_is_never_given_to_two_backends() -> None:
    """An edit that was interrupted leaves the old keys beside their retired indices."""
    full = allocate(Handles(retired=tuple(range(3, MAX_BACKENDS))), gateway())
    edit = allocate(full, gateway(services=(service(backends=1),)))
    interrupted = full.union(edit)
    for _ in range(2):
        interrupted = allocate(interrupted, gateway(services=()))
        assert len(set(interrupted.retired)) == len(interrupted.retired) == MAX_BACKENDS - 1
    many = gateway(services=(service(backends=200), service("dns", "198.51.100.11", 200)))
    again = allocate(interrupted, many)
    assert len(set(again.backends.values())) == 400


def test_too_many_is_said() -> None:
    full = Handles(retired=tuple(range(MAX_BACKENDS)))
    with pytest.raises(ShaperError, match="no numbers left for more backends"):
        allocate(full, gateway(), busy_backends=range(MAX_BACKENDS))


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(["a", "b", "c", "d", "bulk"])), st.booleans()),
        max_size=12,
    )
)
def test_numbers_are_unique_and_stable_through_any_edits(
    edits: list[tuple[set[str], bool]],
) -> None:
    """Also through edits that are interrupted, after which both numberings count."""
    handles = Handles()
    for names, interrupted in edits:
        after = allocate(handles, _with_names(names))
        for old, new in (
            (handles.classes, after.classes),
            (handles.services, after.services),
            (handles.backends, after.backends),
        ):
            assert len(set(new.values())) == len(new)
            assert all(new[key] == number for key, number in old.items() if key in new)
        for used, retired in (
            (after.backends, after.retired),
            (after.services, after.retired_services),
        ):
            assert not set(retired) & set(used.values())
            assert len(set(retired)) == len(retired)
        handles = handles.union(after) if interrupted else after


def _with_names(names: set[str]) -> Gateway:
    return gateway(
        classes=tuple(traffic_class(name, rate_bps=10**6) for name in sorted(names | {"bulk"})),
        services=tuple(
            replace(service(name, f"198.51.100.{ord(name[0])}"), class_name=None)
            for name in sorted(names)
        ),
    )
