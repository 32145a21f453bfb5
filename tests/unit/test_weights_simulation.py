"""The weight controller in a closed loop: it settles, it does not oscillate, and nothing herds.

Backends serve up to `slots` flows at once, each for `duration_s` on average; the controller sees
counts that are one tick old. The fluid model has no chance in it and shows the controller's own
motion; the random one (seeded) adds what chance does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from shaper.balance.weights import (
    DEFAULT_TUNING,
    START,
    BackendLoad,
    Tuning,
    factor_of,
    step,
)

Array = NDArray[np.float64]

_STEPS_PER_TICK = 20
_TICK_S = 1.0
_STEP_S = _TICK_S / _STEPS_PER_TICK


@dataclass(frozen=True)
class Scenario:
    """`changed_s` replaces `duration_s` after a third of the run."""

    flows_per_s: float
    duration_s: tuple[float, ...]
    changed_s: tuple[float, ...] | None = None
    slots: tuple[float, ...] = (1e9, 1e9, 1e9, 1e9)
    weights: tuple[int, ...] = (10, 10, 10, 10)
    ticks: int = 300


@dataclass(frozen=True)
class History:
    """One row a tick, one column a backend."""

    factors: Array
    flows: Array

    def settled(self) -> History:
        half = len(self.flows) // 2
        return History(self.factors[half:], self.flows[half:])


def run(scenario: Scenario, tuning: Tuning | None, seed: int | None = None) -> History:
    """`tuning` None: no controller. `seed` None: the fluid model."""
    rng = np.random.default_rng(seed) if seed is not None else None
    weights = np.array(scenario.weights, dtype=float)
    flows, factors = np.zeros(len(weights)), np.ones(len(weights))
    state = START
    flow_rows, factor_rows = [flows], [factors]
    for tick in range(scenario.ticks):
        changed = scenario.changed_s if tick > scenario.ticks // 3 else None
        duration_s = np.array(changed or scenario.duration_s)
        for _ in range(_STEPS_PER_TICK):
            flows = _advance(scenario, flows, weights * factors, duration_s, rng)
        if tuning is not None:
            stale = flow_rows[-1]
            loads = [
                BackendLoad(str(number), weight, int(stale[number]))
                for number, weight in enumerate(scenario.weights)
            ]
            state = step(state, loads, tuning)
            factors = np.array([factor_of(state, load.name) for load in loads])
        flow_rows.append(flows)
        factor_rows.append(factors)
    return History(np.array(factor_rows), np.array(flow_rows))


def _advance(
    scenario: Scenario,
    flows: Array,
    effective: Array,
    duration_s: Array,
    rng: np.random.Generator | None,
) -> Array:
    share = effective / effective.sum()
    served = np.minimum(flows, scenario.slots)
    ending = 1 - np.exp(-_STEP_S / duration_s)
    arriving = scenario.flows_per_s * _STEP_S
    if rng is None:
        return np.asarray(flows + arriving * share - served * ending)
    ended = rng.binomial(served.astype(int), ending)
    return np.asarray(flows + rng.multinomial(rng.poisson(arriving), share) - ended)


def swings(column: Array, least: float = 0.1) -> int:
    """How often a factor turned round and went `least` or more the other way."""
    count, direction, extreme = 0, 0, float(column[0])
    for value in column:
        if (direction >= 0 and value > extreme) or (direction <= 0 and value < extreme):
            if direction == 0:
                direction = 1 if value > extreme else -1
            extreme = value
        elif abs(value - extreme) >= least:
            count, direction, extreme = count + 1, -direction, value
    return count


def most_swings(history: History) -> int:
    return max(swings(column) for column in history.factors.T)


EQUAL = Scenario(500, (0.2, 0.2, 0.2, 0.2))
SHORT = Scenario(500, (0.2, 0.2, 0.2, 0.2), changed_s=(0.2, 0.2, 0.2, 0.8))
LONG = Scenario(20, (30, 30, 30, 30), changed_s=(30, 30, 30, 120), ticks=900)
VERY_LONG = Scenario(4, (300, 300, 300, 1200), ticks=4000)
SATURATED = Scenario(450, (0.1, 0.1, 0.1, 0.1), slots=(20, 20, 20, 5))
MIXED = Scenario(1000, (0.1, 0.2, 0.4, 0.8), weights=(10, 20, 5, 40))

_ALL = pytest.mark.parametrize(
    "scenario",
    [SHORT, LONG, VERY_LONG, SATURATED, MIXED],
    ids=["short", "long", "very-long", "saturated", "mixed"],
)


@_ALL
def test_controller_settles_without_oscillation(scenario: Scenario) -> None:
    """In the fluid model: few swings on the way, then none, and no motion beyond `hold`."""
    history = run(scenario, DEFAULT_TUNING)
    assert most_swings(history) <= 3
    last = history.factors[-len(history.factors) // 10 :]
    assert np.ptp(last, axis=0).max() <= 1.5 * DEFAULT_TUNING.hold


@_ALL
def test_controller_evens_out_the_load(scenario: Scenario) -> None:
    """The most loaded backend's flows per weight against the mean: better than without."""

    def worst(history: History) -> float:
        load = (history.settled().flows / np.array(scenario.weights)).mean(axis=0)
        return float(load.max() / load.mean())

    assert worst(run(scenario, DEFAULT_TUNING)) < 0.95 * worst(run(scenario, None))


@pytest.mark.parametrize("scenario", [SHORT, LONG, SATURATED], ids=["short", "long", "saturated"])
def test_controller_settles_under_chance(scenario: Scenario) -> None:
    """Factors keep near their mean: chance moves them, but nothing swings."""
    settled = run(scenario, DEFAULT_TUNING, seed=7).settled()
    assert settled.factors.std(axis=0).max() < 0.15


def test_controller_leaves_equal_backends_alone_under_chance() -> None:
    for seed in range(3):
        history = run(EQUAL, DEFAULT_TUNING, seed)
        assert history.factors.min() > 0.9
        assert most_swings(history) <= 2


def test_controller_returns_to_the_files_weights_when_the_slow_backend_recovers() -> None:
    scenario = Scenario(500, (0.2, 0.2, 0.2, 0.8), changed_s=(0.2, 0.2, 0.2, 0.2))
    history = run(scenario, DEFAULT_TUNING)
    assert history.factors[99].min() < 0.9
    assert history.factors[-1] == pytest.approx([1, 1, 1, 1])


def test_controller_saves_an_overloaded_backend() -> None:
    """A quarter of the load is more than this backend can do: without a controller it drowns."""
    without = run(SATURATED, None, seed=3).flows[-1]
    under = run(SATURATED, DEFAULT_TUNING, seed=3).flows[-1]
    assert without[3] > 5000
    assert under[3] < 500


def test_no_backend_gets_more_than_the_ceiling_of_new_flows() -> None:
    history = run(SATURATED, DEFAULT_TUNING, seed=5)
    shares = history.factors / history.factors.sum(axis=1, keepdims=True)
    assert shares.max() <= DEFAULT_TUNING.ceiling / 4 + 1e-9


def test_an_undamped_controller_fails_the_same_measures() -> None:
    """The measures see a herd: everything to the least loaded, on the same stale data."""
    herd = replace(
        DEFAULT_TUNING, smoothing=1.0, gain=8.0, max_step=2.0, dead_band=0.0, noise=0.0, hold=0.0
    )
    assert most_swings(run(SHORT, herd)) > 50
    assert run(SHORT, herd, seed=7).settled().factors.std(axis=0).max() > 0.3
