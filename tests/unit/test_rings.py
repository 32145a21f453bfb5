"""Smooth weighted rings."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.balance.rings import MAX_RING, smooth_ring


@pytest.mark.parametrize(
    ("weights", "ring"),
    [
        ((5, 1, 1), (0, 0, 1, 0, 2, 0, 0)),  # the example of nginx's commit message
        ((1, 1, 1), (0, 1, 2)),
        ((7,), (0,)),
        ((1000, 2000), (1, 0, 1)),
        ((0, 2, 0, 2), (1, 3)),
    ],
)
def test_ring_is_smooth(weights: tuple[int, ...], ring: tuple[int, ...]) -> None:
    assert smooth_ring(weights) == ring


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20).filter(any))
def test_ring_gives_every_weight_its_exact_share(weights: list[int]) -> None:
    ring = Counter(smooth_ring(weights))
    assert [ring[place] for place in range(len(weights))] == [
        weight // gcd(*weights) for weight in weights
    ]


@given(
    weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any),
    limit=st.integers(40, 200),
)
def test_ring_that_is_too_long_is_rounded(weights: list[int], limit: int) -> None:
    ring = Counter(smooth_ring(weights, limit))
    assert sum(ring.values()) <= limit
    present = sum(1 for weight in weights if weight)
    for place, weight in enumerate(weights):
        exact = weight * limit / sum(weights)
        if sum(weights) // gcd(*weights) > limit:
            assert abs(ring[place] - exact) <= present
        assert (ring[place] > 0) == (weight > 0)


def test_ring_of_equal_weights_never_repeats() -> None:
    ring = smooth_ring([3] * 50)
    assert all(first != second for first, second in pairwise(ring))


def test_ring_fits_its_region() -> None:
    assert len(smooth_ring([999_983, 1_000_003, 17])) == MAX_RING


def test_ring_refuses_more_backends_than_slots() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        smooth_ring([1, 2, 3, 4], limit=3)
