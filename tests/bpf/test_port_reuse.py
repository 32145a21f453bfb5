"""A client port used again: for the same service, for another, or for the backend itself."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import packets
from tests.dataplane import COLLISION, XDP_DROP, XDP_PASS, DataPlane
from tests.packets import Ends

pytestmark = pytest.mark.bpf

VIP = ("198.51.100.10", 80)
OTHER_VIP = ("198.51.100.20", 80)
BACKENDS = [(f"203.0.113.{11 + number}", 8080) for number in range(4)]
CLIENT = Ends("192.0.2.7", 40000, *VIP)
CLIENT6 = Ends("2001:db8:1::7", 40000, "2001:db8:2::10", 80)
BACKEND6 = ("2001:db8:3::11", 8080)
FIN_WAIT_NS = 60 * 10**9


def client(port: int, service: tuple[str, int] = VIP) -> Ends:
    return Ends("192.0.2.7", port, *service)


@pytest.fixture
def two_services(plane: DataPlane) -> DataPlane:
    """Services 1 and 2 take turns over the same four backends; service 3 has IPv6."""
    for service, (address, port) in enumerate((VIP, OTHER_VIP), start=1):
        indices = range(4 * (service - 1), 4 * service)
        for index, backend in zip(indices, BACKENDS, strict=True):
            plane.backend(index, *backend, service=service)
        plane.service(address, port, [(index, 1) for index in indices], service_id=service)
    plane.backend(8, *BACKEND6, service=3)
    plane.service(CLIENT6.destination, 80, [(8, 1)], service_id=3)
    return plane


def connect(plane: DataPlane, ends: Ends) -> Ends:
    """A handshake; returns the flow as it goes to the backend that was chosen."""
    syn = packets.tcp(ends)
    run = plane.receive(syn)
    assert run.verdict == XDP_PASS
    candidates = [ends.to(*backend) for backend in (*BACKENDS, BACKEND6)]
    there = next(to for to in candidates if same_family(to) and run.data == packets.tcp(to))
    answer(plane, there, ends, "SA")
    plane.receive(packets.tcp(ends, "A"))
    return there


def same_family(ends: Ends) -> bool:
    return (":" in ends.source) == (":" in ends.destination)


def answer(plane: DataPlane, there: Ends, seen_as: Ends, flags: str) -> None:
    """A packet of the backend, and what the client must see of it."""
    out = plane.send(packets.tcp(there.reversed(), flags))
    assert out.data == packets.tcp(seen_as.reversed(), flags)


def close(plane: DataPlane, ends: Ends, there: Ends, how: str = "both") -> None:
    """Ends a connection: `both` sides by FIN, or one of them by FIN or by RST."""
    side, _, flags = how.partition(" ")
    if side in ("client", "both"):
        plane.receive(packets.tcp(ends, flags or "FA"))
    if side in ("backend", "both"):
        plane.send(packets.tcp(there.reversed(), flags or "FA"))


OVER = pytest.mark.parametrize("how", ["both", "client R", "backend R", "backend RA"])


@OVER
@pytest.mark.parametrize("ends", [CLIENT, CLIENT6], ids=["ipv4", "ipv6"])
def test_a_direct_connection_after_a_closed_flow_is_untouched(
    two_services: DataPlane, how: str, ends: Ends
) -> None:
    there = connect(two_services, ends)
    close(two_services, ends, there, how)
    syn = packets.tcp(there)
    assert two_services.receive(syn).data == syn
    answer(two_services, there, there, "SA")
    assert two_services.flow(ends, closing=True) is None
    assert two_services.reply(there) is None


def test_a_direct_syn_leaves_a_living_flow_alone(two_services: DataPlane) -> None:
    """Nobody could tell the two connections apart; what is established goes on."""
    there = connect(two_services, CLIENT)
    two_services.receive(packets.tcp(there))
    answer(two_services, there, CLIENT, "PA")
    assert two_services.active(0) == 1


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "R", "SF"])
def test_only_a_first_syn_gives_a_closed_flow_up(two_services: DataPlane, flags: str) -> None:
    there = connect(two_services, CLIENT)
    close(two_services, CLIENT, there)
    two_services.receive(packets.tcp(there, flags))
    answer(two_services, there, CLIENT, "A")


def test_what_an_evicted_flow_left_is_given_up_to_a_direct_connection(
    two_services: DataPlane,
) -> None:
    there = connect(two_services, CLIENT)
    two_services.forget(CLIENT)
    two_services.receive(packets.tcp(there))
    answer(two_services, there, there, "SA")


def test_a_direct_syn_spares_a_flow_that_moved_to_another_backend(
    two_services: DataPlane,
) -> None:
    """What points at the old backend is stale; the flow itself lives."""
    there = connect(two_services, CLIENT)
    two_services.forget(CLIENT)
    moved = connect(two_services, CLIENT)
    assert moved != there
    two_services.receive(packets.tcp(there))
    answer(two_services, there, there, "SA")
    answer(two_services, moved, CLIENT, "PA")
    assert two_services.flow(CLIENT) is not None


@pytest.mark.parametrize("how", ["client", "backend"])
@pytest.mark.parametrize("silent_ns", [FIN_WAIT_NS // 2, FIN_WAIT_NS * 2])
def test_a_flow_closed_by_one_side_lives_until_the_client_forgets_it(
    two_services: DataPlane, how: str, silent_ns: int
) -> None:
    there = connect(two_services, CLIENT)
    close(two_services, CLIENT, there, how)
    two_services.age(CLIENT, there, by_ns=silent_ns, closing=True)
    two_services.receive(packets.tcp(there))
    answer(two_services, there, CLIENT if silent_ns < FIN_WAIT_NS else there, "A")


@OVER
def test_another_service_takes_the_port_of_a_closed_flow(two_services: DataPlane, how: str) -> None:
    """What is late of the old connection goes up: it must not get into the new one."""
    there = connect(two_services, CLIENT)
    close(two_services, CLIENT, there, how)
    other = client(CLIENT.source_port, OTHER_VIP)
    assert connect(two_services, other) == there
    late = packets.tcp(CLIENT, "FA")
    assert two_services.receive(late).data == late
    answer(two_services, there, other, "PA")
    assert two_services.events(COLLISION) == 0


def test_one_backend_for_two_services_serves_a_port_again_and_again(plane: DataPlane) -> None:
    for index, address in enumerate((VIP, OTHER_VIP)):
        plane.backend(index, *BACKENDS[0], service=index)
        plane.service(*address, [(index, 1)], service_id=index)
    for turn in range(6):
        ends = client(40000, (VIP, OTHER_VIP)[turn % 2])
        close(plane, ends, connect(plane, ends))
    assert plane.events(COLLISION) == 0
    assert [plane.active(index) for index in (0, 1)] == [0, 0]


def test_round_robin_stays_exact_for_ports_that_used_another_service(
    two_services: DataPlane,
) -> None:
    """One after the other, with the same ports: each service has its own exact turns."""
    for first_port, address in ((40000, VIP), (40000, OTHER_VIP), (40001, VIP)):
        chosen = []
        for port in range(first_port, first_port + 100):
            ends = client(port, address)
            there = connect(two_services, ends)
            chosen.append((there.destination, there.destination_port))
            close(two_services, ends, there)
        assert chosen == [BACKENDS[turn % 4] for turn in range(100)]
        assert set(Counter(chosen).values()) == {25}
    assert two_services.events(COLLISION) == 0


def test_a_syn_repeated_after_the_clients_reset_stays_with_its_backend(
    two_services: DataPlane,
) -> None:
    """The backend's TIME_WAIT answers with an ACK; the client resets that and repeats its SYN."""
    there = CLIENT.to(*BACKENDS[0])
    for _ in range(3):
        assert two_services.receive(packets.tcp(CLIENT)).data == packets.tcp(there)
        assert two_services.active(0) == 1
        answer(two_services, there, CLIENT, "A")
        assert two_services.receive(packets.tcp(CLIENT, "R")).data == packets.tcp(there, "R")
        assert two_services.active(0) == 0
    assert connect(two_services, CLIENT) == there
    assert two_services.active(0) == 1
    assert two_services.counters(0)["new_flows"] == 1
    assert two_services.flow(CLIENT, closing=True) is None
    flow = two_services.flow(CLIENT)
    assert flow is not None
    assert (flow.state, flow.client_closed, flow.backend_closed) == (1, 0, 0)


@pytest.mark.parametrize("how", ["backend RA", "client FA"])
def test_a_refused_or_finished_connection_gets_a_new_turn(
    two_services: DataPlane, how: str
) -> None:
    there = CLIENT.to(*BACKENDS[0])
    assert two_services.receive(packets.tcp(CLIENT)).data == packets.tcp(there)
    close(two_services, CLIENT, there, how)
    assert connect(two_services, CLIENT) == CLIENT.to(*BACKENDS[1])


def test_a_reset_flow_whose_backend_went_down_gets_a_new_turn(two_services: DataPlane) -> None:
    two_services.receive(packets.tcp(CLIENT))
    two_services.receive(packets.tcp(CLIENT, "R"))
    two_services.backend(0, *BACKENDS[0], flags=0)
    assert connect(two_services, CLIENT) == CLIENT.to(*BACKENDS[1])


def test_a_collision_looks_past_the_slots_of_the_backend_that_is_taken(plane: DataPlane) -> None:
    """Schedules repeat backends: 20 times in a row here, and only then another."""
    plane.backend(0, *BACKENDS[0], service=1)
    plane.service(*VIP, [(0, 1)], service_id=1)
    plane.backend(1, *BACKENDS[0], service=2)
    plane.backend(2, *BACKENDS[1], service=2)
    plane.service(*OTHER_VIP, [(1, 1)] * 20 + [(2, 1)], service_id=2)
    connect(plane, CLIENT)
    assert connect(plane, client(CLIENT.source_port, OTHER_VIP)).destination == BACKENDS[1][0]
    assert plane.events(COLLISION) == 0


def test_a_backend_that_many_slots_repeat_is_tried_once(plane: DataPlane) -> None:
    plane.backend(0, *BACKENDS[0], service=1)
    plane.service(*VIP, [(0, 1)], service_id=1)
    plane.backend(1, *BACKENDS[0], service=2)
    plane.service(*OTHER_VIP, [(1, 1)] * 65, service_id=2)
    connect(plane, CLIENT)
    data = packets.tcp(client(CLIENT.source_port, OTHER_VIP))
    run = plane.receive(data)
    assert (run.verdict, run.data) == (XDP_DROP, data)
    assert plane.events(COLLISION) == 1
