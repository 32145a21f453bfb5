"""The rise/fall machine against a plain reading of its rule."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.health.state import HealthState, observe
from shaper.model import HealthCheck, HealthKind


def _check(rise: int = 2, fall: int = 3) -> HealthCheck:
    return HealthCheck(HealthKind.TCP, rise=rise, fall=fall)


def _states(check: HealthCheck, results: list[bool], start: bool = True) -> list[bool]:
    """`up` after each result."""
    state, ups = HealthState(up=start), []
    for ok in results:
        state = observe(state, check, ok)
        ups.append(state.up)
    return ups


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("+++", "UUU"),
        ("-", "U"),
        ("--", "UU"),
        ("---", "UUD"),
        ("--+--", "UUUUU"),
        ("--+---", "UUUUUD"),
        ("---+", "UUDD"),
        ("---++", "UUDDU"),
        ("---+-++", "UUDDDDU"),
        ("---++--", "UUDDUUU"),
        ("---++---", "UUDDUUUD"),
    ],
)
def test_observe_counts_in_a_row(results: str, expected: str) -> None:
    ups = _states(_check(), [result == "+" for result in results])
    assert "".join("U" if up else "D" for up in ups) == expected


def test_observe_with_one_follows_every_result() -> None:
    results = [False, True, False, False, True]
    assert _states(_check(rise=1, fall=1), results) == results


def test_observe_starts_where_an_earlier_agent_left_it() -> None:
    assert _states(_check(), [True, True], start=False) == [False, True]


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_observe_changes_exactly_after_a_full_run(
    rise: int, fall: int, results: list[bool]
) -> None:
    """Oracle: a state changes within the first run of contrary results that is long enough."""
    up, expected = True, []
    for ok, run in groupby(results):
        for length, _ in enumerate(run, start=1):
            if ok != up and length >= (rise if ok else fall):
                up = ok
            expected.append(up)
    assert _states(_check(rise, fall), results) == expected
