"""What the demo asks for, and how far reality may be off. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MBIT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes, rates and tolerances.

    Args:
        unit_mbit: the classes have rates of 1, 5, 1, 2 and 1 units, the link has 10.
        share_percent: how far a round-robin share may be off, relative to what was asked.
        maglev_points: how far a maglev share may be off, in percentage points.
        goodput_percent: how far a goodput may be off, relative.
        streams: connections that fill a class. Many, where the machine stands still now and then:
            fq_codel takes that for a standing queue and drops, and one alone would halve its rate.
        interval_ms, fall, grace_ms: a dead backend gets no new flow after interval × fall + grace.
    """

    leaf: str = "auto"
    unit_mbit: int = 10
    requests: int = 5000
    share_percent: float = 1.0
    maglev_points: float = 2.0
    goodput_percent: float = 3.0
    seconds: int = 4
    streams: int = 1
    ping_limit_ms: float = 15.0
    interval_ms: int = 200
    rise: int = 2
    fall: int = 3
    grace_ms: int = 200
    request_rate_per_s: int = 400

    @property
    def link_mbit(self) -> int:
        return 10 * self.unit_mbit

    @property
    def takeover_limit_ms(self) -> int:
        return self.interval_ms * self.fall + self.grace_ms


def make_settings(leaf: str, *, slow: bool, tolerance_percent: float | None) -> Settings:
    """Settings for this machine.

    Args:
        slow: an emulated machine: less traffic, rates that it can carry, later answers.
        tolerance_percent: instead of the 3 % of goodputs (10 % where slow).
    """
    goodput_percent = (10.0 if slow else 3.0) if tolerance_percent is None else tolerance_percent
    if not slow:
        return Settings(leaf=leaf, goodput_percent=goodput_percent)
    return Settings(
        leaf=leaf,
        unit_mbit=2,
        requests=1000,
        maglev_points=4.0,  # chance alone moves a share of so few by one point
        goodput_percent=goodput_percent,
        seconds=6,
        streams=8,
        ping_limit_ms=40.0,
        interval_ms=1000,
        grace_ms=1000,
        request_rate_per_s=40,
    )
