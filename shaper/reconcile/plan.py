"""Desired against actual: the operations between them, in an order that is safe at every point.

New queues exist before a map points at them; a service is written after its backends, and
announced after it works; what is retired goes last, when no map names it any more, and routing is
the last to stop. So a process that is killed between any two operations leaves a gateway that
forwards, and a next apply finds just the rest to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from shaper.model import Address
from shaper.reconcile.desired import Desired
from shaper.reconcile.entries import Tables
from shaper.reconcile.operations import (
    AddAddress,
    AddClsact,
    AttachClassifier,
    AttachXdp,
    DetachClassifier,
    DetachXdp,
    LoadPrograms,
    Operation,
    PutBackend,
    PutDefaultClass,
    PutService,
    PutServiceClass,
    RemoveAddress,
    RemoveClsact,
    RemovePins,
    RemovePrograms,
    RemoveService,
)
from shaper.reconcile.sysctls import plan_sysctls, still_needed
from shaper.shaping.operations import TcOperation
from shaper.shaping.plan import plan_tree
from shaper.shaping.tree import TcTree


@dataclass(frozen=True, slots=True)
class Ledger:
    """What shaper changed outside its own objects, and how it was before: the way back.

    Written before the change is made, and `settled` once a plan is through.
    """

    sysctls: Mapping[str, str] = field(default_factory=dict)
    addresses: frozenset[tuple[str, Address]] = frozenset()
    clsact: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What was observed at one device.

    `classifier` and `xdp` are "DIGEST/PROGRAM" where they are ours, else None. `foreign_…` is what
    somebody else put there.
    """

    tree: TcTree | None = None
    foreign_qdisc: str | None = None
    foreign_xdp: bool = False
    has_clsact: bool = False
    clsact_shared: bool = False  # somebody else's filters are there too
    classifier: str | None = None
    xdp: str | None = None
    addresses: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Actual:
    """What was observed. `digests`: complete and incomplete sets of pinned programs."""

    devices: Mapping[str, DeviceState]
    digests: tuple[str, ...]
    complete: frozenset[str]
    pins: bool
    sysctls: Mapping[str, str]
    tables: Tables


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in order, and the ledger that must be stored before the first of them."""

    operations: tuple[Operation, ...]
    ledger: Ledger

    def __bool__(self) -> bool:
        return bool(self.operations)


_NO_DEVICE = DeviceState()


def plan_apply(desired: Desired, actual: Actual, ledger: Ledger, digest: str) -> Plan:
    """The way from `actual` to `desired`.

    Args:
        ledger: what earlier applies noted.
        digest: of the object that the features compile to.
    Raises:
        KernelError: the kernel lacks a sysctl that is needed.
    """
    trees = [
        plan_tree(desired.trees.get(device), state.tree, device)
        for device, state in sorted(actual.devices.items())
    ]
    sysctls = plan_sysctls(desired.sysctls, actual.sysctls, ledger.sysctls)
    operations: list[Operation] = []
    if digest not in actual.complete:
        operations.append(LoadPrograms(digest, desired.features))
    operations += sysctls.sets
    operations += _joined(tree.prepare for tree in trees)
    operations += plan_tables(desired.tables, actual.tables)
    operations += _attach(desired, actual, digest)
    operations += _announce(desired, actual)
    operations += _withdraw(desired, actual, ledger)
    operations += _detach(desired, actual, ledger)
    operations += _joined(tree.retire for tree in trees)
    operations += sysctls.restores
    operations += [RemovePrograms(old) for old in actual.digests if old != digest]
    return Plan(tuple(operations), _ledger_during(operations, ledger, sysctls.noted))


def plan_down(actual: Actual, ledger: Ledger) -> Plan:
    """The way back to a machine without this instance; everything else stays."""
    nothing = Desired()
    operations: list[Operation] = []
    operations += _withdraw(nothing, actual, ledger)
    operations += _detach(nothing, actual, ledger)
    operations += _joined(
        plan_tree(None, state.tree, device).retire
        for device, state in sorted(actual.devices.items())
    )
    operations += plan_sysctls(nothing.sysctls, actual.sysctls, ledger.sysctls).restores
    if actual.pins:
        operations.append(RemovePins())
    return Plan(tuple(operations), Ledger())


def settled(ledger: Ledger, desired: Desired) -> Ledger:
    """The ledger of a plan for `desired` that is through: what it gave back is forgotten."""
    return Ledger(
        still_needed(ledger.sysctls, desired.sysctls),
        ledger.addresses & desired.addresses,
        ledger.clsact & desired.classifiers.keys(),
    )


def plan_tables(desired: Tables, actual: Tables) -> list[Operation]:
    """Map changes. Backends that left the file keep their entry for the TCP connections that exist,
    but nobody checks them any more, so they are marked down: UDP flows move on."""
    operations: list[Operation] = []
    for index, entry in sorted(desired.backends.items()):
        if actual.backends.get(index) != entry:
            operations.append(PutBackend(entry))
    for service_id, classid in sorted(desired.service_classes.items()):
        if actual.service_classes.get(service_id, 0) != classid:
            operations.append(PutServiceClass(service_id, classid))
    if desired.default_class != actual.default_class:
        operations.append(PutDefaultClass(desired.default_class))
    for key, service in sorted(desired.services.items(), key=lambda item: str(item[0])):
        if actual.services.get(key) != service:
            operations.append(PutService(service))
    for key in sorted(actual.services.keys() - desired.services.keys(), key=str):
        operations.append(RemoveService(key))
    for index in sorted(actual.backends.keys() - desired.backends.keys()):
        entry = actual.backends[index]
        if entry.flags:
            operations.append(PutBackend(replace(entry, flags=0)))
    for service_id in sorted(actual.service_classes.keys() - desired.service_classes.keys()):
        if actual.service_classes[service_id]:
            operations.append(PutServiceClass(service_id, 0))
    return operations


def _joined(halves: Iterable[tuple[TcOperation, ...]]) -> Iterator[Operation]:
    for operations in halves:
        yield from operations


def _attach(desired: Desired, actual: Actual, digest: str) -> Iterator[Operation]:
    for device, program in sorted(desired.classifiers.items()):
        state = actual.devices.get(device, _NO_DEVICE)
        if not state.has_clsact:
            yield AddClsact(device)
        if state.classifier != f"{digest}/{program}":
            yield AttachClassifier(device, program, digest)
    for device in sorted(desired.xdp_devices):
        if actual.devices.get(device, _NO_DEVICE).xdp != f"{digest}/xdp_balance":
            yield AttachXdp(device, digest)


def _announce(desired: Desired, actual: Actual) -> Iterator[Operation]:
    for device, address in sorted(desired.addresses, key=str):
        if address not in actual.devices.get(device, _NO_DEVICE).addresses:
            yield AddAddress(device, address)


def _withdraw(desired: Desired, actual: Actual, ledger: Ledger) -> Iterator[Operation]:
    """Only addresses that shaper itself added."""
    for device, address in sorted(ledger.addresses - desired.addresses, key=str):
        if address in actual.devices.get(device, _NO_DEVICE).addresses:
            yield RemoveAddress(device, address)


def _detach(desired: Desired, actual: Actual, ledger: Ledger) -> Iterator[Operation]:
    for device, state in sorted(actual.devices.items()):
        if state.xdp and device not in desired.xdp_devices:
            yield DetachXdp(device)
        if device in desired.classifiers:
            continue
        if state.classifier:
            yield DetachClassifier(device)
        if device in ledger.clsact and state.has_clsact and not state.clsact_shared:
            yield RemoveClsact(device)


def _ledger_during(
    operations: list[Operation], before: Ledger, sysctls: Mapping[str, str]
) -> Ledger:
    """All that was noted and all that the operations will add; nothing is dropped yet, because
    they may be interrupted."""
    addresses = {(op.device, op.address) for op in operations if isinstance(op, AddAddress)}
    clsact = {op.device for op in operations if isinstance(op, AddClsact)}
    return Ledger(sysctls, before.addresses | addresses, before.clsact | clsact)
