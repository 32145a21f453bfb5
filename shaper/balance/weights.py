"""The least-load weight controller: live flow counts in, one factor per backend out. Pure.

A backend's effective weight is its weight × its factor. Each tick compares every backend's load,
flows / weight, with the service's own (all flows / all weights):

1. Counts are smoothed (EWMA), so that the loop reacts slower than its data is stale.
2. A deviation counts only beyond a dead band: a fixed part, plus what chance alone does to a count
   of that size (√n). A few flows therefore move nothing, and an idle service returns to factor 1.
3. What is left, in logarithms, is answered in proportion with a gain of 1: twice the load beyond
   the band asks for half the weight. Nothing is summed up over time.
4. Targets are clamped and normalised so that the weights in use still add up to what the file says,
   then approached in bounded steps. Small corrections are not worth new tables.

Why it does not oscillate, whatever the length of the flows and the age of the data: flows follow
weights with a delay and a lag, the EWMA is another lag, and neither amplifies at any frequency.
With a gain of at most 1 behind a dead band the loop gain stays below 1 at every frequency but zero
(the small-gain theorem). A backend with more than it can do is the exception, because its queue
adds up what it gets; there the simulation in the tests shows that the swings die away, down to the
step that `hold` leaves.

The price is proportional control's: a backend that needs four times as long for a request ends with
about twice the flows of the others, half-way between equal requests and equal concurrency. See
docs/controller.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Tuning:
    """All per tick: what delays the loop is one tick, however long it lasts."""

    smoothing: float = 0.2
    """The EWMA's share of the newest count."""
    gain: float = 1.0
    """Answer to a deviation, in logarithms. Stable up to 1."""
    dead_band: float = 0.1
    """Relative deviation that is never answered."""
    noise: float = 2.0
    """Standard deviations of a count that are taken for chance."""
    max_step: float = 0.1
    """The most a factor moves in one tick."""
    hold: float = 0.05
    """Factors stay where they are while every target is nearer than this."""
    floor: float = 0.1
    ceiling: float = 2.0


DEFAULT_TUNING: Final = Tuning()


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """One backend of a service at a tick. `weight` is the file's; 0 takes no part."""

    name: str
    weight: int
    active_flows: int
    up: bool = True


@dataclass(frozen=True, slots=True)
class BackendControl:
    """What the controller remembers of a backend. `load_flows` is the smoothed count."""

    load_flows: float
    factor: float = 1.0


WeightState = Mapping[str, BackendControl]
"""Backend name -> memory, of those that take part."""

START: Final[WeightState] = MappingProxyType({})


def step(
    state: WeightState, loads: Sequence[BackendLoad], tuning: Tuning = DEFAULT_TUNING
) -> WeightState:
    """The state after one tick. Backends that are down or of weight 0 are not in it: factor 1.

    A backend that just appeared is taken for averagely loaded, so that its empty flow table does
    not attract a herd. Weight × factor adds up to what the weights do.
    """
    present = [load for load in loads if load.up and load.weight > 0]
    if not present:
        return START
    weights = [load.weight for load in present]
    smoothed = _smooth(state, present, tuning.smoothing)
    current = _normalise([_factor(state, load.name) for load in present], weights, tuning)
    target = _normalise(_wanted(smoothed, weights, tuning), weights, tuning)
    factors = _approach(current, target, tuning)
    return {
        load.name: BackendControl(flows, factor)
        for load, flows, factor in zip(present, smoothed, factors, strict=True)
    }


def factor_of(state: WeightState, name: str) -> float:
    """The factor of a backend; 1 for one that takes no part."""
    return _factor(state, name)


def _factor(state: WeightState, name: str) -> float:
    return state[name].factor if name in state else 1.0


def _smooth(state: WeightState, present: Sequence[BackendLoad], share: float) -> list[float]:
    known = [load for load in present if load.name in state]
    if known:
        flows = sum(state[load.name].load_flows for load in known)
    else:
        known, flows = list(present), float(sum(load.active_flows for load in present))
    mean = flows / sum(load.weight for load in known)
    smoothed = []
    for load in present:
        before = state[load.name].load_flows if load.name in state else mean * load.weight
        smoothed.append(before + share * (load.active_flows - before))
    return smoothed


def _wanted(smoothed: Sequence[float], weights: Sequence[int], tuning: Tuning) -> list[float]:
    """The factor that each backend's own deviation asks for; 1 within the dead band."""
    mean = sum(smoothed) / sum(weights)
    wanted = []
    for flows, weight in zip(smoothed, weights, strict=True):
        expected = mean * weight
        # One flow more on both sides: a ratio of small counts says little, and none is not zero.
        deviation = math.log((flows + 1) / (expected + 1))
        band = math.log(1 + tuning.dead_band + tuning.noise / math.sqrt(expected + 1))
        excess = max(0.0, abs(deviation) - band)
        wanted.append(math.exp(-tuning.gain * math.copysign(excess, deviation)))
    return wanted


def _normalise(factors: Sequence[float], weights: Sequence[int], tuning: Tuning) -> list[float]:
    """Scales and clamps so that the weighted mean is 1; what is so already stays to the bit.

    The sum grows with the scale, also where some factors are clamped: a bisection finds it.
    """
    total = sum(weights)
    if all(factor == factors[0] for factor in factors):
        return [1.0] * len(factors)
    low, high = tuning.floor / max(factors), tuning.ceiling / min(factors)
    clamped = [min(max(factor, tuning.floor), tuning.ceiling) for factor in factors]
    while not math.isclose(total, _weighted(clamped, weights), rel_tol=1e-12):
        scale = math.sqrt(low * high)
        clamped = [min(max(scale * f, tuning.floor), tuning.ceiling) for f in factors]
        low, high = (scale, high) if _weighted(clamped, weights) < total else (low, scale)
    return clamped


def _weighted(factors: Sequence[float], weights: Sequence[int]) -> float:
    return math.fsum(w * f for w, f in zip(weights, factors, strict=True))


def _approach(current: Sequence[float], target: Sequence[float], tuning: Tuning) -> list[float]:
    """A common fraction of the way for all: both ends keep the sum and the clamps, so this does."""
    distance = max(abs(t - c) for c, t in zip(current, target, strict=True))
    balanced = all(t == 1.0 for t in target)
    if distance < tuning.hold and not balanced:
        return list(current)
    if distance <= tuning.max_step:
        return list(target)
    share = tuning.max_step / distance
    return [c + share * (t - c) for c, t in zip(current, target, strict=True)]
