"""The real HTB in throw-away namespaces: what is read back, what is refused, what is counted."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shaper.errors import KernelError
from shaper.kernel.tc import TrafficControl
from shaper.model import Gateway, Interface, Leaf, LeafKind, Role, TrafficClass
from shaper.shaping.htb import burst_bytes, quantum_bytes
from shaper.shaping.leaf import FqCodelOptions, LeafSpec, PfifoOptions, codel_time_us
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
from shaper.shaping.tree import (
    MAJOR,
    MAX_CLASS_DEPTH,
    ClassSpec,
    TcTree,
    build_tree,
    class_key,
    class_keys,
)
from tests.conftest import Namespace
from tests.fakes import FakeTrafficControl
from tests.tc_trees import MTU, comparable, operations, trees
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

DEVICE = "wan0"
PEER = "peer0"
MBIT = 10**6
NEIGHBOUR = "192.0.2.2"
FRAME_OVERHEAD_BYTES = 14 + 20 + 8
FIFO_ONLY = frozenset({"pfifo"})
FQ_CODEL = FqCodelOptions(
    1000, codel_time_us(5000), codel_time_us(100_000), 64, 1514, 2**22, ecn=True
)


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """The calling thread is in the namespace; sockets opened meanwhile stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace.path, os.O_RDONLY)
    try:
        assert libc.setns(there, 0) == 0
        yield
    finally:
        assert libc.setns(home, 0) == 0
        os.close(there)
        os.close(home)


@dataclass
class Bench:
    """A veth pair whose far end swallows everything, and traffic control over its near end."""

    namespace: Namespace
    tc: TrafficControl

    def apply(self, desired: TcTree | None) -> None:
        for operation in operations(self.plan(desired)):
            self.tc.execute(operation)

    def plan(self, desired: TcTree | None) -> TcPlan:
        return plan_tree(desired, self.tc.observe(DEVICE).tree, DEVICE)

    def send(self, minor: int, count: int, payload_bytes: int) -> None:
        """UDP to a neighbour that never answers, into a class (0: into none).

        A class's number as socket priority needs CAP_NET_ADMIN (socket(7), SO_PRIORITY).
        """
        with inside(self.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(5)  # a full send buffer must not hang the test
            if minor:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, MAJOR << 16 | minor)
            for _ in range(count):
                with suppress(OSError):  # ENOBUFS: the leaf dropped it
                    sender.sendto(bytes(payload_bytes), (NEIGHBOUR, 9))

    def received_packets(self) -> int:
        shown = self.namespace.run("ip", "-json", "-statistics", "link", "show", "dev", PEER)
        return int(json.loads(shown.stdout)[0]["stats64"]["rx"]["packets"])

    def tc_show(self, what: str) -> str:
        return self.namespace.run("tc", "-d", what, "show", "dev", DEVICE).stdout


@pytest.fixture
def bench(netns: Namespace) -> Iterator[Bench]:
    netns.run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", PEER)
    for device in (DEVICE, PEER):
        netns.run(
            "sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1"
        )  # no packets of its own
        netns.run("ip", "link", "set", device, "up")
    netns.run("ip", "address", "add", "192.0.2.1/24", "dev", DEVICE)
    hardware = "02:00:00:00:00:02"
    netns.run("ip", "neighbour", "add", NEIGHBOUR, "lladdr", hardware, "dev", DEVICE)
    with inside(netns):
        tc = TrafficControl()
    with tc:
        yield Bench(netns, tc)


def class_spec(minor: int, parent_minor: int = 1, rate_bps: int = 100 * MBIT) -> ClassSpec:
    burst = burst_bytes(rate_bps, MTU)
    quantum = quantum_bytes(rate_bps, MTU)
    return ClassSpec(minor, parent_minor, rate_bps, rate_bps, 2, burst, burst, quantum)


def tree(*classes: ClassSpec, leaf: PfifoOptions | FqCodelOptions | None = None) -> TcTree:
    """The root class, what is given below it, and a leaf of one kind for every leaf class."""
    every = (class_spec(1, 0, 1000 * MBIT), *classes)
    inner = {spec.parent_minor for spec in every}
    options = leaf or PfifoOptions(100)
    leaves = tuple(LeafSpec(spec.minor, options) for spec in every if spec.minor not in inner)
    return TcTree(DEVICE, classes[0].minor, every, leaves)


SMALL = tree(class_spec(0x10), class_spec(0x11))


def gateway(*classes: TrafficClass) -> Gateway:
    wan = Interface("wan", DEVICE, Role.CLIENT, 1000 * MBIT)
    return Gateway((wan,), classes, classes[-1].name, ())


def traffic_class(name: str, parent: str | None = None, leaf: Leaf | None = None) -> TrafficClass:
    return TrafficClass(name, parent, 10 * MBIT, 500 * MBIT, 3, leaf or Leaf(), ("wan",))


def built(of: Gateway, kinds: frozenset[str]) -> tuple[TcTree, dict[str, int]]:
    minors = {key: 0x10 + number for number, key in enumerate(class_keys(of))}
    made = build_tree(of, of.interfaces[0], minors, MTU, kinds)
    assert made is not None
    return made, minors


def require_fq_codel(bench: Bench) -> None:
    if "fq_codel" not in bench.tc.leaf_kinds():
        pytest.skip("this kernel has no fq_codel (CONFIG_NET_SCH_FQ_CODEL)")


def test_configured_classes_read_back_and_need_no_second_plan(bench: Bench) -> None:
    fifo = Leaf(LeafKind.FIFO, limit_packets=30)
    config = gateway(
        traffic_class("web"), traffic_class("api", "web"), traffic_class("bulk", leaf=fifo)
    )
    desired, _ = built(config, bench.tc.leaf_kinds())
    bench.apply(desired)
    assert comparable(bench.tc.observe(DEVICE).tree) == comparable(desired)
    assert bench.plan(desired) == TcPlan()


@pytest.mark.parametrize(
    "rate_bps",
    [64_000, MBIT, 10 * MBIT, 1500 * MBIT, (2**32 - 1) * 8, 2**32 * 8, 100_000 * MBIT],
)
def test_rate_burst_and_quantum_read_back_exactly(bench: Bench, rate_bps: int) -> None:
    desired = tree(class_spec(0x10, rate_bps=rate_bps))
    bench.apply(desired)
    observed = bench.tc.observe(DEVICE).tree
    assert observed is not None
    assert observed.classes == desired.classes


def test_tc_shows_what_was_asked_for(bench: Bench) -> None:
    bench.apply(tree(class_spec(0x10, rate_bps=50 * MBIT), leaf=PfifoOptions(77)))
    shown = bench.tc_show("class")
    assert re.search(r"5348:10 .* rate 50Mbit ceil 50Mbit .*burst 6250b", shown)
    assert re.search(r"5348:10 .* quantum 6250", shown)
    assert "pfifo 10: parent 5348:10 limit 77p" in bench.tc_show("qdisc")


def test_deepest_tree_that_is_allowed_fits(bench: Bench) -> None:
    names = [f"c{depth}" for depth in range(MAX_CLASS_DEPTH)]
    config = gateway(
        *(traffic_class(name, parent) for name, parent in zip(names, [None, *names], strict=False))
    )
    desired, minors = built(config, FIFO_ONLY)
    bench.apply(desired)
    assert bench.plan(desired) == TcPlan()
    parent = minors[class_key(config, names[-1])]
    with pytest.raises(KernelError, match="add class 5348:"):
        bench.tc.execute(AddClass(DEVICE, class_spec(0x500, parent)))


def test_no_advice_about_r2q_in_the_kernel_log(bench: Bench) -> None:
    def advice() -> list[str]:
        log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
        return [line for line in log.splitlines() if "quantum of class 5348" in line]

    before = advice()
    rates = (64_000, 100_000 * MBIT)
    bench.apply(tree(*(class_spec(0x10 + n, rate_bps=rate) for n, rate in enumerate(rates))))
    bench.apply(tree(*(class_spec(0x10 + n, rate_bps=2 * rate) for n, rate in enumerate(rates))))
    assert advice() == before


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_fake_and_kernel_agree_on_every_step(bench: Bench, data: st.DataObject) -> None:
    """Random trees, applied one over the other and cut off anywhere; both end up as desired."""
    kinds = bench.tc.leaf_kinds()
    fake = FakeTrafficControl(kinds)
    bench.apply(None)
    wanted = data.draw(st.lists(trees(DEVICE, kinds), min_size=2, max_size=3))
    for desired in wanted:
        todo = operations(bench.plan(desired))
        last = desired is wanted[-1]
        for operation in todo if last else todo[: data.draw(st.integers(0, len(todo)))]:
            fake.execute(operation)
            bench.tc.execute(operation)
            assert comparable(bench.tc.observe(DEVICE).tree) == comparable(
                fake.observe(DEVICE).tree
            )
    assert comparable(bench.tc.observe(DEVICE).tree) == comparable(wanted[-1])
    assert bench.plan(wanted[-1]) == TcPlan()


@pytest.mark.parametrize(
    "operation",
    [
        AddRoot(DEVICE, 0x10),
        AddClass(DEVICE, class_spec(0x10)),
        ChangeClass(DEVICE, class_spec(0x20), class_spec(0x20)),
        DeleteClass(DEVICE, 1, ""),
        DeleteClass(DEVICE, 0x20, ""),
        AddLeaf(DEVICE, SMALL.leaves[0]),
        AddLeaf(DEVICE, LeafSpec(0x20, PfifoOptions(1))),
        AddLeaf(DEVICE, LeafSpec(1, PfifoOptions(1))),
        ChangeLeaf(DEVICE, LeafSpec(1, PfifoOptions(1)), LeafSpec(1, PfifoOptions(2))),
        DeleteLeaf(DEVICE, LeafSpec(1, PfifoOptions(1))),
    ],
    ids=lambda operation: str(operation.describe()),
)
def test_kernel_refuses_what_the_fake_refuses(bench: Bench, operation: TcOperation) -> None:
    fake = FakeTrafficControl()
    bench.apply(SMALL)
    for known in operations(plan_tree(SMALL, None, DEVICE)):
        fake.execute(known)
    with pytest.raises(KernelError):
        fake.execute(operation)
    with pytest.raises(KernelError) as caught:
        bench.tc.execute(operation)
    assert operation.describe() in caught.value.message
    assert bench.plan(SMALL) == TcPlan()


@pytest.mark.parametrize("handle", [[], ["handle", "1:"]], ids=["automatic", "explicit"])
def test_root_qdisc_of_somebody_else_stays(bench: Bench, handle: list[str]) -> None:
    limits = ("tbf", "rate", "10mbit", "burst", "10k", "limit", "100k")
    bench.namespace.run("tc", "qdisc", "add", "dev", DEVICE, "root", *handle, *limits)
    before = bench.tc_show("qdisc")
    observed = bench.tc.observe(DEVICE)
    assert (observed.root_kind, observed.foreign, observed.tree) == ("tbf", True, None)
    assert bench.plan(None) == TcPlan()
    for operation in (AddRoot(DEVICE, 0x10), DeleteRoot(DEVICE)):
        with pytest.raises(KernelError):
            bench.tc.execute(operation)
    assert bench.tc_show("qdisc") == before


def test_htb_of_somebody_else_is_foreign(bench: Bench) -> None:
    bench.namespace.run("tc", "qdisc", "add", "dev", DEVICE, "root", "handle", "7:", "htb")
    assert bench.tc.observe(DEVICE).foreign


def test_down_brings_the_default_qdisc_back_and_leaves_clsact(bench: Bench) -> None:
    bench.namespace.run("tc", "qdisc", "add", "dev", DEVICE, "clsact")
    before = bench.tc_show("qdisc")
    bench.apply(SMALL)
    assert bench.tc.observe(DEVICE).has_clsact
    bench.apply(None)
    assert bench.tc_show("qdisc") == before
    assert not bench.tc.observe(DEVICE).foreign


def test_missing_device_is_named(bench: Bench) -> None:
    with pytest.raises(KernelError, match="no device nope0"):
        bench.tc.observe("nope0")


def test_other_devices_are_not_looked_at(bench: Bench) -> None:
    bench.namespace.run("tc", "qdisc", "add", "dev", PEER, "root", "handle", "5348:", "htb")
    assert bench.tc.observe(DEVICE).tree is None
    assert bench.tc.class_statistics(DEVICE) == {}


def test_leaf_replaced_by_hand_is_put_right(bench: Bench) -> None:
    bench.apply(SMALL)
    leaf = ("parent", "5348:10", "handle", "99:", "bfifo")
    bench.namespace.run("tc", "qdisc", "replace", "dev", DEVICE, *leaf)
    assert bench.plan(SMALL) != TcPlan()
    bench.apply(SMALL)
    assert bench.plan(SMALL) == TcPlan()


def test_leaf_kinds_are_those_that_tc_can_add(bench: Bench) -> None:
    tried = bench.namespace.run(
        "tc", "qdisc", "add", "dev", DEVICE, "root", "fq_codel", check=False
    )
    assert bench.tc.leaf_kinds() == FIFO_ONLY | ({"fq_codel"} if tried.returncode == 0 else set())


def test_fq_codel_options_read_back_and_change_in_place(bench: Bench) -> None:
    require_fq_codel(bench)
    bench.apply(tree(class_spec(0x10), leaf=FQ_CODEL))
    assert bench.plan(tree(class_spec(0x10), leaf=FQ_CODEL)) == TcPlan()
    other = replace(FQ_CODEL, target_us=codel_time_us(7_001), limit_packets=10, ecn=False)
    desired = tree(class_spec(0x10), leaf=other)
    assert [type(operation) for operation in operations(bench.plan(desired))] == [ChangeLeaf]
    bench.apply(desired)
    assert bench.plan(desired) == TcPlan()


def test_classes_count_what_they_send_and_inner_ones_their_children(bench: Bench) -> None:
    bench.apply(tree(class_spec(0x10), class_spec(0x11, 0x10), class_spec(0x12, 0x10)))
    for minor, count in ((0x11, 10), (0x12, 5)):
        bench.send(minor, count, payload_bytes=100)
    wait_until(lambda: bench.received_packets() == 15, what="15 packets at the far end")
    found = bench.tc.class_statistics(DEVICE)
    frame_bytes = 100 + FRAME_OVERHEAD_BYTES
    counted = {minor: (found[minor].packets, found[minor].bytes) for minor in found}
    assert counted == {
        1: (15, 15 * frame_bytes),
        0x10: (15, 15 * frame_bytes),
        0x11: (10, 10 * frame_bytes),
        0x12: (5, 5 * frame_bytes),
    }


def test_packets_of_no_class_are_counted_in_the_default_class(bench: Bench) -> None:
    bench.apply(tree(class_spec(0x10), class_spec(0x11)))
    bench.send(0, 3, payload_bytes=100)
    bench.send(0x77, 4, payload_bytes=100)  # a class that does not exist
    wait_until(lambda: bench.tc.class_statistics(DEVICE)[0x10].packets == 7)
    assert bench.tc.class_statistics(DEVICE)[0x11].packets == 0


@pytest.mark.parametrize(
    "leaf", [PfifoOptions(20), replace(FQ_CODEL, limit_packets=20)], ids=lambda leaf: str(leaf.kind)
)
def test_drops_and_backlog_are_the_leafs(bench: Bench, leaf: PfifoOptions | FqCodelOptions) -> None:
    if leaf.kind == "fq_codel":
        require_fq_codel(bench)
    slow = class_spec(0x11, 0x10, rate_bps=1000)  # a packet in eight seconds
    bench.apply(tree(class_spec(0x10), slow, class_spec(0x12, 0x10), leaf=leaf))
    bench.send(0x11, 60, payload_bytes=1000)
    found = bench.tc.class_statistics(DEVICE)
    frame_bytes = 1000 + FRAME_OVERHEAD_BYTES
    assert found[0x11].drops >= 30
    assert found[0x11].backlog_bytes >= 10 * frame_bytes
    passed = bench.received_packets() + found[0x11].drops + found[0x11].backlog_bytes // frame_bytes
    assert 59 <= passed <= 61  # one may leave or be dropped between two looks
    for above in (0x10, 1):
        assert found[above].drops == found[0x11].drops
        assert found[above].backlog_bytes == found[0x11].backlog_bytes
    assert found[0x12].drops == 0


def test_deleting_a_class_waits_for_its_queue(bench: Bench) -> None:
    """50 packets of 1 KB at 2 mbit take 0.2 s."""
    bench.apply(tree(class_spec(0x10), class_spec(0x11, rate_bps=2 * MBIT)))
    bench.send(0x11, 50, payload_bytes=1000)
    assert bench.tc.class_statistics(DEVICE)[0x11].backlog_bytes > 0
    bench.tc.execute(DeleteClass(DEVICE, 0x11, "old"))
    wait_until(lambda: bench.received_packets() == 50, what="every packet at the far end")


def test_deleting_a_class_that_never_empties_is_not_put_off_for_long(bench: Bench) -> None:
    bench.apply(tree(class_spec(0x10), class_spec(0x11, rate_bps=8_000)))
    bench.send(0x11, 50, payload_bytes=1000)
    bench.tc.execute(DeleteClass(DEVICE, 0x11, "old"))
    assert 0x11 not in bench.tc.class_statistics(DEVICE)


def test_change_in_place_keeps_the_queue(bench: Bench) -> None:
    before = tree(class_spec(0x10), class_spec(0x11, rate_bps=64_000))
    bench.apply(before)
    bench.send(0x11, 50, payload_bytes=1000)
    faster = tree(class_spec(0x10), class_spec(0x11, rate_bps=50 * MBIT), leaf=PfifoOptions(200))
    bench.apply(faster)
    wait_until(lambda: bench.received_packets() == 50, what="every packet at the far end")
    assert bench.tc.class_statistics(DEVICE)[0x11].drops == 0


def test_works_in_the_namespace_of_the_thread_that_opened_it(
    make_netns: Callable[[], Namespace],
) -> None:
    first, second = make_netns(), make_netns()
    first.run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", PEER)
    for namespace, present in ((first, True), (second, False)):
        with inside(namespace):
            tc = TrafficControl()
        with tc:
            if present:
                assert tc.observe(DEVICE).tree is None
            else:
                with pytest.raises(KernelError, match=DEVICE):
                    tc.observe(DEVICE)
