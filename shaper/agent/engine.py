"""Observe, decide, execute, verify: the one way from a configuration to the kernel.

The CLI calls it directly where no agent runs; the agent calls it from its worker thread. Every call
works in the network namespace of the calling thread, opens what it needs and closes it again: the
kernel and the state file are the only memory, so a process may be killed at any point.

One network namespace holds one instance: queues, sysctls and XDP of a device cannot be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache

from shaper.agent.devices import follow_devices
from shaper.agent.namespaces import network_namespace, network_namespace_exists
from shaper.agent.preparation import Prepared, Session, prepare
from shaper.agent.report import build_status
from shaper.agent.store import Store, StoredState, boot_id
from shaper.config import ConfigError, parse_config
from shaper.errors import KernelError, ShaperError, VerifyError
from shaper.instance import Instance
from shaper.kernel import loader
from shaper.kernel.compile import ProgramObject, compile_object, stored_object
from shaper.kernel.flows import FlowTimeouts, sweep_flows
from shaper.kernel.tables import DataPlaneTables
from shaper.model import BackendRuntime, Gateway, Runtime, WeightMode
from shaper.reconcile.desired import desired_tables, service_classids
from shaper.reconcile.entries import BACKEND_UP, BackendEntry
from shaper.reconcile.handles import Handles, backend_key
from shaper.reconcile.operations import Operation, RemovePins, SetSysctl
from shaper.reconcile.plan import Ledger, Plan, plan_down, plan_tables, settled
from shaper.status import Status

StepHook = Callable[[Operation], None]


class Engine:
    """One instance in the network namespace of the calling thread."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._store = Store(instance)

    def plan(self, gateway: Gateway, runtime: Runtime | None = None) -> Plan:
        """What `apply` would do. Changes nothing.

        Args:
            runtime: health and weight factors; None: as the kernel has them.
        Raises:
            KernelError: a device is missing, somebody else holds it, or the kernel lacks a feature.
        """
        runtime = self.runtime() if runtime is None else runtime
        with self._session() as session:
            return prepare(session, self._state(session), gateway, runtime).plan

    def apply(
        self,
        gateway: Gateway,
        runtime: Runtime | None,
        text: str,
        on_step: StepHook | None = None,
    ) -> Plan:
        """Makes it so, reads back and verifies; returns what was done.

        Args:
            runtime: as for `plan`.
            text: the configuration that `gateway` came from, stored for `status` and restarts.
            on_step: called before each operation (progress, and the tests that kill it there).
        Raises:
            KernelError: as `plan`, or an operation was refused; a next apply goes on from there.
            VerifyError: the kernel does not show what was asked for.
        """
        runtime = self.runtime() if runtime is None else runtime
        with self._session() as session:
            prepared = prepare(session, self._state(session), gateway, runtime)
            state = self._note(session, gateway, prepared)
            self._execute(session, prepared, on_step)
            if prepared.plan:
                _verify(prepare(session, state, gateway, runtime).plan)
            self._settle(session, state, gateway, prepared, text)
        return prepared.plan

    def down(self, on_step: StepHook | None = None) -> Plan:
        """Removes everything that the instance made, and nothing else.

        What is recognisably ours goes even where the state file was lost. A step that fails does
        not keep the others from being done.

        Raises:
            VerifyError: something is left; the state is kept for another try.
        """
        with self._session() as session:
            state = self._state(session)
            plan = self._plan_down(session, state)
            reasons = self._remove(session, plan, on_step)
            left = self._plan_down(session, state).operations
            reasons += [operation.describe() for operation in left if _changes_anything(operation)]
            if reasons:
                raise VerifyError(
                    f"not everything could be removed: {'; '.join(reasons)}",
                    "run `shaper down` again once the reason is gone",
                )
            self._store.remove()
        return plan

    def steer(self, gateway: Gateway, runtime: Runtime) -> bool:
        """Writes health and weights into the tables; True where anything changed.

        Raises:
            KernelError: the data plane is not loaded (any more).
        """
        state = self._applied()
        desired = desired_tables(gateway, runtime, state.handles)
        with loader.open_loaded(_object_of(state), self._instance.pins) as loaded:
            tables = DataPlaneTables(loaded.maps)
            operations = plan_tables(desired, tables.read())
            for operation in operations:
                tables.execute(operation)
        return bool(operations)

    def status(self) -> Status:
        """The kernel's counters under the names of the applied configuration.

        Raises:
            ShaperError: nothing is applied under this instance name, or not here.
        """
        with self._session() as session:
            state = self._applied(session)
            gateway = _gateway(state)
            with self._tables(state) as tables:
                return build_status(
                    self._instance, state, gateway, session.links, session.tc, tables
                )

    def backend_loads(self) -> Mapping[tuple[str, str], int]:
        """Active flows per (service, backend)."""
        state = self._applied()
        numbers = _indices(_gateway(state), state.handles)
        with self._tables(state) as tables:
            if tables is None:
                return dict.fromkeys(numbers, 0)
            counters = tables.counters(numbers.values())
        return {name: counters[index].active_flows for name, index in numbers.items()}

    def classids(self) -> Mapping[str, int]:
        """Service -> tc class (major << 16 | minor) that it names; without those that name none."""
        state = self._applied()
        return service_classids(_gateway(state), state.handles)

    def runtime(self) -> Runtime:
        """Health and factors as the kernel has them, for whoever goes on from there.

        Health counts only where it is checked, factors only where weights are adaptive and the last
        apply was through (else a weight in the map may be that of another configuration). Nothing
        is known where this version does not accept what was applied.
        """
        state = self._store.load()
        if state is None or state.text is None:
            return {}
        try:
            gateway = _parsed(state.text)
        except ConfigError:
            return {}
        numbers = _indices(gateway, state.handles)
        with self._tables(state) as tables:
            entries = tables.read().backends if tables is not None else {}
        steered = gateway.controller.weights is WeightMode.ADAPTIVE and state.settled
        known = {}
        for service in gateway.services:
            for backend in service.backends:
                entry = entries.get(numbers[service.name, backend.name])
                if entry is not None:
                    weight = backend.weight if steered else 0
                    checked = service.health is not None
                    known[service.name, backend.name] = _runtime_of(entry, checked, weight)
        return known

    def sweep(self, timeouts: FlowTimeouts | None = None) -> None:
        """Takes idle flows out of the tables and of the counts.

        Raises:
            KernelError: the data plane is not loaded (any more).
        """
        with loader.open_loaded(_object_of(self._applied()), self._instance.pins) as loaded:
            sweep_flows(loaded, timeouts or FlowTimeouts())

    def _note(self, session: Session, gateway: Gateway, prepared: Prepared) -> StoredState:
        """Stores what is about to change, before it does."""
        state = self._state(session)
        if not prepared.plan and state.text is not None:
            return state
        noted = replace(
            state,
            settled=False,
            features=prepared.desired.features,
            digest=prepared.compiled.digest,
            devices={**state.devices, **session.indices(gateway)},
            handles=state.handles.union(prepared.handles),
            ledger=prepared.plan.ledger,
        )
        self._store.save(noted)
        return noted

    def _settle(
        self,
        session: Session,
        state: StoredState,
        gateway: Gateway,
        prepared: Prepared,
        text: str,
    ) -> None:
        """Stores what is there now that it is."""
        changed = bool(prepared.plan) or state.text != text
        final = replace(
            state,
            generation=state.generation + (1 if changed else 0),
            text=text,
            settled=True,
            devices=session.indices(gateway),
            handles=prepared.handles,
            ledger=settled(state.ledger, prepared.desired),
            warnings=prepared.warnings,
        )
        if final != state:
            self._store.save(final)

    def _execute(self, session: Session, prepared: Prepared, on_step: StepHook | None) -> None:
        executor = session.executor(prepared.compiled)
        try:
            for operation in prepared.plan.operations:
                if on_step is not None:
                    on_step(operation)
                executor.execute(operation)
        finally:
            executor.close()

    def _plan_down(self, session: Session, state: StoredState) -> Plan:
        devices = state.devices.keys() | {device for device, _ in state.ledger.addresses}
        actual = session.observer.observe(devices | session.observer.marked_devices(), None)
        sysctls = session.observer.sysctls(state.ledger.sysctls)
        return plan_down(replace(actual, sysctls=sysctls), state.ledger)

    def _remove(self, session: Session, plan: Plan, on_step: StepHook | None) -> list[str]:
        """Executes a plan of removals; returns what failed. Pins stay while anything that uses
        them may be left, because by them it is recognised."""
        executor = session.executor(None)
        failures: list[str] = []
        for operation in plan.operations:
            if failures and isinstance(operation, RemovePins):
                break
            if on_step is not None:
                on_step(operation)
            try:
                executor.execute(operation)
            except KernelError as error:
                failures.append(error.message)
        return failures

    @contextmanager
    def _session(self) -> Iterator[Session]:
        loader.require_bpffs_visible()
        with ExitStack() as stack:
            yield Session(self._instance, stack)

    @contextmanager
    def _tables(self, state: StoredState) -> Iterator[DataPlaneTables | None]:
        """None where nothing is pinned."""
        loader.require_bpffs_visible()
        maps = loader.open_maps(_object_of(state).maps, self._instance.pins)
        try:
            yield DataPlaneTables(maps) if maps else None
        finally:
            loader.close_maps(maps)

    def _state(self, session: Session) -> StoredState:
        """The stored state, fit for this boot, this network namespace and its devices.

        Raises:
            ShaperError: the instance belongs elsewhere, or another one is here.
        """
        here = network_namespace()
        for name, neighbour in self._store.neighbours():
            if neighbour.network_namespace == here:
                raise ShaperError(
                    f"instance {name} is applied in this network namespace",
                    f"one namespace holds one instance: use --instance {name}, or take it down",
                )
        state = self._store.load() or StoredState(boot_id=boot_id(), network_namespace=here)
        if state.network_namespace == here:
            return follow_devices(state, session.links.names())
        if network_namespace_exists(state.network_namespace):
            raise ShaperError(
                f"instance {self._instance.name} belongs to another network namespace",
                "run this there (nsenter --net=/run/netns/NAME shaper …), or choose another "
                "--instance",
            )
        return replace(state, network_namespace=here, ledger=Ledger(), devices={})

    def _applied(self, session: Session | None = None) -> StoredState:
        """The state of an instance that was applied; with a session also fit for this place."""
        state = self._store.load() if session is None else self._state(session)
        if state is None or state.text is None:
            raise ShaperError(
                f"nothing is applied under the instance name {self._instance.name}",
                "`shaper apply FILE` makes it so",
            )
        return state


def _verify(left: Plan) -> None:
    if left:
        sentences = "; ".join(operation.describe() for operation in left.operations)
        raise VerifyError(f"read back after the apply, this is still to do: {sentences}")


def _changes_anything(operation: Operation) -> bool:
    return not (isinstance(operation, SetSysctl) and operation.value == operation.was)


def _gateway(state: StoredState) -> Gateway:
    """What was applied.

    Raises:
        ShaperError: this version of shaper does not accept it any more.
    """
    try:
        return _parsed(state.text or "")
    except ConfigError as error:
        raise ShaperError(
            f"this version of shaper does not accept what is applied: {error.lines()[0]}",
            "apply a file that it accepts; until then the data plane goes on as it is",
        ) from error


@lru_cache(maxsize=4)
def _parsed(text: str) -> Gateway:
    """Asked for at every tick of the controller."""
    return parse_config(text, "the applied configuration")


def _object_of(state: StoredState) -> ProgramObject:
    """The object that is loaded; compiled again only where its file is gone."""
    return stored_object(state.digest) or compile_object(state.features)


def _runtime_of(entry: BackendEntry, checked: bool, weight: int) -> BackendRuntime:
    """`weight` 0: the factor is not taken over."""
    return BackendRuntime(
        up=not checked or bool(entry.flags & BACKEND_UP),
        factor=entry.weight_milli / 1000 / weight if weight else 1.0,
    )


def _indices(gateway: Gateway, handles: Handles) -> dict[tuple[str, str], int]:
    return {
        (service.name, backend.name): handles.backends[backend_key(service, backend)]
        for service in gateway.services
        for backend in service.backends
    }
