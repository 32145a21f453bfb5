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
    if state in ("established", "closing"):
        service.receive(packets.tcp(ENDS, "A"))
    if state == "closing":
        service.receive(packets.tcp(ENDS, "FA"))
    return TCP, state == "closing"


@pytest.mark.parametrize(
    ("state", "timeout_ns"),
    [
        ("syn", TIMEOUTS.syn_ns),
        ("established", TIMEOUTS.established_ns),
        ("closing", TIMEOUTS.closing_ns),
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
