"""Idle flows, swept by `shaper.kernel.flows` through the real program."""

from __future__ import annotations

import pytest

from shaper.kernel.flows import FlowTimeouts, SweepResult, count_flows, sweep_flows
from tests import packets
from tests.dataplane import TCP, UDP, DataPlane
from tests.packets import Ends

pytestmark = pytest.mark.bpf

ENDS = Ends("192.0.2.7", 40000, "198.51.100.10", 80)
BACKEND = ("203.0.113.11", 8080)
THERE = ENDS.to(*BACKEND)
SECOND_NS = 10**9
TIMEOUTS = FlowTimeouts(
    syn_ns=10 * SECOND_NS,
    established_ns=40 * SECOND_NS,
    closing_ns=20 * SECOND_NS,
    over_ns=15 * SECOND_NS,
    udp_ns=30 * SECOND_NS,
)


@pytest.fixture
def service(plane: DataPlane) -> DataPlane:
    plane.backend(0, *BACKEND)
    plane.service(ENDS.destination, 80, [(0, 1)])
    plane.service(ENDS.destination, 80, [(0, 1)], protocol=UDP)
    return plane


def begin(service: DataPlane, state: str) -> tuple[int, bool]:
    """Brings the flow into a state; returns its protocol and whether it is closing."""
    if state == "udp":
        service.receive(packets.udp(ENDS))
        return UDP, False
    service.receive(packets.tcp(ENDS))
    if state != "syn":
        service.receive(packets.tcp(ENDS, "A"))
    if state in ("closing", "closed"):
        service.receive(packets.tcp(ENDS, "FA"))
    if state == "closed":
        service.send(packets.tcp(THERE.reversed(), "FA"))
    if state == "reset":
        service.send(packets.tcp(THERE.reversed(), "R"))
    return TCP, state in ("closing", "closed", "reset")


@pytest.mark.parametrize(
    ("state", "timeout_ns"),
    [
        ("syn", TIMEOUTS.syn_ns),
        ("established", TIMEOUTS.established_ns),
        ("closing", TIMEOUTS.closing_ns),
        ("closed", TIMEOUTS.over_ns),
        ("reset", TIMEOUTS.over_ns),
        ("udp", TIMEOUTS.udp_ns),
    ],
)
def test_each_state_has_its_timeout(service: DataPlane, state: str, timeout_ns: int) -> None:
    protocol, closing = begin(service, state)
    service.age(ENDS, THERE, protocol, by_ns=timeout_ns - 5 * SECOND_NS, closing=closing)
    assert sweep_flows(service.loaded, TIMEOUTS) == SweepResult(seen=1, idle=0, removed=0)
    assert service.active(0) == (0 if closing else 1)
    service.age(ENDS, THERE, protocol, by_ns=5 * SECOND_NS, closing=closing)
    assert sweep_flows(service.loaded, TIMEOUTS) == SweepResult(seen=1, idle=1, removed=1)
    assert service.active(0) == 0
    assert service.flow(ENDS, protocol, closing=closing) is None
    assert service.reply(THERE, protocol) is None


def test_a_flow_whose_backend_still_talks_is_kept(service: DataPlane) -> None:
    begin(service, "udp")
    service.age(ENDS, THERE, UDP, by_ns=100 * SECOND_NS)
    service.send(packets.udp(THERE.reversed()))
    assert sweep_flows(service.loaded, TIMEOUTS) == SweepResult(seen=1, idle=1, removed=0)
    assert service.active(0) == 1


def test_a_packet_from_the_client_keeps_the_flow(service: DataPlane) -> None:
    begin(service, "udp")
    service.age(ENDS, THERE, UDP, by_ns=100 * SECOND_NS)
    service.receive(packets.udp(ENDS))
    assert sweep_flows(service.loaded, TIMEOUTS) == SweepResult(seen=1, idle=0, removed=0)


def test_many_flows_are_swept_and_counted(service: DataPlane) -> None:
    """More than one run of the program takes, more than one bucket of the table."""
    clients = [Ends("192.0.2.9", port, ENDS.destination, 80) for port in range(20000, 21000)]
    for client in clients:
        service.receive(packets.udp(client, payload=b""))
    service.receive(packets.tcp(ENDS))
    counts = count_flows(service.loaded)
    assert (counts.open, counts.closing, counts.by_backend) == (1001, 0, {0: 1001})
    assert service.active(0) == 1001
    for client in clients[:700]:
        service.age(client, client.to(*BACKEND), UDP, by_ns=100 * SECOND_NS)
    assert sweep_flows(service.loaded, TIMEOUTS) == SweepResult(seen=1001, idle=700, removed=700)
    assert service.active(0) == 301
    assert count_flows(service.loaded).by_backend == {0: 301}


def test_an_empty_table_has_nothing_to_sweep(plane: DataPlane) -> None:
    assert sweep_flows(plane.loaded, TIMEOUTS) == SweepResult(seen=0, idle=0, removed=0)
    assert count_flows(plane.loaded).by_backend == {}


def test_replies_without_a_flow_are_swept(service: DataPlane) -> None:
    """What an eviction from flow_map or closing_map leaves; what has a flow stays, however old."""
    clients = [Ends("192.0.2.9", port, ENDS.destination, 80) for port in range(20000, 20100)]
    for client in (*clients, ENDS):
        service.receive(packets.udp(client))
        service.age(client, client.to(*BACKEND), UDP, by_ns=TIMEOUTS.over_ns + 5 * SECOND_NS)
    for client in clients[:70]:
        service.forget(client, UDP)
    assert sweep_flows(service.loaded, TIMEOUTS).orphans == 70
    left = [service.reply(client.to(*BACKEND), UDP) is not None for client in (*clients, ENDS)]
    assert left == [False] * 70 + [True] * 31


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
def test_a_reply_with_a_flow_is_kept(service: DataPlane, closing: bool) -> None:
    begin(service, "closing" if closing else "established")
    service.age_reply(THERE, by_ns=100 * SECOND_NS)
    assert sweep_flows(service.loaded, TIMEOUTS).orphans == 0
    assert service.reply(THERE) is not None


def test_a_reply_of_a_flow_that_moved_to_another_backend_is_swept(service: DataPlane) -> None:
    begin(service, "established")
    service.forget(ENDS)
    service.backend(1, "203.0.113.12", 8080)
    service.service(ENDS.destination, 80, [(1, 1)])
    service.receive(packets.tcp(ENDS))
    service.age_reply(THERE, by_ns=100 * SECOND_NS)
    service.age_reply(ENDS.to("203.0.113.12", 8080), by_ns=100 * SECOND_NS)
    assert sweep_flows(service.loaded, TIMEOUTS).orphans == 1
    assert service.reply(THERE) is None
    assert service.reply(ENDS.to("203.0.113.12", 8080)) is not None


def test_a_reply_without_a_flow_that_the_backend_uses_is_kept(service: DataPlane) -> None:
    """It may also be that of a flow in the making."""
    begin(service, "udp")
    service.forget(ENDS, UDP)
    assert sweep_flows(service.loaded, TIMEOUTS).orphans == 0
    service.age_reply(THERE, UDP, by_ns=100 * SECOND_NS)
    service.send(packets.udp(THERE.reversed()))
    assert sweep_flows(service.loaded, TIMEOUTS).orphans == 0
    assert service.reply(THERE, UDP) is not None
