"""The rise/fall state machine of one backend. Pure.

As HAProxy's checks (`rise`, `fall`): a backend starts up, `fall` failures in a row take it down,
`rise` successes in a row bring it back, and one result that agrees with the state forgets the
others before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shaper.model import HealthCheck


@dataclass(frozen=True, slots=True)
class HealthState:
    """`contrary` counts the last results in a row that speak against `up`."""

    up: bool = True
    contrary: int = 0


def observe(state: HealthState, check: HealthCheck, ok: bool) -> HealthState:
    """The state after one more result. A change of `up` is the transition."""
    if ok == state.up:
        return replace(state, contrary=0)
    contrary = state.contrary + 1
    needed = check.fall if state.up else check.rise
    if contrary < needed:
        return replace(state, contrary=contrary)
    return HealthState(up=ok)
