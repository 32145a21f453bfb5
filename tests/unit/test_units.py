"""Rates, times and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.units import format_rate, format_time_us, parse_rate, parse_size, parse_time_us


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        ("1bit", 1),
        ("500kbit", 500_000),
        ("10mbit", 10_000_000),
        ("1.5gbit", 1_500_000_000),
        ("1tbit", 10**12),
        ("10Mbit", 10_000_000),
        (" 10 mbit ", 10_000_000),
        ("0.1mbit", 100_000),
    ],
)
def test_parse_rate(text: str, rate_bps: int) -> None:
    assert parse_rate(text) == rate_bps


@pytest.mark.parametrize(
    "text", ["", "10", "mbit", "-1mbit", "1,5mbit", "1e3mbit", "10mb", "10mbps", "١mbit", 10, None]
)
def test_parse_rate_refuses(text: object) -> None:
    with pytest.raises(ValueError, match="is not a rate such as"):
        parse_rate(text)


def test_parse_rate_of_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a rate such as"):
        parse_rate("9" * 1_000_000 + "tbit")


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1us", 1),
        ("500ms", 500_000),
        ("1.5s", 1_500_000),
        ("10m", 600_000_000),
        ("1h", 3_600_000_000),
        ("1d", 86_400_000_000),
    ],
)
def test_parse_time(text: str, time_us: int) -> None:
    assert parse_time_us(text) == time_us


@pytest.mark.parametrize("text", ["", "5", "5min", "5S", "-5s", 5])
def test_parse_time_refuses(text: object) -> None:
    with pytest.raises(ValueError, match="is not a time such as"):
        parse_time_us(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("300b", 300), ("64kb", 65536), ("32mb", 2**25), ("1.5GB", 3 * 2**29)]
)
def test_parse_size(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "64", "64k", "64kbit", 64])
def test_parse_size_refuses(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size such as"):
        parse_size(text)


@pytest.mark.parametrize(
    ("rate_bps", "text"),
    [
        (0, "0bit"),
        (999, "999bit"),
        (1_500_000, "1.5mbit"),
        (10_000_000, "10mbit"),
        (1_234_567, "1234.567kbit"),
        (10**13, "10tbit"),
    ],
)
def test_format_rate(rate_bps: int, text: str) -> None:
    assert format_rate(rate_bps) == text


@given(st.integers(min_value=0, max_value=10**14))
def test_format_rate_is_exact(rate_bps: int) -> None:
    assert parse_rate(format_rate(rate_bps)) == rate_bps


@given(st.integers(min_value=0, max_value=10**14))
def test_format_time_is_exact(time_us: int) -> None:
    assert parse_time_us(format_time_us(time_us)) == time_us
