"""Rates, sizes and times as tc(8) and people write them. Pure.

All rates are decimal bits per second (`1mbit` is 1,000,000 bit/s), as tc prints them.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_RATE: Final = re.compile(
    r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(bit|kbit|mbit|gbit|tbit)", re.IGNORECASE
)
_TIME: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(us|ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(b|kb|mb|gb)", re.IGNORECASE)

RATE_EXAMPLE: Final = "a rate such as 500kbit, 10mbit or 1.5gbit"
TIME_EXAMPLE: Final = "a time such as 500ms, 10s or 5m"
SIZE_EXAMPLE: Final = "a size such as 64kb or 32mb"

_RATE_UNITS: Final = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12}
_TIME_UNITS_US: Final = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
}
_SIZE_UNITS: Final = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}


def _parse(text: object, pattern: re.Pattern[str], units: dict[str, int], what: str) -> int:
    match = pattern.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not {what}")
    return int(Decimal(match[1]) * units[match[2].lower()])


def parse_rate(text: object) -> int:
    """`"1.5mbit"` -> 1500000 (bits per second). ValueError also without a unit."""
    return _parse(text, _RATE, _RATE_UNITS, RATE_EXAMPLE)


def parse_time_us(text: object) -> int:
    """`"500ms"` -> 500000 (microseconds). ValueError also without a unit."""
    return _parse(text, _TIME, _TIME_UNITS_US, TIME_EXAMPLE)


def parse_size(text: object) -> int:
    """`"32mb"` -> 33554432 (bytes; tc's kb and mb are powers of two). Raises ValueError."""
    return _parse(text, _SIZE, _SIZE_UNITS, SIZE_EXAMPLE)


def format_rate(rate_bps: int) -> str:
    """1500000 -> `"1.5mbit"`: the shortest exact form."""
    for unit in ("tbit", "gbit", "mbit", "kbit"):
        scale = _RATE_UNITS[unit]
        if rate_bps >= scale:
            value = Decimal(rate_bps) / scale
            text = f"{value:f}"
            if len(text.partition(".")[2]) <= 3:
                return f"{text}{unit}"
    return f"{rate_bps}bit"


def format_time_us(time_us: int) -> str:
    """500000 -> `"500ms"`."""
    for unit, scale in (("s", 10**6), ("ms", 10**3)):
        if time_us >= scale and time_us % scale == 0:
            return f"{time_us // scale}{unit}"
    return f"{time_us}us"
