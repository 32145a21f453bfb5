"""The kernel's choices against the plain Python oracles, flow by flow, on random input."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shaper.balance.schedule import MAX_SLOTS, ScheduleEntry, build_schedule
from shaper.errors import KernelError
from shaper.kernel.compile import ProgramObject, compile_object
from shaper.model import Scheduler
from tests import oracles, packets
from tests.bpf.conftest import FEATURES
from tests.dataplane import (
    LEAST_CONNECTIONS,
    MAGLEV,
    ROUND_ROBIN,
    SOURCE_HASH,
    TCP,
    UDP,
    XDP_PASS,
    DataPlane,
)
from tests.packets import Ends

pytestmark = pytest.mark.bpf

VIP4, VIP6 = "198.51.100.10", "2001:db8:2::10"
WEIGHTS = (1000, 2000, 3000, 4000)
NUMBERS = {
    Scheduler.ROUND_ROBIN: ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: LEAST_CONNECTIONS,
    Scheduler.MAGLEV: MAGLEV,
    Scheduler.SOURCE_HASH: SOURCE_HASH,
}


def serve(
    plane: DataPlane,
    scheduler: Scheduler,
    weights: Sequence[int],
    *,
    ipv6: bool = False,
    udp: bool = False,
) -> list[int]:
    """A service over one backend per weight; returns its slots."""
    for index in range(len(weights)):
        address = f"2001:db8:3::{index + 1:x}" if ipv6 else f"203.0.113.{index + 1}"
        plane.backend(index, address, 8000 + index)
    entries = [ScheduleEntry(f"s{index}", index, weight) for index, weight in enumerate(weights)]
    schedule = build_schedule(scheduler, entries)
    slots = list(zip(schedule.backends, schedule.weights, strict=True))
    protocol = UDP if udp else TCP
    vip = VIP6 if ipv6 else VIP4
    plane.service(vip, 80, slots, scheduler=NUMBERS[scheduler], protocol=protocol)
    return list(schedule.backends)


def chosen(plane: DataPlane, data: bytes) -> int:
    """The backend that a TCP or UDP frame without tags and options goes to, by its port."""
    run = plane.receive(data)
    assert run.verdict == XDP_PASS
    transport = 14 + (40 if data[12:14] == b"\x86\xdd" else 20)
    port = int.from_bytes(run.data[transport + 2 : transport + 4], "big")
    assert port >= 8000, "not balanced"
    return port - 8000


def clients(seed: int, count: int, *, ipv6: bool = False) -> list[Ends]:
    """Distinct random flows to the service."""
    dice = random.Random(seed)
    flows: dict[Ends, None] = {}
    while len(flows) < count:
        high, middle, low = dice.randrange(2), dice.randrange(256), dice.randrange(1, 256)
        ipv4 = f"198.{18 + high}.{middle}.{low}"
        address = f"2001:db8:1:{high:x}::{middle:x}:{low:x}" if ipv6 else ipv4
        ends = Ends(address, dice.randrange(1024, 65536), VIP6 if ipv6 else VIP4, 80)
        flows[ends] = None
    return list(flows)


def test_round_robin_follows_the_ring(plane: DataPlane) -> None:
    ring = serve(plane, Scheduler.ROUND_ROBIN, WEIGHTS)
    template = packets.Template(clients(1, 1)[0], "tcp")
    choices = [chosen(plane, template.between(ends)) for ends in clients(1, 10_000)]
    assert choices == [ring[turn % len(ring)] for turn in range(10_000)]
    assert Counter(choices) == {0: 1000, 1: 2000, 2: 3000, 3: 4000}


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_maglev_agrees_with_the_hash_and_the_shares(
    plane: DataPlane, ipv6: bool, udp: bool
) -> None:
    table = serve(plane, Scheduler.MAGLEV, WEIGHTS, ipv6=ipv6, udp=udp)
    flows = clients(2, 10_000, ipv6=ipv6)
    template = packets.Template(flows[0], "udp" if udp else "tcp")
    choices = [chosen(plane, template.between(ends)) for ends in flows]
    protocol = UDP if udp else TCP
    assert choices == [table[oracles.hash_flow(ends, protocol, len(table))] for ends in flows]
    for index, count in Counter(choices).items():
        assert abs(count / 10_000 - WEIGHTS[index] / sum(WEIGHTS)) < 0.02


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_source_hash_agrees_with_the_hash_of_the_client(plane: DataPlane, ipv6: bool) -> None:
    table = serve(plane, Scheduler.SOURCE_HASH, WEIGHTS, ipv6=ipv6)
    flows = clients(3, 3000, ipv6=ipv6)
    template = packets.Template(flows[0], "tcp")
    for ends in flows:
        first = chosen(plane, template.between(ends))
        assert first == table[oracles.hash_source(ends, len(table))]
        again = Ends(ends.source, ends.source_port ^ 1, ends.destination, 80)
        assert chosen(plane, template.between(again)) == first


@pytest.mark.parametrize(
    "weights",
    [(1000,), (1000, 1000, 1000), WEIGHTS, (1000, 0, 500, 0), (1, 1_000_000, 333_333)],
    ids=str,
)
def test_least_connections_always_takes_the_least_loaded(
    plane: DataPlane, weights: tuple[int, ...]
) -> None:
    """Flows begin and end at random; the slots are written here, so that some have weight 0."""
    dice = random.Random(4)
    serve(plane, Scheduler.LEAST_CONNECTIONS, weights)
    slots = list(enumerate(weights))
    plane.service(VIP4, 80, slots, scheduler=LEAST_CONNECTIONS)
    oracle = oracles.LeastConnections(weights)
    flows = clients(4, 3000)
    syn, fin = (packets.Template(flows[0], "tcp", flags) for flags in ("S", "FA"))
    living: list[tuple[Ends, int]] = []
    for ends in flows:
        if living and dice.random() < 0.45:
            gone, place = living.pop(dice.randrange(len(living)))
            plane.receive(fin.between(gone))
            oracle.close(place)
        expected = oracle.open()
        assert chosen(plane, syn.between(ends)) == expected
        living.append((ends, expected))
    assert [plane.active(index) for index in range(len(weights))] == oracle.active
    for ends, _ in living:
        plane.receive(fin.between(ends))
    assert [plane.active(index) for index in range(len(weights))] == [0] * len(weights)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    weights=st.lists(st.integers(0, 5000), min_size=1, max_size=12).filter(any),
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=40),
)
def test_least_connections_on_any_history(
    plane: DataPlane, weights: list[int], steps: list[int]
) -> None:
    """A step of 0 closes the oldest flow, everything else opens one."""
    plane.reset()
    serve(plane, Scheduler.LEAST_CONNECTIONS, [1] * len(weights))
    plane.service(VIP4, 80, list(enumerate(weights)), scheduler=LEAST_CONNECTIONS)
    oracle = oracles.LeastConnections(weights)
    living: list[tuple[Ends, int]] = []
    for port, step in enumerate(steps, start=2000):
        if step == 0 and living:
            ends, place = living.pop(0)
            plane.receive(packets.tcp(ends, "FA"))
            oracle.close(place)
        ends = Ends("192.0.2.1", port, VIP4, 80)
        living.append((ends, oracle.open()))
        assert chosen(plane, packets.tcp(ends)) == living[-1][1]


def test_least_connections_looks_at_every_backend(plane: DataPlane) -> None:
    """256 of them, the most a service has; the last one is the only one that is free."""
    count = 256
    for index in range(count):
        plane.backend(index, f"198.18.0.{index}", 8000 + index)
    slots = [(index, 1) for index in range(count)]
    plane.service(VIP4, 80, slots, scheduler=LEAST_CONNECTIONS)
    template = packets.Template(Ends("192.0.2.1", 1024, VIP4, 80), "tcp")
    flows = [Ends("192.0.2.1", port, VIP4, 80) for port in range(2000, 2000 + count + 1)]
    first = [chosen(plane, template.between(ends)) for ends in flows[:count]]
    assert first == list(range(count))
    fin = packets.Template(flows[0], "tcp", "FA")
    plane.receive(fin.between(flows[count - 1]))
    assert chosen(plane, template.between(flows[count])) == count - 1


def test_the_kernel_and_python_agree_on_the_limits(compiled: ProgramObject) -> None:
    assert compiled.maps["slot_map"].max_entries == MAX_SLOTS


def test_round_robin_is_exact_with_fetching_atomics() -> None:
    try:
        plane = DataPlane.of(compile_object((*FEATURES, "WITH_ATOMIC_FETCH")))
    except KernelError as error:
        if not _refuses_fetching_atomics(error):
            raise
        pytest.skip("this kernel has no fetching atomics (5.12)")
    try:
        ring = serve(plane, Scheduler.ROUND_ROBIN, (1000, 3000))
        flows = clients(5, 400)
        template = packets.Template(flows[0], "tcp")
        choices = [chosen(plane, template.between(ends)) for ends in flows]
    finally:
        plane.loaded.close()
    assert choices == [ring[turn % len(ring)] for turn in range(400)]


def _refuses_fetching_atomics(error: KernelError) -> bool:
    """The verifier's words before 5.12, where the instruction was XADD with a reserved field."""
    return "BPF_STX uses reserved fields" in error.hint


@pytest.mark.parametrize("feature", [None, *FEATURES[1:]])
@pytest.mark.parametrize("family", [(), ("WITH_IPV6",)], ids=["ipv4", "dual"])
def test_every_feature_alone_passes_the_verifier(
    feature: str | None, family: tuple[str, ...]
) -> None:
    DataPlane.of(compile_object((*family, feature) if feature else family)).loaded.close()
