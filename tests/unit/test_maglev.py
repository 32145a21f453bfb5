"""Maglev tables: exact against the oracle, fair, and stable when a backend leaves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaper.balance.maglev import PRIMES, maglev_table, permutation
from tests import oracles


def entries(*weights: int) -> list[tuple[str, int, int]]:
    return [(f"s{number:03}", number, weight) for number, weight in enumerate(weights)]


@settings(deadline=None, max_examples=60)
@given(
    weights=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any),
    size=st.sampled_from(PRIMES[:3]),
)
def test_maglev_is_the_algorithm_by_the_book(weights: list[int], size: int) -> None:
    rows = entries(*weights)
    permutations = {name: permutation(name, size) for name, _, _ in rows}
    expected = oracles.maglev(permutations, {name: weight for name, _, weight in rows}, size)
    index_of = {name: index for name, index, _ in rows}
    assert maglev_table(rows, size) == tuple(index_of[name] for name in expected)


@pytest.mark.parametrize("size", PRIMES)
def test_maglev_sizes_are_prime(size: int) -> None:
    assert all(size % divisor for divisor in range(2, int(size**0.5) + 1))


def test_maglev_does_not_depend_on_the_order() -> None:
    rows = entries(1, 5, 2, 2, 9)
    assert maglev_table(rows, 1021) == maglev_table(rows[::-1], 1021)


def test_maglev_does_not_depend_on_the_unit_of_weights() -> None:
    assert maglev_table(entries(1, 2, 3), 1021) == maglev_table(entries(1000, 2000, 3000), 1021)


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 3, 4), (1, 1000), (7,) * 256])
def test_maglev_shares_follow_the_weights_to_within_a_slot(weights: tuple[int, ...]) -> None:
    size = 65521
    slots = Counter(maglev_table(entries(*weights), size))
    for index, weight in enumerate(weights):
        assert abs(slots[index] - size * weight / sum(weights)) <= len(weights) ** 0.5 + 1


def test_maglev_gives_weight_zero_nothing() -> None:
    assert set(maglev_table(entries(3, 0, 1), 251)) == {0, 2}


def test_maglev_moves_few_other_slots_when_one_leaves() -> None:
    """About 0.6 % at this size and number of backends."""
    rows = entries(*[1] * 100)
    before, after = maglev_table(rows, 65521), maglev_table(rows[1:], 65521)
    moved = sum(old != new for old, new in zip(before, after, strict=True) if old != 0)
    assert moved / 65521 < 0.01


@pytest.mark.parametrize("rows", [[], entries(0, 0), entries(*[1] * 252)])
def test_maglev_refuses_what_it_cannot_place(rows: list[tuple[str, int, int]]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        maglev_table(rows, 251)
