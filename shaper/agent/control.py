"""The controller of all services: flow counts in, factors and the reasons for them out.

It decides nothing about services whose scheduler is `source-hash`: there a changed weight would
move clients from the backend that they were promised. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shaper.agent.ports import BackendKey
from shaper.balance.weights import BackendControl, BackendLoad, WeightState, factor_of, step
from shaper.model import Gateway, Runtime, Scheduler, Service, WeightMode


@dataclass(frozen=True, slots=True)
class WeightDecision:
    """A service's factors changed; `reason` names every backend that moved."""

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
        state = self._states.get(service.name)
        if state is None:  # a new service, or a new agent beside an old data plane
            state = {
                load.name: BackendControl(load.active_flows, self.factor((service.name, load.name)))
                for load in loads
            }
        after = step(state, loads)
        self._states[service.name] = after
        moved = []
        for load in loads:
            key = (service.name, load.name)
            old, new = self.factor(key), factor_of(after, load.name)
            if old != new:
                self._factors[key] = new
                moved.append(f"{load.name} {load.weight * old:.2f} → {load.weight * new:.2f}")
        if not moved:
            return None
        return WeightDecision(service.name, f"{', '.join(moved)} (flows {_counts(loads)})")


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


def _counts(loads: tuple[BackendLoad, ...]) -> str:
    return ", ".join(f"{load.name} {load.active_flows}" for load in loads if load.up)
