"""Stand-ins for the kernel that refuse what the kernel refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shaper.errors import KernelError
from shaper.kernel.tc import ClassStatistics, Observed
from shaper.shaping.leaf import FqCodelOptions, LeafSpec, OtherOptions
from shaper.shaping.operations import (
    AddClass,
    AddLeaf,
    AddRoot,
    ChangeClass,
    ChangeLeaf,
    DeleteClass,
    DeleteLeaf,
    DeleteRoot,
    TcOperation,
)
from shaper.shaping.tree import MAJOR, ClassSpec, TcTree

_MAX_DEPTH = 8  # TC_HTB_MAXDEPTH, the root class included


@dataclass
class _Htb:
    default_minor: int
    classes: dict[int, ClassSpec] = field(default_factory=dict)
    leaves: dict[int, LeafSpec] = field(default_factory=dict)

    def children(self, minor: int) -> list[int]:
        return [spec.minor for spec in self.classes.values() if spec.parent_minor == minor]

    def depth(self, minor: int) -> int:
        return 1 + self.depth(self.classes[minor].parent_minor) if minor else 0


@dataclass
class FakeTrafficControl:
    """HTB as net/sched/sch_htb.c and sch_api.c have it, for as many devices as are asked about.

    Stricter in one point: HTB puts a class whose parent is missing at the top, without a word.

    `foreign`: device -> kind of a root qdisc that somebody else put there.
    """

    kinds: frozenset[str] = frozenset({"pfifo", "fq_codel"})
    foreign: dict[str, str] = field(default_factory=dict)
    executed: list[TcOperation] = field(default_factory=list, compare=False)
    _roots: dict[str, _Htb] = field(default_factory=dict)

    def leaf_kinds(self) -> frozenset[str]:
        return self.kinds

    def observe(self, device: str) -> Observed:
        root = self._roots.get(device)
        if root is None:
            kind = self.foreign.get(device)
            return Observed(kind or "noqueue", kind is not None, None, has_clsact=False)
        classes = sorted(
            root.classes.values(), key=lambda spec: (root.depth(spec.minor), spec.minor)
        )
        leaves = sorted(root.leaves.values(), key=lambda leaf: leaf.class_minor)
        tree = TcTree(device, root.default_minor, tuple(classes), tuple(leaves))
        return Observed("htb", foreign=False, tree=tree, has_clsact=False)

    def class_statistics(self, device: str) -> dict[int, ClassStatistics]:
        root = self._roots.get(device)
        return {minor: ClassStatistics(0, 0, 0, 0) for minor in root.classes} if root else {}

    def execute(self, operation: TcOperation) -> None:
        """
        Raises:
            KernelError: where the kernel would refuse.
        """
        match operation:
            case AddRoot(device, default_minor):
                _require(device not in self.foreign, operation, "Exclusivity flag on")
                _require(device not in self._roots, operation, "Exclusivity flag on")
                self._roots[device] = _Htb(default_minor)
            case DeleteRoot(device):
                self._root(operation)
                del self._roots[device]
            case AddClass() | ChangeClass() | DeleteClass():
                self._execute_class(self._root(operation), operation)
            case AddLeaf() | ChangeLeaf() | DeleteLeaf():
                self._execute_leaf(self._root(operation), operation)
        self.executed.append(operation)

    def _root(self, operation: TcOperation) -> _Htb:
        _require(operation.device in self._roots, operation, "no root qdisc of ours")
        return self._roots[operation.device]

    @staticmethod
    def _execute_class(root: _Htb, operation: AddClass | ChangeClass | DeleteClass) -> None:
        match operation:
            case AddClass(_, spec):
                _require_sound(spec, operation)
                _require(spec.minor not in root.classes, operation, "File exists")
                parent = spec.parent_minor
                _require(not parent or parent in root.classes, operation, "Failed to find parent")
                _require(root.depth(parent) < _MAX_DEPTH, operation, "tree is too deep")
                root.classes[spec.minor] = spec
                root.leaves.pop(parent, None)  # a class that gets a child loses its queue
            case ChangeClass(_, spec):
                _require_sound(spec, operation)
                _require(spec.minor in root.classes, operation, "No such file or directory")
                before = root.classes[spec.minor]
                after = replace(spec, parent_minor=before.parent_minor)
                if root.children(spec.minor):
                    after = replace(
                        after, priority=before.priority, quantum_bytes=before.quantum_bytes
                    )
                root.classes[spec.minor] = after
            case DeleteClass(_, minor):
                _require(minor in root.classes, operation, "No such file or directory")
                _require(not root.children(minor), operation, "Device or resource busy")
                del root.classes[minor]
                root.leaves.pop(minor, None)

    def _execute_leaf(self, root: _Htb, operation: AddLeaf | ChangeLeaf | DeleteLeaf) -> None:
        minor = operation.leaf.class_minor
        before = root.leaves.get(minor)
        match operation:
            case AddLeaf(_, leaf):
                _require(leaf.kind in self.kinds, operation, "Specified qdisc kind is unknown")
                _require(minor in root.classes, operation, "Failed to find specified class")
                _require(not root.children(minor), operation, "inner classes have no queue")
                _require(before is None, operation, "Exclusivity flag on")
                _require(minor not in (0, MAJOR, 0xFFFF), operation, "the handle is taken")
                root.leaves[minor] = leaf
            case ChangeLeaf(_, leaf):
                _require(before is not None and before.kind == leaf.kind, operation, "Invalid kind")
                _require(before is None or _same_flows(before, leaf), operation, "Invalid argument")
                root.leaves[minor] = leaf
            case DeleteLeaf():
                _require(before is not None, operation, "Cannot delete qdisc with handle of zero")
                del root.leaves[minor]

    def replace_leaf_by_hand(self, device: str, minor: int, kind: str) -> None:
        """What `tc qdisc replace dev DEVICE parent 5348:MINOR KIND` does."""
        self._roots[device].leaves[minor] = LeafSpec(minor, OtherOptions(kind))


def _same_flows(before: LeafSpec, after: LeafSpec) -> bool:
    match before.options, after.options:
        case FqCodelOptions(flows=have), FqCodelOptions(flows=want):
            return have == want
    return True


def _require_sound(spec: ClassSpec, operation: TcOperation) -> None:
    rates = (spec.rate_bps, spec.ceil_bps)
    _require(all(rate >= 8 and rate % 8 == 0 for rate in rates), operation, "Invalid argument")
    _require(spec.quantum_bytes > 0, operation, "HTB: quantum is small. Consider r2q change.")
    _require(0 <= spec.priority <= 7, operation, "priority out of range")


def _require(condition: bool, operation: TcOperation, reason: str) -> None:
    if not condition:
        raise KernelError(f"{operation.describe()}: {reason}")
