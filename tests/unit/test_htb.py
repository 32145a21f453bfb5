"""Bursts, quanta and rates as HTB wants them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.shaping.htb import (
    TICK_NS,
    burst_bytes,
    burst_ticks,
    quantum_bytes,
    ticks_to_bytes,
    whole_rate,
)

RATES = st.integers(min_value=64_000, max_value=100 * 10**9).map(whole_rate)
MTUS = st.sampled_from([576, 1280, 1500, 9000, 65536])


@pytest.mark.parametrize(
    ("rate_bps", "expected"),
    [
        (64_000, 3000),  # two packets
        (10**6, 3000),
        (24 * 10**6, 3000),  # both
        (50 * 10**6, 6250),  # a millisecond
        (200 * 10**6, 25_000),
        (10**9, 125_000),
        (2_500 * 10**6, 312_500),
        (10**10, 1_250_000),
        (100 * 10**9, 12_500_000),
    ],
)
def test_burst_is_a_millisecond_or_two_packets(rate_bps: int, expected: int) -> None:
    assert burst_bytes(rate_bps, 1500) == expected


@given(RATES, MTUS)
def test_burst_survives_the_kernel(rate_bps: int, mtu: int) -> None:
    burst = burst_bytes(rate_bps, mtu)
    ticks = burst_ticks(burst, rate_bps)
    assert ticks < 2**32
    assert ticks_to_bytes(ticks, rate_bps) == burst


@given(RATES, MTUS)
def test_burst_is_what_was_wanted_within_one_tick(rate_bps: int, mtu: int) -> None:
    wanted = max(rate_bps // 8000, 2 * mtu)
    tick_bytes = rate_bps // 8 * TICK_NS // 10**9
    assert wanted <= burst_bytes(rate_bps, mtu) <= wanted + tick_bytes + 1


def test_burst_of_the_smallest_rate_fits_the_message() -> None:
    assert 0 < burst_ticks(burst_bytes(8, 1500), 8) < 2**32


@given(RATES, MTUS)
def test_quantum_needs_no_advice_of_the_kernel(rate_bps: int, mtu: int) -> None:
    """HTB warns about its own choice only, where none is given (zero)."""
    assert mtu + 14 <= quantum_bytes(rate_bps, mtu) <= max(60_000, mtu + 14)


def test_quantum_follows_the_rate() -> None:
    assert quantum_bytes(200 * 10**6, 1500) == 2 * quantum_bytes(100 * 10**6, 1500)


@pytest.mark.parametrize(
    ("rate_bps", "expected"), [(1, 8), (8, 8), (15, 8), (64_001, 64_000), (10**9, 10**9)]
)
def test_whole_rate_is_in_bytes_per_second(rate_bps: int, expected: int) -> None:
    assert whole_rate(rate_bps) == expected
