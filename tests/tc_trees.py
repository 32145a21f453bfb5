"""Random class trees for hypothesis, and how two trees are compared."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from shaper.shaping.htb import burst_bytes, quantum_bytes, whole_rate
from shaper.shaping.leaf import FqCodelOptions, LeafOptions, LeafSpec, PfifoOptions, codel_time_us
from shaper.shaping.operations import TcOperation
from shaper.shaping.plan import TcPlan
from shaper.shaping.tree import ROOT_MINOR, ClassSpec, TcTree

MTU = 1500
MINORS = tuple(range(0x10, 0x1A))
"""Few, so that two trees often give the same minor to different classes."""

RATES = st.integers(min_value=64_000, max_value=100 * 10**9).map(whole_rate)

_PFIFO = st.builds(PfifoOptions, st.integers(1, 10_000))
_FQ_CODEL = st.builds(
    FqCodelOptions,
    limit_packets=st.integers(1, 20_000),
    target_us=st.integers(10, 100_000).map(codel_time_us),
    interval_us=st.integers(1_000, 1_000_000).map(codel_time_us),
    flows=st.sampled_from([16, 1024]),
    quantum_bytes=st.integers(256, 9_000),
    memory_limit_bytes=st.integers(2**20, 2**25),
    ecn=st.booleans(),
)


def leaf_options(kinds: frozenset[str]) -> st.SearchStrategy[LeafOptions]:
    return _PFIFO | _FQ_CODEL if "fq_codel" in kinds else _PFIFO


@st.composite
def trees(draw: st.DrawFn, device: str, kinds: frozenset[str]) -> TcTree:
    """Any tree that `build_tree` could return, and many that it would not."""
    minors = draw(st.lists(st.sampled_from(MINORS), min_size=1, max_size=7, unique=True))
    classes = [draw(_class(ROOT_MINOR, 0))]
    for minor in minors:
        parent = draw(st.sampled_from([spec.minor for spec in classes]))
        classes.append(draw(_class(minor, parent)))
    inner = {spec.parent_minor for spec in classes}
    leaves = tuple(
        LeafSpec(spec.minor, draw(leaf_options(kinds)))
        for spec in classes
        if spec.minor not in inner
    )
    default = draw(st.sampled_from([leaf.class_minor for leaf in leaves]))
    return TcTree(device, default, tuple(classes), leaves)


@st.composite
def _class(draw: st.DrawFn, minor: int, parent_minor: int) -> ClassSpec:
    rate, ceil = draw(RATES), draw(RATES)
    return ClassSpec(
        minor=minor,
        parent_minor=parent_minor,
        rate_bps=rate,
        ceil_bps=ceil,
        priority=draw(st.integers(0, 7)),
        burst_bytes=burst_bytes(rate, MTU),
        cburst_bytes=burst_bytes(ceil, MTU),
        quantum_bytes=quantum_bytes(rate, MTU),
    )


def comparable(tree: TcTree | None) -> object:
    """What two trees that work alike have in common: not the order, nor what HTB ignores."""
    if tree is None:
        return None
    inner = {spec.parent_minor for spec in tree.classes}
    classes = {
        replace(spec, priority=0, quantum_bytes=0) if spec.minor in inner else spec
        for spec in tree.classes
    }
    return tree.default_minor, classes, set(tree.leaves)


def operations(plan: TcPlan) -> tuple[TcOperation, ...]:
    return plan.prepare + plan.retire
