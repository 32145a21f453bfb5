"""Specs to rtnetlink bytes and back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaper.kernel import tc_codec
from shaper.shaping.htb import burst_bytes
from shaper.shaping.leaf import LeafOptions, OtherOptions, PfifoOptions
from shaper.shaping.tree import ClassSpec
from tests.tc_trees import MTU, leaf_options, trees

KINDS = frozenset({"pfifo", "fq_codel"})


def class_spec(rate_bps: int) -> ClassSpec:
    burst = burst_bytes(rate_bps, MTU)
    return ClassSpec(0x10, 1, rate_bps, rate_bps, 3, burst, burst, 1514)


@given(trees("wan0", KINDS).map(lambda tree: tree.classes[-1]))
def test_class_survives_the_way_there_and_back(spec: ClassSpec) -> None:
    options = tc_codec.encode_class(spec)
    assert tc_codec.decode_class(spec.minor, spec.parent_minor, options) == spec


def test_class_needs_64_bits_from_34_gbit_on() -> None:
    below = tc_codec.encode_class(class_spec((2**32 - 1) * 8))
    above = tc_codec.encode_class(class_spec(2**32 * 8))
    assert len(above) - len(below) == 2 * 12
    assert tc_codec.decode_class(0x10, 1, above).rate_bps == 2**32 * 8


def test_root_carries_the_default_minor() -> None:
    assert tc_codec.decode_root(tc_codec.encode_root(0x1234)) == 0x1234


@given(leaf_options(KINDS).filter(lambda options: options.kind == "pfifo"))
def test_pfifo_survives_the_way_there_and_back(options: LeafOptions) -> None:
    assert tc_codec.decode_leaf("pfifo", tc_codec.encode_leaf(options, change=False)) == options


@given(leaf_options(KINDS).filter(lambda options: options.kind == "fq_codel"))
def test_fq_codel_change_leaves_its_flows_alone(options: LeafOptions) -> None:
    added = tc_codec.encode_leaf(options, change=False)
    changed = tc_codec.encode_leaf(options, change=True)
    assert len(added) - len(changed) == 8


def test_unknown_leaf_is_reported_and_never_made() -> None:
    assert tc_codec.decode_leaf("cake", b"\1\2\3") == OtherOptions("cake")
    with pytest.raises(ValueError, match="cake"):
        tc_codec.encode_leaf(OtherOptions("cake"), change=False)


def test_statistics_are_read_by_attribute() -> None:
    basic = struct.pack("=HHQII", 20, 1, 5_000_000_000, 7, 0)
    queue = struct.pack("=HH5I", 24, 3, 2, 3028, 11, 0, 0)
    assert tc_codec.decode_statistics(queue + basic) == tc_codec.QueueStatistics(
        bytes=5_000_000_000, packets=7, backlog_packets=2, backlog_bytes=3028, drops=11
    )


def test_statistics_that_a_kind_does_not_count_are_zero() -> None:
    assert tc_codec.decode_statistics(b"") == tc_codec.QueueStatistics()


@given(st.integers(1, 2**31))
def test_pfifo_limit_is_one_number(limit: int) -> None:
    assert tc_codec.encode_leaf(PfifoOptions(limit), change=True) == struct.pack("=I", limit)
