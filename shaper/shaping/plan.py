"""What leads from the tree that a device has to the one it should have.

`prepare` makes everything that is new or changed, `retire` removes what is left over. Between the
two the caller points the traffic at the new classes, so no packet is ever sent to a class that does
not exist, and none is lost with a class that still gets traffic.

HTB's default class is fixed when the root qdisc is made. Were it left at a class that is gone, HTB
would send what belongs to no class of the device straight out, unshaped. So where the default class
gets another minor, the root is made anew, with everything below it: the packets in it are lost, and
until the traffic is pointed anew some of it falls to the default class.

A leaf qdisc cannot become one of another kind under the same handle (tc_modify_qdisc() refuses),
so it is deleted and added; for that moment HTB has its built-in fifo there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from shaper.shaping.leaf import FqCodelOptions, LeafSpec, PfifoOptions
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
from shaper.shaping.tree import ClassSpec, TcTree


@dataclass(frozen=True, slots=True)
class TcPlan:
    """Operations of one device: `prepare` before, `retire` after the traffic is pointed anew."""

    prepare: tuple[TcOperation, ...] = ()
    retire: tuple[TcOperation, ...] = ()


def plan_tree(desired: TcTree | None, actual: TcTree | None, device: str) -> TcPlan:
    """The operations between two trees; none where they agree.

    Not compared: priority and quantum of inner classes, which mean nothing there and which HTB does
    not change in place.

    Args:
        desired: None where the device should have no tree.
        actual: what was observed, in whatever state an interrupted apply left it; None where the
            root qdisc is not ours.
    """
    if desired is None:
        return TcPlan(retire=() if actual is None else (DeleteRoot(device),))
    prepare: list[TcOperation] = []
    if actual is not None and actual.default_minor != desired.default_minor:
        prepare.append(DeleteRoot(device, new_default=True))
        actual = None
    if actual is None:
        prepare.append(AddRoot(device, desired.default_minor))
        actual = TcTree(device, desired.default_minor, (), ())
    conflicting = _conflicting(desired, actual)
    prepare += _deletions(actual, conflicting, device)
    kept = _without(actual, conflicting)
    prepare += _class_operations(desired, kept, device)
    wanted = {spec.minor for spec in desired.classes}
    surplus = {spec.minor for spec in kept.classes} - wanted
    return TcPlan(tuple(prepare), tuple(_deletions(kept, surplus, device)))


def _conflicting(desired: TcTree, actual: TcTree) -> set[int]:
    """Classes that exist under a minor that now means another place or role, with all below them.

    Keys see to it that this does not happen (`shaper.shaping.tree`); it does when the stored minors
    were lost while the kernel kept its classes.
    """
    wanted = {spec.minor: spec for spec in desired.classes}
    wanted_inner = {spec.parent_minor for spec in desired.classes}
    actual_inner = {spec.parent_minor for spec in actual.classes}
    with_leaf = {leaf.class_minor for leaf in actual.leaves}
    conflicting: set[int] = set()
    for spec in actual.classes:  # parents first, so that one pass reaches every descendant
        want = wanted.get(spec.minor)
        if spec.parent_minor in conflicting:
            conflicting.add(spec.minor)
        elif want is not None:
            inner = want.minor in wanted_inner
            other_role = spec.minor in (with_leaf if inner else actual_inner)
            if other_role or want.parent_minor != spec.parent_minor:
                conflicting.add(spec.minor)
    return conflicting


def _without(tree: TcTree, minors: Collection[int]) -> TcTree:
    return replace(
        tree,
        classes=tuple(spec for spec in tree.classes if spec.minor not in minors),
        leaves=tuple(leaf for leaf in tree.leaves if leaf.class_minor not in minors),
    )


def _deletions(tree: TcTree, minors: Collection[int], device: str) -> Iterator[TcOperation]:
    """Children before parents; a class takes its leaf along."""
    for spec in reversed(tree.classes):
        if spec.minor in minors:
            yield DeleteClass(device, spec.minor, spec.name)


def _class_operations(desired: TcTree, kept: TcTree, device: str) -> Iterator[TcOperation]:
    have = {spec.minor: spec for spec in kept.classes}
    have_leaves = {leaf.class_minor: leaf for leaf in kept.leaves}
    leaves = {leaf.class_minor: leaf for leaf in desired.leaves}
    inner = {spec.parent_minor for spec in desired.classes}
    for spec in desired.classes:
        before = have.get(spec.minor)
        if before is None:
            yield AddClass(device, spec)
        elif _differs(spec, before, spec.minor in inner):
            yield ChangeClass(device, spec, before)
        leaf = leaves.get(spec.minor)
        if leaf is not None:
            yield from _leaf_operations(leaf, have_leaves.get(spec.minor), device)


def _differs(want: ClassSpec, have: ClassSpec, inner: bool) -> bool:
    if inner:
        have = replace(have, priority=want.priority, quantum_bytes=want.quantum_bytes)
    return want != have


def _leaf_operations(want: LeafSpec, have: LeafSpec | None, device: str) -> Iterator[TcOperation]:
    if have is None:
        yield AddLeaf(device, want)
    elif want != have:
        if _changeable(want, have):
            yield ChangeLeaf(device, want, have)
        else:
            yield DeleteLeaf(device, have)
            yield AddLeaf(device, want)


def _changeable(want: LeafSpec, have: LeafSpec) -> bool:
    """fq_codel fixes its number of flows when it is made."""
    match want.options, have.options:
        case FqCodelOptions(flows=flows), FqCodelOptions(flows=before):
            return flows == before
        case PfifoOptions(), PfifoOptions():
            return True
        case _:
            return False
