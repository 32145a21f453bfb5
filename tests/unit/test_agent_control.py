"""The controller over services: who is steered, what a reload and a restart keep, what is said."""

from __future__ import annotations

import pytest

from shaper.agent.control import WeightController, WeightDecision
from shaper.agent.ports import BackendKey
from shaper.model import BackendRuntime, Scheduler, WeightMode
from tests.agent_fakes import make_gateway, make_service

S1, S2 = ("www", "s1"), ("www", "s2")
UNEVEN: dict[BackendKey, int] = {S1: 9000, S2: 1000}
NOBODY: frozenset[BackendKey] = frozenset()


def _controller(weights: WeightMode = WeightMode.ADAPTIVE) -> WeightController:
    controller = WeightController()
    controller.configure(make_gateway(make_service(), weights=weights), {})
    return controller


def _tick(controller: WeightController, times: int = 1) -> tuple[WeightDecision, ...]:
    """What the last of several ticks under the same load decided."""
    decisions: tuple[WeightDecision, ...] = ()
    for _ in range(times):
        decisions = controller.tick(UNEVEN, NOBODY)
    return decisions


def test_controller_moves_weights_and_says_why() -> None:
    controller = _controller()
    assert _tick(controller) == ()  # one sample is no load yet
    (decision,) = _tick(controller)
    assert decision.service == "www"
    assert decision.reason == "s1 10.00 → 9.00 (9000 flows), s2 10.00 → 11.00 (1000 flows)"
    _tick(controller, 20)
    assert controller.factor(S1) < 0.5
    assert controller.factor(S1) + controller.factor(S2) == pytest.approx(2)


def test_controller_names_the_largest_moves_only() -> None:
    controller = WeightController()
    controller.configure(make_gateway(make_service(count=20), weights=WeightMode.ADAPTIVE), {})
    counts = {("www", f"s{number}"): 100 for number in range(1, 21)} | {S1: 5000}
    reasons = [d.reason for _ in range(10) for d in controller.tick(counts, NOBODY)]
    assert reasons[0].startswith("s1 ")
    assert reasons[0].endswith(" flows), and 12 more")


def test_controller_says_nothing_where_nothing_moves() -> None:
    assert _controller().tick({S1: 1000, S2: 1010}, NOBODY) == ()


def test_controller_leaves_static_weights_alone() -> None:
    controller = _controller(WeightMode.STATIC)
    assert not controller.active
    assert controller.tick(UNEVEN, NOBODY) == ()
    assert controller.factor(S1) == 1.0


def test_controller_leaves_source_hash_alone() -> None:
    controller = WeightController()
    service = make_service(scheduler=Scheduler.SOURCE_HASH)
    controller.configure(make_gateway(service, weights=WeightMode.ADAPTIVE), {})
    assert not controller.active
    assert controller.tick(UNEVEN, NOBODY) == ()


def test_controller_keeps_services_apart() -> None:
    controller = WeightController()
    gateway = make_gateway(make_service(), make_service("api"), weights=WeightMode.ADAPTIVE)
    controller.configure(gateway, {})
    for _ in range(5):
        decisions = controller.tick({**UNEVEN, ("api", "s1"): 5, ("api", "s2"): 5}, NOBODY)
    assert [decision.service for decision in decisions] == ["www"]
    assert controller.factor(("api", "s1")) == 1.0


def test_controller_goes_on_where_an_earlier_agent_stopped() -> None:
    controller = WeightController()
    known = {S1: BackendRuntime(factor=0.6), S2: BackendRuntime(factor=1.4)}
    controller.configure(make_gateway(make_service(), weights=WeightMode.ADAPTIVE), known)
    assert controller.factor(S1) == 0.6
    controller.tick(UNEVEN, NOBODY)
    assert controller.factor(S1) == pytest.approx(0.5)


def test_controller_gives_static_weights_back_after_a_reload() -> None:
    controller = _controller()
    _tick(controller, 5)
    assert controller.factor(S1) < 1
    controller.configure(make_gateway(make_service()), _known(controller))
    assert controller.factor(S1) == controller.factor(S2) == 1.0


def test_controller_keeps_its_memory_over_a_reload() -> None:
    """Smoothed loads stay: a momentary dip at the reload does not count for more than a tick's."""
    controller = _controller()
    _tick(controller, 3)
    factor = controller.factor(S1)
    gateway = make_gateway(make_service(), weights=WeightMode.ADAPTIVE)
    controller.configure(gateway, _known(controller))
    controller.tick({S1: 0, S2: 0}, NOBODY)
    assert controller.factor(S1) < factor


def _known(controller: WeightController) -> dict[BackendKey, BackendRuntime]:
    return {key: BackendRuntime(factor=controller.factor(key)) for key in (S1, S2)}


def test_controller_forgets_the_factor_of_a_dead_backend() -> None:
    controller = _controller()
    _tick(controller, 5)
    assert controller.factor(S1) < 1
    controller.tick(UNEVEN, frozenset({S1}))
    assert controller.factor(S1) == controller.factor(S2) == 1.0
