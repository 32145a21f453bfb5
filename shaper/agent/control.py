"""The controller of all services: flow counts in, factors and the reasons for them out.

It decides nothing about services whose scheduler is `source-hash`: there a changed weight would
move clients from the backend that they were promised. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shaper.agent.ports import BackendKey
from shaper.balance.weights import (
    START,
    BackendControl,
    BackendLoad,
    WeightState,
    factor_of,
    step,
)
from shaper.model import Gateway, Runtime, Scheduler, Service, WeightMode

_SHOWN_MOVES: Final = 8


@dataclass(frozen=True, slots=True)
class WeightDecision:
    """A service's factors changed; `reason` names the backends that moved most."""

    service: str
    reason: str


class WeightController:
    """Keeps a `WeightState` for every service that is steered."""

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self._states: dict[str, WeightState] = {}
        self._factors: dict[BackendKey, float] = {}

    def configure(self, gateway: Gateway, runtime: Runtime) -> None:
        """Steers `gateway` from now on, starting with the factors of `runtime`."""
        steered = {service.name for service in steered_services(gateway)}
        self._gateway = gateway
        self._states = {name: state for name, state in self._states.items() if name in steered}
        self._factors = {
            key: entry.factor for key, entry in runtime.items() if key[0] in steered and entry.up
        }

    @property
    def active(self) -> bool:
        """Whether any service is steered."""
        return self._gateway is not None and any(True for _ in steered_services(self._gateway))

    def factor(self, key: BackendKey) -> float:
        return self._factors.get(key, 1.0)

    def tick(
        self, counts: Mapping[BackendKey, int], down: frozenset[BackendKey]
    ) -> tuple[WeightDecision, ...]:
        """One step for every steered service; empty where nothing changed."""
        if self._gateway is None:
            return ()
        decisions = [
            self._tick(service, _loads(service, counts, down))
            for service in steered_services(self._gateway)
        ]
        return tuple(decision for decision in decisions if decision is not None)

    def _tick(self, service: Service, loads: tuple[BackendLoad, ...]) -> WeightDecision | None:
        before = self._states.get(service.name)
        after = step(self._resumed(service, loads) if before is None else before, loads)
        self._states[service.name] = after
        moves = []
        for load in loads:
            key = (service.name, load.name)
            old, new = self.factor(key), factor_of(after, load.name)
            if old != new:
                self._factors[key] = new
                moves.append(_Move(load, load.weight * old, load.weight * new))
        return WeightDecision(service.name, _reason(moves)) if moves else None

    def _resumed(self, service: Service, loads: tuple[BackendLoad, ...]) -> WeightState:
        """Where an earlier agent stopped: its factors, and the loads that they led to."""
        factors = {load.name: self.factor((service.name, load.name)) for load in loads}
        if all(factor == 1.0 for factor in factors.values()):
            return START
        return {
            load.name: BackendControl(load.active_flows, factors[load.name])
            for load in loads
            if load.up and load.weight
        }


@dataclass(frozen=True, slots=True)
class _Move:
    """Effective weights before and after."""

    load: BackendLoad
    old: float
    new: float


def _reason(moves: list[_Move]) -> str:
    """The largest moves, and how many more there are."""
    shown = sorted(moves, key=lambda move: -round(abs(move.new - move.old), 6))[:_SHOWN_MOVES]
    sentences = [
        f"{move.load.name} {move.old:.2f} → {move.new:.2f} ({move.load.active_flows} flows)"
        for move in shown
    ]
    if len(moves) > len(shown):
        sentences.append(f"and {len(moves) - len(shown)} more")
    return ", ".join(sentences)


def steered_services(gateway: Gateway) -> Iterable[Service]:
    """Those whose weights follow the load."""
    if gateway.controller.weights is not WeightMode.ADAPTIVE:
        return ()
    return (s for s in gateway.services if s.scheduler is not Scheduler.SOURCE_HASH)


def _loads(
    service: Service, counts: Mapping[BackendKey, int], down: frozenset[BackendKey]
) -> tuple[BackendLoad, ...]:
    return tuple(
        BackendLoad(
            name=backend.name,
            weight=backend.weight,
            active_flows=counts.get((service.name, backend.name), 0),
            up=(service.name, backend.name) not in down,
        )
        for backend in service.backends
    )
