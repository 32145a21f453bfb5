"""Plans between any two trees, executed by an HTB that refuses what the kernel refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.errors import KernelError
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
from shaper.shaping.plan import TcPlan, plan_tree
from shaper.shaping.tree import ClassSpec, TcTree
from tests.fakes import FakeTrafficControl
from tests.tc_trees import comparable, operations, trees

DEVICE = "wan0"
KINDS = frozenset({"pfifo", "fq_codel"})
TREES = trees(DEVICE, KINDS)

FQ_CODEL = FqCodelOptions(1000, 4999, 99_999, 1024, 1514, 2**25, ecn=True)


def class_spec(minor: int, parent_minor: int = 1, rate_bps: int = 8 * 10**6) -> ClassSpec:
    return ClassSpec(minor, parent_minor, rate_bps, 10**9, 2, 3000, 125_000, 1514, f"c{minor:x}")


def tree(*classes: ClassSpec, leaf: PfifoOptions | FqCodelOptions = FQ_CODEL) -> TcTree:
    """A tree with a leaf of one kind below every class without children."""
    inner = {spec.parent_minor for spec in classes}
    leaves = tuple(
        LeafSpec(spec.minor, leaf, spec.name) for spec in classes if spec.minor not in inner
    )
    return TcTree(DEVICE, 0x10, classes, leaves)


SMALL = tree(class_spec(1, 0), class_spec(0x10), class_spec(0x11))


def plan_of(desired: TcTree | None, kernel: FakeTrafficControl) -> TcPlan:
    return plan_tree(desired, kernel.observe(DEVICE).tree, DEVICE)


def apply(desired: TcTree | None, kernel: FakeTrafficControl) -> None:
    for operation in operations(plan_of(desired, kernel)):
        kernel.execute(operation)


def with_tree(present: TcTree | None) -> FakeTrafficControl:
    kernel = FakeTrafficControl()
    apply(present, kernel)
    return kernel


@given(st.none() | TREES, st.none() | TREES)
def test_plan_leads_from_any_tree_to_any_other(before: TcTree | None, after: TcTree | None) -> None:
    kernel = with_tree(before)
    apply(after, kernel)
    assert comparable(kernel.observe(DEVICE).tree) == comparable(after)
    assert plan_of(after, kernel) == TcPlan()


@given(st.lists(TREES, min_size=2, max_size=4), st.data())
def test_plan_repairs_what_an_interrupted_one_left(
    wanted: list[TcTree], data: st.DataObject
) -> None:
    kernel = FakeTrafficControl()
    for desired in wanted[:-1]:
        todo = operations(plan_of(desired, kernel))
        stop = data.draw(st.integers(0, len(todo)))
        for operation in todo[:stop]:
            kernel.execute(operation)
    apply(wanted[-1], kernel)
    assert comparable(kernel.observe(DEVICE).tree) == comparable(wanted[-1])
    assert plan_of(wanted[-1], kernel) == TcPlan()


@given(TREES, TREES)
def test_prepare_alone_already_has_every_desired_class(before: TcTree, after: TcTree) -> None:
    kernel = with_tree(before)
    for operation in plan_of(after, kernel).prepare:
        kernel.execute(operation)
    observed = kernel.observe(DEVICE).tree
    assert observed is not None
    assert {spec.minor for spec in after.classes} <= {spec.minor for spec in observed.classes}
    assert set(after.leaves) <= set(observed.leaves)


@given(TREES, TREES)
def test_operations_are_plain_data_with_a_sentence(before: TcTree, after: TcTree) -> None:
    for operation in operations(plan_of(after, with_tree(before))):
        assert json.loads(json.dumps(asdict(operation)))["device"] == DEVICE
        assert operation.describe().startswith(f"{DEVICE}: ")


def test_first_apply_makes_the_root_and_every_class_with_its_leaf() -> None:
    root, first, second = SMALL.classes
    assert plan_tree(SMALL, None, DEVICE) == TcPlan(
        prepare=(
            AddRoot(DEVICE, 0x10),
            AddClass(DEVICE, root),
            AddClass(DEVICE, first),
            AddLeaf(DEVICE, SMALL.leaves[0]),
            AddClass(DEVICE, second),
            AddLeaf(DEVICE, SMALL.leaves[1]),
        )
    )


def test_another_default_class_makes_the_root_anew_and_says_what_is_lost() -> None:
    """HTB cannot change its default; a stale one lets packets out unshaped."""
    desired = replace(SMALL, default_minor=0x11)
    plan = plan_of(desired, with_tree(SMALL))
    assert plan.prepare[:2] == (DeleteRoot(DEVICE, new_default=True), AddRoot(DEVICE, 0x11))
    assert plan.prepare[1:] == plan_tree(desired, None, DEVICE).prepare
    assert plan.retire == ()
    assert plan.prepare[0].describe().endswith("(the packets queued there are lost)")


def test_changed_rate_is_one_change_in_place() -> None:
    faster = replace(SMALL.classes[1], rate_bps=16 * 10**6)
    desired = replace(SMALL, classes=(SMALL.classes[0], faster, SMALL.classes[2]))
    assert plan_of(desired, with_tree(SMALL)).prepare == (
        ChangeClass(DEVICE, faster, SMALL.classes[1]),
    )


def test_removed_class_is_retired_and_nothing_else_touched() -> None:
    desired = tree(*SMALL.classes[:2])
    assert plan_of(desired, with_tree(SMALL)) == TcPlan(retire=(DeleteClass(DEVICE, 0x11, "c11"),))


def test_priority_of_an_inner_class_is_not_compared() -> None:
    nested = tree(class_spec(1, 0), class_spec(0x10), class_spec(0x11, 0x10))
    inner = replace(nested.classes[1], priority=5, quantum_bytes=9000)
    desired = replace(nested, classes=(nested.classes[0], inner, nested.classes[2]))
    assert plan_of(desired, with_tree(nested)) == TcPlan()


def test_fq_codel_options_change_in_place() -> None:
    desired = tree(*SMALL.classes[:2], leaf=replace(FQ_CODEL, target_us=9999))
    (change,) = plan_of(desired, with_tree(tree(*SMALL.classes[:2]))).prepare
    assert isinstance(change, ChangeLeaf)


@pytest.mark.parametrize("leaf", [replace(FQ_CODEL, flows=16), PfifoOptions(10)])
def test_leaf_that_cannot_change_in_place_is_replaced(leaf: PfifoOptions | FqCodelOptions) -> None:
    present = tree(*SMALL.classes[:2])
    desired = tree(*SMALL.classes[:2], leaf=leaf)
    assert plan_of(desired, with_tree(present)).prepare == (
        DeleteLeaf(DEVICE, present.leaves[0]),
        AddLeaf(DEVICE, desired.leaves[0]),
    )


def test_leaf_replaced_by_hand_is_put_right() -> None:
    kernel = with_tree(SMALL)
    kernel.replace_leaf_by_hand(DEVICE, 0x10, "sfq")
    assert plan_of(SMALL, kernel) != TcPlan()
    apply(SMALL, kernel)
    assert comparable(kernel.observe(DEVICE).tree) == comparable(SMALL)


def test_no_tree_wanted_deletes_the_root_only_where_it_is_ours() -> None:
    assert plan_of(None, with_tree(SMALL)) == TcPlan(retire=(DeleteRoot(DEVICE),))
    assert plan_of(None, FakeTrafficControl(foreign={DEVICE: "fq"})) == TcPlan()


def test_lost_minors_move_a_class_by_taking_it_away_first() -> None:
    """The stored minors were lost: 0x11 was a child of 0x10 and is now wanted below the root."""
    before = tree(class_spec(1, 0), class_spec(0x10), class_spec(0x11, 0x10))
    kernel = with_tree(before)
    assert plan_of(SMALL, kernel).prepare[0] == DeleteClass(DEVICE, 0x11, "c11")
    apply(SMALL, kernel)
    assert comparable(kernel.observe(DEVICE).tree) == comparable(SMALL)


@pytest.mark.parametrize(
    ("operation", "sentence"),
    [
        (AddRoot("wan0", 0x10), "wan0: add root qdisc htb 5348: default 10"),
        (DeleteRoot("wan0"), "wan0: delete root qdisc htb 5348:"),
        (
            DeleteRoot("wan0", new_default=True),
            "wan0: delete root qdisc htb 5348: to change its default class "
            "(the packets queued there are lost)",
        ),
        (
            AddClass("wan0", class_spec(0x10)),
            "wan0: add class 5348:10 c10 rate 8mbit ceil 1gbit priority 2",
        ),
        (
            ChangeClass("wan0", class_spec(0x10, rate_bps=20 * 10**6), class_spec(0x10)),
            "wan0: change class 5348:10 c10 rate 8mbit → 20mbit",
        ),
        (DeleteClass("wan0", 0x1F, ""), "wan0: delete class 5348:1f"),
        (AddLeaf("wan0", SMALL.leaves[0]), "wan0: add leaf fq_codel to class 5348:10 c10"),
        (DeleteLeaf("wan0", SMALL.leaves[0]), "wan0: delete leaf fq_codel of class 5348:10 c10"),
        (
            ChangeLeaf(
                "wan0",
                LeafSpec(0x10, replace(FQ_CODEL, target_us=10_000, ecn=False)),
                LeafSpec(0x10, FQ_CODEL),
            ),
            "wan0: change leaf fq_codel of class 5348:10 target 4999us → 10ms, ecn True → False",
        ),
    ],
)
def test_describe_says_what_is_done(operation: TcOperation, sentence: str) -> None:
    assert operation.describe() == sentence


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (AddRoot(DEVICE, 0x10), "Exclusivity"),
        (AddClass(DEVICE, class_spec(0x10)), "exists"),
        (AddClass(DEVICE, class_spec(0x20, 0x99)), "parent"),
        (DeleteClass(DEVICE, 1, ""), "busy"),
        (ChangeClass(DEVICE, class_spec(0x20), class_spec(0x20)), "No such"),
        (AddLeaf(DEVICE, SMALL.leaves[0]), "Exclusivity"),
        (AddLeaf(DEVICE, LeafSpec(0x99, FQ_CODEL)), "class"),
        (DeleteLeaf(DEVICE, LeafSpec(1, FQ_CODEL)), "zero"),
    ],
)
def test_fake_refuses_what_the_kernel_refuses(operation: TcOperation, reason: str) -> None:
    with pytest.raises(KernelError, match=reason):
        with_tree(SMALL).execute(operation)
