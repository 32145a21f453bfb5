"""From a gateway's classes to the trees of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.errors import KernelError
from shaper.model import Gateway, Interface, Leaf, LeafKind, Role, TrafficClass
from shaper.shaping.leaf import (
    FqCodelOptions,
    PfifoOptions,
    codel_time_to_send_us,
    codel_time_us,
    leaf_warnings,
    resolve_leaf,
)
from shaper.shaping.tree import (
    MAJOR,
    ClassSpec,
    TcTree,
    build_tree,
    class_key,
    class_keys,
    target_minor,
    valid_minor,
)

KINDS = frozenset({"pfifo", "fq_codel"})
FIFO_ONLY = frozenset({"pfifo"})
MBIT = 10**6
WAN = Interface("wan", "eth0", Role.CLIENT, 1000 * MBIT)
LAN = Interface("lan", "eth1", Role.BACKEND, 100 * MBIT)


def traffic_class(
    name: str,
    parent: str | None = None,
    rate: int = 100 * MBIT,
    ceil: int = 1000 * MBIT,
    priority: int = 2,
    leaf: Leaf | None = None,
    interfaces: tuple[str, ...] = ("wan", "lan"),
) -> TrafficClass:
    return TrafficClass(name, parent, rate, ceil, priority, leaf or Leaf(), interfaces)


def gateway(
    *classes: TrafficClass,
    default: str | None = "bulk",
    interfaces: tuple[Interface, ...] = (WAN, LAN),
) -> Gateway:
    return Gateway(interfaces=interfaces, classes=classes, default_class=default, services=())


def minors_of(of: Gateway) -> dict[str, int]:
    return {key: 0x10 + number for number, key in enumerate(class_keys(of))}


def build(
    of: Gateway, interface: Interface = WAN, minors: Mapping[str, int] | None = None
) -> TcTree:
    tree = build_tree(of, interface, minors or minors_of(of), 1500, KINDS)
    assert tree is not None
    return tree


def by_name(tree: TcTree) -> dict[str, ClassSpec]:
    return {spec.name: spec for spec in tree.classes}


FLAT = gateway(traffic_class("web"), traffic_class("bulk"))
NESTED = gateway(
    traffic_class("api", "web", rate=200 * MBIT, ceil=400 * MBIT, priority=1),
    traffic_class("web", rate=500 * MBIT),
    traffic_class("bulk", priority=6),
    interfaces=(WAN,),
)


def test_root_class_has_the_bandwidth_of_the_interface() -> None:
    root = build(FLAT).classes[0]
    assert (root.minor, root.parent_minor) == (1, 0)
    assert root.rate_bps == root.ceil_bps == 1000 * MBIT


def test_interface_without_bandwidth_has_no_tree() -> None:
    unshaped = replace(WAN, bandwidth_bps=None)
    assert build_tree(FLAT, unshaped, minors_of(FLAT), 1500, KINDS) is None


def test_flat_classes_are_leaves_below_the_root() -> None:
    tree = build(FLAT)
    specs = by_name(tree)
    assert class_keys(FLAT) == ("web", "bulk")
    assert {specs[name].parent_minor for name in ("web", "bulk")} == {1}
    assert {leaf.class_minor for leaf in tree.leaves} == {specs["web"].minor, specs["bulk"].minor}
    assert tree.default_minor == specs["bulk"].minor == target_minor(FLAT, "bulk", minors_of(FLAT))


def test_class_with_children_is_an_inner_class_and_a_direct_leaf() -> None:
    specs = by_name(build(NESTED))
    inner, direct, api = specs["web/"], specs["web/."], specs["web/api"]
    assert (inner.parent_minor, direct.parent_minor, api.parent_minor) == (
        1,
        inner.minor,
        inner.minor,
    )
    assert inner.rate_bps == 500 * MBIT
    assert direct.rate_bps == 300 * MBIT  # what api leaves of it
    assert (direct.ceil_bps, direct.priority) == (1000 * MBIT, 2)
    assert target_minor(NESTED, "web", minors_of(NESTED)) == direct.minor
    assert target_minor(NESTED, "api", minors_of(NESTED)) == api.minor
    assert class_key(NESTED, "web") == "web/"
    assert class_key(NESTED, "api") == "web/api"


def test_parents_come_before_children_whatever_the_file_says() -> None:
    names = [spec.name for spec in build(NESTED).classes]
    assert names.index("web/") < names.index("web/.")
    assert names.index("web/") < names.index("web/api")


def test_direct_leaf_keeps_a_hundredth_when_children_take_all() -> None:
    full = gateway(
        traffic_class("web", rate=500 * MBIT),
        traffic_class("api", "web", rate=500 * MBIT),
        default="web",
    )
    assert by_name(build(full))["web/."].rate_bps == 5 * MBIT


def test_rates_are_clipped_to_the_bandwidth() -> None:
    specs = by_name(build(gateway(traffic_class("bulk", rate=500 * MBIT)), LAN))
    assert (specs["bulk"].rate_bps, specs["bulk"].ceil_bps) == (100 * MBIT, 100 * MBIT)


def test_rates_are_whole_bytes_per_second() -> None:
    odd = gateway(traffic_class("bulk", rate=1_000_001, ceil=1_000_009))
    spec = by_name(build(odd))["bulk"]
    assert (spec.rate_bps, spec.ceil_bps) == (1_000_000, 1_000_008)


def test_class_of_another_interface_is_left_out_with_its_children() -> None:
    split = gateway(
        traffic_class("bulk"),
        traffic_class("web", interfaces=("wan",)),
        traffic_class("api", "web"),
    )
    assert set(by_name(build(split, LAN))) == {"root", "bulk"}
    assert set(by_name(build(split, WAN))) == {"root", "bulk", "web/", "web/.", "web/api"}


def test_class_has_one_role_on_every_interface() -> None:
    split = gateway(
        traffic_class("bulk"),
        traffic_class("web"),
        traffic_class("api", "web", interfaces=("wan",)),
    )
    minors = minors_of(split)
    for interface in (WAN, LAN):
        tree = build(split, interface, minors)
        assert target_minor(split, "web", minors) in {leaf.class_minor for leaf in tree.leaves}
    assert by_name(build(split, LAN))["web/."].rate_bps == 100 * MBIT  # no child takes of it here


def test_default_class_is_a_leaf_of_every_tree_whatever_else_is_left_out() -> None:
    split = gateway(
        traffic_class("bulk"),
        traffic_class("rest", "bulk", interfaces=("wan",)),
        traffic_class("web", interfaces=("wan",)),
    )
    for interface in (WAN, LAN):
        tree = build(split, interface)
        assert tree.default_minor == by_name(tree)["bulk/."].minor
        assert tree.default_minor in {leaf.class_minor for leaf in tree.leaves}


def test_key_changes_with_parent_and_role() -> None:
    leaf = class_keys(gateway(traffic_class("bulk"), traffic_class("api")))
    inner = class_keys(gateway(traffic_class("bulk"), traffic_class("api", "bulk"), default="bulk"))
    assert set(leaf) == {"bulk", "api"}
    assert set(inner) == {"bulk/", "bulk/.", "bulk/api"}


def test_minors_leave_out_the_root_handle_and_clsact() -> None:
    assert [valid_minor(minor) for minor in (0xF, 0x10, MAJOR, 0xFFEF, 0xFFF0, 0xFFFF)] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_auto_leaf_is_fq_codel_where_the_kernel_has_it() -> None:
    assert resolve_leaf(Leaf(), 1500, KINDS) == FqCodelOptions(
        limit_packets=10_240,
        target_us=4_999,
        interval_us=99_999,
        flows=1024,
        quantum_bytes=1514,
        memory_limit_bytes=32 * 2**20,
        ecn=True,
    )
    assert leaf_warnings(FLAT, KINDS) == ()


def test_auto_leaf_is_a_fifo_with_a_warning_elsewhere() -> None:
    assert resolve_leaf(Leaf(), 1500, FIFO_ONLY) == PfifoOptions(1000)
    (warning,) = leaf_warnings(FLAT, FIFO_ONLY)
    assert "web, bulk" in warning
    assert "CONFIG_NET_SCH_FQ_CODEL" in warning


def test_named_fifo_gives_no_warning() -> None:
    fifo = gateway(traffic_class("bulk", leaf=Leaf(LeafKind.FIFO, limit_packets=20)))
    assert leaf_warnings(fifo, FIFO_ONLY) == ()
    assert resolve_leaf(fifo.classes[0].leaf, 1500, KINDS) == PfifoOptions(20)


def test_named_fq_codel_that_the_kernel_lacks_is_an_error() -> None:
    named = gateway(traffic_class("bulk", leaf=Leaf(LeafKind.FQ_CODEL)))
    with pytest.raises(KernelError) as caught:
        build_tree(named, WAN, minors_of(named), 1500, FIFO_ONLY)
    assert "CONFIG_NET_SCH_FQ_CODEL" in caught.value.hint
    assert "sch_fq_codel" in caught.value.hint


def test_leaf_options_are_taken_over() -> None:
    leaf = Leaf(
        LeafKind.FQ_CODEL,
        limit_packets=100,
        target_us=1024,
        interval_us=2048,
        flows=64,
        quantum_bytes=1,
        memory_limit_bytes=2**33,
        ecn=False,
    )
    expected = FqCodelOptions(100, 1024, 2048, 64, 256, 2**31, ecn=False)
    assert resolve_leaf(leaf, 1500, KINDS) == expected


@given(st.integers(0, 10_000_000))
def test_codel_time_that_is_sent_reads_back(time_us: int) -> None:
    reported = codel_time_us(time_us)
    assert codel_time_us(codel_time_to_send_us(reported)) == reported
    assert 0 <= time_us - reported <= 2
