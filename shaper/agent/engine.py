"""Observe, decide, execute, verify: the one way from a configuration to the kernel.

The CLI calls it directly where no agent runs; the agent calls it from its worker thread. Every call
works in the network namespace of the calling thread, opens what it needs and closes it again: the
kernel and the state file are the only memory, so a process may be killed at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from shaper.agent.namespaces import network_namespace, network_namespace_exists
from shaper.agent.report import build_status
from shaper.agent.store import Store, StoredState, boot_id
from shaper.config import parse_config
from shaper.errors import ShaperError, VerifyError
from shaper.instance import Instance
from shaper.kernel import loader
from shaper.kernel.attach import Attachments
from shaper.kernel.compile import ProgramObject, compile_object
from shaper.kernel.execute import Executor
from shaper.kernel.flows import FlowTimeouts, sweep_flows
from shaper.kernel.links import Links
from shaper.kernel.observe import Observer, refuse_foreign
from shaper.kernel.probe import atomic_fetch
from shaper.kernel.tables import DataPlaneTables
from shaper.kernel.tc import TrafficControl
from shaper.model import BackendRuntime, Gateway, Runtime
from shaper.reconcile.desired import (
    Desired,
    Environment,
    desired_state,
    desired_tables,
    features,
)
from shaper.reconcile.entries import BACKEND_UP, Tables
from shaper.reconcile.handles import Handles, allocate, backend_key
from shaper.reconcile.operations import Operation
from shaper.reconcile.plan import Actual, Ledger, Plan, plan_apply, plan_down, plan_tables
from shaper.shaping.leaf import leaf_warnings
from shaper.status import Status

StepHook = Callable[[Operation], None]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A plan with what it was made from."""

    plan: Plan
    desired: Desired
    actual: Actual
    handles: Handles
    compiled: ProgramObject
    warnings: tuple[str, ...]


class _Session:
    """The netlink sockets of one call."""

    def __init__(self, instance: Instance, stack: ExitStack) -> None:
        self.links = stack.enter_context(Links())
        self.attachments = stack.enter_context(Attachments())
        self.tc = stack.enter_context(TrafficControl())
        self.observer = Observer(self.links, self.attachments, self.tc, instance.pins)


class Engine:
    """One instance in the network namespace of the calling thread."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._store = Store(instance)

    def plan(self, gateway: Gateway, runtime: Runtime) -> Plan:
        """What `apply` would do. Changes nothing.

        Raises:
            KernelError: a device is missing, somebody else holds it, or the kernel lacks a feature.
        """
        with self._session() as session:
            return self._prepare(session, self._state(), gateway, runtime).plan

    def apply(
        self,
        gateway: Gateway,
        runtime: Runtime,
        text: str,
        on_step: StepHook | None = None,
    ) -> Plan:
        """Makes it so, reads back and verifies; returns what was done.

        Args:
            text: the configuration that `gateway` came from, stored for `status` and restarts.
            on_step: called before each operation (progress, and the tests that kill it there).
        Raises:
            KernelError: as `plan`, or an operation was refused; a next apply goes on from there.
            VerifyError: the kernel does not show what was asked for.
        """
        with self._session() as session:
            state = self._state()
            prepared = self._prepare(session, state, gateway, runtime)
            plan = prepared.plan
            devices = frozenset(interface.device for interface in gateway.interfaces)
            if plan or state.text is None:
                state = replace(
                    state,
                    features=prepared.desired.features,
                    devices=state.devices | devices,
                    handles=_union(state.handles, prepared.handles),
                    ledger=plan.ledger,
                )
                self._store.save(state)
            self._execute(session, prepared, on_step)
            left = self._prepare(session, state, gateway, runtime) if plan else prepared
            if left.plan:
                sentences = "; ".join(operation.describe() for operation in left.plan.operations)
                raise VerifyError(f"read back after the apply, this is still to do: {sentences}")
            final = replace(
                state,
                generation=state.generation + (1 if plan or state.text != text else 0),
                text=text,
                devices=devices,
                handles=prepared.handles,
                ledger=_settled(state.ledger, prepared.desired),
                warnings=prepared.warnings,
            )
            if final != state:
                self._store.save(final)
        return plan

    def down(self, on_step: StepHook | None = None) -> Plan:
        """Removes everything that the instance made, and nothing else."""
        with self._session() as session:
            state = self._state()
            devices = state.devices | {device for device, _ in state.ledger.addresses}
            actual = session.observer.observe(devices, state.ledger.sysctls, None)
            plan = plan_down(actual, state.ledger)
            executor = self._executor(session, None, actual)
            for operation in plan.operations:
                if on_step is not None:
                    on_step(operation)
                executor.execute(operation)
            self._store.remove()
        return plan

    def steer(self, gateway: Gateway, runtime: Runtime) -> bool:
        """Writes health and weights into the tables; True where anything changed."""
        handles = self._state().handles
        desired = desired_tables(gateway, runtime, handles)
        compiled = compile_object(features(gateway, atomic_fetch()))
        with loader.load(compiled, self._instance.pins) as loaded:
            tables = DataPlaneTables(loaded.maps)
            operations = plan_tables(desired, tables.read())
            for operation in operations:
                tables.execute(operation)
        return bool(operations)

    def status(self) -> Status:
        """The kernel's counters under the names of the applied configuration.

        Raises:
            ShaperError: nothing is applied under this instance name.
        """
        state = self._applied()
        gateway = self._gateway(state)
        with self._session() as session, self._tables(state) as tables:
            return build_status(self._instance, state, gateway, session.links, session.tc, tables)

    def backend_loads(self) -> Mapping[tuple[str, str], int]:
        """Active flows per (service, backend)."""
        state = self._applied()
        numbers = _indices(self._gateway(state), state.handles)
        with self._tables(state) as tables:
            if tables is None:
                return dict.fromkeys(numbers, 0)
            counters = tables.counters(numbers.values())
        return {name: counters[index].active_flows for name, index in numbers.items()}

    def runtime(self) -> Runtime:
        """Health and factors as the kernel has them, for an agent that starts again."""
        state = self._store.load()
        if state is None or state.text is None:
            return {}
        gateway = self._gateway(state)
        numbers = _indices(gateway, state.handles)
        with self._tables(state) as tables:
            entries = tables.read().backends if tables is not None else Tables().backends
        weights = {(s.name, b.name): b.weight for s in gateway.services for b in s.backends}
        return {
            name: BackendRuntime(
                up=bool(entries[index].flags & BACKEND_UP),
                factor=entries[index].weight_milli / 1000 / weights[name] if weights[name] else 1.0,
            )
            for name, index in numbers.items()
            if index in entries
        }

    def sweep(self, timeouts: FlowTimeouts | None = None) -> None:
        """Takes idle flows out of the tables and of the counts."""
        state = self._applied()
        with loader.load(compile_object(state.features), self._instance.pins) as loaded:
            sweep_flows(loaded, timeouts or FlowTimeouts())

    def applied_text(self) -> str | None:
        """The configuration as last applied with success."""
        state = self._store.load()
        return state.text if state is not None else None

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        with ExitStack() as stack:
            yield _Session(self._instance, stack)

    @contextmanager
    def _tables(self, state: StoredState) -> Iterator[DataPlaneTables | None]:
        maps = loader.open_maps(compile_object(state.features).maps, self._instance.pins)
        try:
            yield DataPlaneTables(maps) if maps is not None else None
        finally:
            loader.close_maps(maps or {})

    def _state(self) -> StoredState:
        """The stored state, fit for this boot and network namespace."""
        here = network_namespace()
        fresh = StoredState(boot_id=boot_id(), network_namespace=here)
        state = self._store.load() or fresh
        if state.network_namespace == here:
            return state
        if network_namespace_exists(state.network_namespace):
            raise ShaperError(
                f"instance {self._instance.name} belongs to another network namespace",
                "run this there (nsenter --net=/run/netns/NAME shaper …), or choose another "
                "--instance",
            )
        return replace(state, network_namespace=here, ledger=Ledger(), devices=frozenset())

    def _applied(self) -> StoredState:
        state = self._store.load()
        if state is None or state.text is None:
            raise ShaperError(
                f"nothing is applied under the instance name {self._instance.name}",
                "`shaper apply FILE` makes it so",
            )
        return state

    @staticmethod
    def _gateway(state: StoredState) -> Gateway:
        return parse_config(state.text or "", "the applied configuration")

    def _prepare(
        self, session: _Session, state: StoredState, gateway: Gateway, runtime: Runtime
    ) -> _Prepared:
        wanted = features(gateway, atomic_fetch())
        compiled = compile_object(wanted)
        environment = Environment(
            mtu={i.device: session.links.get(i.device).mtu for i in gateway.interfaces},
            leaf_kinds=session.tc.leaf_kinds(),
            atomic_fetch=atomic_fetch(),
        )
        devices = state.devices | environment.mtu.keys()
        observed = session.observer.observe(devices, (), compiled.maps)
        handles = allocate(
            state.handles, gateway, _busy_minors(observed), self._busy_backends(compiled)
        )
        desired = desired_state(gateway, runtime, handles, environment)
        refuse_foreign(desired, observed)
        sysctls = session.observer.sysctls({*desired.sysctls, *state.ledger.sysctls})
        actual = replace(observed, sysctls=sysctls)
        plan = plan_apply(desired, actual, state.ledger, compiled.digest)
        warnings = leaf_warnings(gateway, environment.leaf_kinds)
        return _Prepared(plan, desired, actual, handles, compiled, warnings)

    def _busy_backends(self, compiled: ProgramObject) -> frozenset[int]:
        maps = loader.open_maps(compiled.maps, self._instance.pins)
        if maps is None:
            return frozenset()
        try:
            return DataPlaneTables(maps).busy_backends()
        finally:
            loader.close_maps(maps)

    def _execute(self, session: _Session, prepared: _Prepared, on_step: StepHook | None) -> None:
        executor = self._executor(session, prepared.compiled, prepared.actual)
        try:
            for operation in prepared.plan.operations:
                if on_step is not None:
                    on_step(operation)
                executor.execute(operation)
        finally:
            executor.close()

    def _executor(
        self, session: _Session, compiled: ProgramObject | None, actual: Actual
    ) -> Executor:
        return Executor(
            self._instance,
            session.links,
            session.attachments,
            session.tc,
            compiled,
            frozenset(device for device, state in actual.devices.items() if state.xdp),
        )


def _busy_minors(actual: Actual) -> frozenset[int]:
    return frozenset(
        spec.minor
        for state in actual.devices.values()
        if state.tree is not None
        for spec in state.tree.classes
    )


def _indices(gateway: Gateway, handles: Handles) -> dict[tuple[str, str], int]:
    return {
        (service.name, backend.name): handles.backends[backend_key(service, backend)]
        for service in gateway.services
        for backend in service.backends
    }


def _union(old: Handles, new: Handles) -> Handles:
    """While an apply is under way both numberings count."""
    return Handles(
        {**old.classes, **new.classes},
        {**old.services, **new.services},
        {**old.backends, **new.backends},
        new.retired,
    )


def _settled(ledger: Ledger, desired: Desired) -> Ledger:
    """The ledger once an apply is through: what is still there."""
    return Ledger(
        ledger.sysctls,
        ledger.addresses & desired.addresses,
        ledger.clsact & desired.classifiers.keys(),
    )
