"""The weight controller's promises, on single ticks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.balance.weights import (
    DEFAULT_TUNING,
    START,
    BackendControl,
    BackendLoad,
    WeightState,
    factor_of,
    step,
)

_TUNING = DEFAULT_TUNING


@st.composite
def _services(draw: st.DrawFn) -> tuple[WeightState, list[BackendLoad]]:
    """A service and a history: states are reached by ticks, not invented."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 6)))]
    weights = {name: draw(st.integers(0, 1000)) for name in names}
    loads: list[BackendLoad] = []
    state = START
    for tick in range(draw(st.integers(1, 8))):
        state = step(state, loads) if tick else START
        loads = [
            BackendLoad(name, weights[name], draw(st.integers(0, 10**5)), draw(st.booleans()))
            for name in names
        ]
    return state, loads


@given(_services())
def test_weights_stay_within_clamps_and_keep_their_sum(
    service: tuple[WeightState, list[BackendLoad]],
) -> None:
    state, loads = service
    after = step(state, loads)
    present = [load for load in loads if load.up and load.weight]
    assert set(after) == {load.name for load in present}
    for control in after.values():
        assert _TUNING.floor <= control.factor <= _TUNING.ceiling
    total = sum(load.weight for load in present)
    effective = sum(load.weight * after[load.name].factor for load in present)
    assert effective == pytest.approx(total, rel=1e-9)


@given(_services())
def test_weights_move_in_bounded_steps(service: tuple[WeightState, list[BackendLoad]]) -> None:
    state, loads = service
    before = step(state, loads)
    after = step(before, loads)
    for name, control in after.items():
        assert abs(control.factor - before[name].factor) <= _TUNING.max_step + 1e-9


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0.91, 1.09)), min_size=1, max_size=8),
    st.integers(1, 1000),
)
def test_weights_do_not_change_inside_the_dead_band(
    backends: list[tuple[int, float]], flows_per_weight: int
) -> None:
    loads = [
        BackendLoad(f"s{number}", weight, round(flows_per_weight * weight * imbalance))
        for number, (weight, imbalance) in enumerate(backends)
    ]
    state = START
    for _ in range(5):
        state = step(state, loads)
    assert all(control.factor == 1.0 for control in state.values())


@given(_services())
def test_weights_of_an_idle_service_return_to_the_files(
    service: tuple[WeightState, list[BackendLoad]],
) -> None:
    state, loads = service
    idle = [BackendLoad(load.name, load.weight, 0) for load in loads]
    for _ in range(120):
        state = step(state, idle)
    assert all(control.factor == 1.0 for control in state.values())


def test_weights_ignore_a_few_flows() -> None:
    state = START
    for _ in range(50):
        state = step(
            state, [BackendLoad("a", 1, 3), BackendLoad("b", 1, 0), BackendLoad("c", 1, 1)]
        )
    assert all(control.factor == 1.0 for control in state.values())


def test_weights_answer_only_what_lasts() -> None:
    """One odd sample moves nothing by more than a fifth of what the same load would in the end."""
    calm = [BackendLoad("a", 1, 100), BackendLoad("b", 1, 100)]
    state = step(START, calm)
    state = step(state, [BackendLoad("a", 1, 200), BackendLoad("b", 1, 100)])
    assert all(control.factor == 1.0 for control in state.values())


def test_weights_shift_from_loaded_to_idle_backends_until_the_answer_is_proportional() -> None:
    loads = [BackendLoad("slow", 10, 4000), BackendLoad("fast", 10, 1000)]
    state = START
    for _ in range(100):
        state = step(state, loads)
    slow, fast = state["slow"].factor, state["fast"].factor
    assert slow + fast == pytest.approx(2)
    # A ratio of 4, less what the dead band of each side leaves out.
    assert 2.5 < fast / slow < 4


def test_weights_follow_the_configured_weights_not_the_counts() -> None:
    state = START
    for _ in range(20):
        state = step(state, [BackendLoad("big", 30, 3000), BackendLoad("small", 10, 1000)])
    assert all(control.factor == 1.0 for control in state.values())


def test_weights_take_a_new_backend_for_averagely_loaded() -> None:
    calm = [BackendLoad("a", 1, 1000), BackendLoad("b", 1, 1000)]
    state = step(START, calm)
    state = step(state, [*calm, BackendLoad("new", 1, 0)])
    assert state["new"].load_flows == pytest.approx(800)
    assert factor_of(state, "new") <= 1 + _TUNING.max_step


def test_weights_spread_over_the_rest_when_a_backend_goes_down() -> None:
    loads = [BackendLoad("a", 1, 4000), BackendLoad("b", 1, 1000), BackendLoad("c", 1, 1000)]
    state = START
    for _ in range(60):
        state = step(state, loads)
    down = [BackendLoad("a", 1, 4000, up=False), *loads[1:]]
    state = step(state, down)
    assert "a" not in state
    assert factor_of(state, "a") == 1.0
    assert state["b"].factor == state["c"].factor == 1.0


@pytest.mark.parametrize(
    "loads", [[], [BackendLoad("a", 0, 9)], [BackendLoad("a", 5, 9, up=False)]]
)
def test_weights_of_nothing_are_nothing(loads: list[BackendLoad]) -> None:
    assert step({"a": BackendControl(9.0, 0.5)}, loads) == {}


def test_weights_of_a_single_backend_stay() -> None:
    state = START
    for flows in (0, 10, 10**6, 0):
        state = step(state, [BackendLoad("only", 7, flows)])
        assert math.isclose(state["only"].factor, 1.0)
