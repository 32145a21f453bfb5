"""The life of flows: counted once, followed whatever changes, moved only where they must be."""

from __future__ import annotations

import pytest

from tests import packets
from tests.dataplane import (
    ACCEPTS,
    COLLISION,
    DROP,
    LEAST_CONNECTIONS,
    MAGLEV,
    NO_FLOW,
    ROUND_ROBIN,
    SOURCE_HASH,
    TC_UNSPEC,
    UDP,
    UNAVAILABLE,
    UP,
    XDP_DROP,
    XDP_PASS,
    DataPlane,
)
from tests.dataplane import TCP as TCP_NUMBER
from tests.packets import Ends

pytestmark = pytest.mark.bpf

ENDS = Ends("192.0.2.7", 40000, "198.51.100.10", 80)
ENDS6 = Ends("2001:db8:1::7", 40000, "2001:db8:2::10", 80)
BACKENDS = [("203.0.113.11", 8080), ("203.0.113.12", 8081), ("203.0.113.13", 8082)]
BACKENDS6 = [("2001:db8:3::11", 8080), ("2001:db8:3::12", 8081)]
SECOND_NS = 10**9


def to_backend(plane: DataPlane, data: bytes) -> tuple[int, bytes]:
    run = plane.receive(data)
    return run.verdict, run.data


@pytest.fixture
def service(plane: DataPlane) -> DataPlane:
    """Three backends in turn, for TCP and UDP; two for IPv6."""
    for index, backend in enumerate(BACKENDS):
        plane.backend(index, *backend)
    for index, backend in enumerate(BACKENDS6, start=3):
        plane.backend(index, *backend)
    for protocol in (TCP_NUMBER, UDP):
        plane.service(ENDS.destination, 80, [(0, 1), (1, 1), (2, 1)], protocol=protocol)
        plane.service(ENDS6.destination, 80, [(3, 1), (4, 1)], protocol=protocol, service_id=2)
    return plane


def opened(service: DataPlane, ends: Ends = ENDS, backend: tuple[str, int] = BACKENDS[0]) -> Ends:
    """Sends a SYN, checks that it goes to `backend`, returns the flow as it goes there."""
    there = ends.to(*backend)
    assert to_backend(service, packets.tcp(ends)) == (XDP_PASS, packets.tcp(there))
    return there


@pytest.mark.parametrize("flags", ["FA", "R", "RA"])
@pytest.mark.parametrize(
    ("ends", "backend", "index"), [(ENDS, BACKENDS[0], 0), (ENDS6, BACKENDS6[0], 3)]
)
@pytest.mark.parametrize("side", ["client", "backend"])
def test_closing_by_either_side_takes_the_flow_out_of_the_count(
    service: DataPlane, ends: Ends, backend: tuple[str, int], index: int, side: str, flags: str
) -> None:
    there = opened(service, ends, backend)
    assert service.active(index) == 1
    if side == "client":
        assert service.receive(packets.tcp(ends, flags)).data == packets.tcp(there, flags)
    else:
        out = service.send(packets.tcp(there.reversed(), flags))
        assert out.data == packets.tcp(ends.reversed(), flags)
    assert service.active(index) == 0
    assert service.flow(ends) is None
    assert service.flow(ends, closing=True) is not None


def test_a_close_by_both_sides_counts_once(service: DataPlane) -> None:
    there = opened(service)
    opened(service, Ends("192.0.2.8", 40000, "198.51.100.10", 80), BACKENDS[1])
    service.send(packets.tcp(there.reversed(), "FA"))
    service.receive(packets.tcp(ENDS, "FA"))
    service.receive(packets.tcp(ENDS, "R"))
    service.send(packets.tcp(there.reversed(), "R"))
    assert [service.active(index) for index in range(3)] == [0, 1, 0]


def test_the_rest_of_a_closing_flow_still_passes_both_ways(service: DataPlane) -> None:
    there = opened(service)
    service.receive(packets.tcp(ENDS, "FA"))
    assert service.receive(packets.tcp(ENDS, "A")).data == packets.tcp(there, "A")
    out = service.send(packets.tcp(there.reversed(), "PA"))
    assert out.data == packets.tcp(ENDS.reversed(), "PA")


def test_a_port_used_again_after_a_close_is_a_new_flow(service: DataPlane) -> None:
    opened(service)
    service.receive(packets.tcp(ENDS, "FA"))
    there = opened(service, ENDS, BACKENDS[1])
    assert [service.active(index) for index in range(3)] == [0, 1, 0]
    assert service.flow(ENDS, closing=True) is None
    assert service.reply(ENDS.to(*BACKENDS[0])) is None
    assert service.reply(there) is not None


def test_a_repeated_syn_stays_with_its_backend(service: DataPlane) -> None:
    opened(service)
    for _ in range(5):
        opened(service)
    assert service.active(0) == 1
    assert service.counters(0)["new_flows"] == 1


def test_the_clients_first_ack_establishes_the_flow(service: DataPlane) -> None:
    opened(service)
    flow = service.flow(ENDS)
    assert flow is not None
    assert flow.state == 0
    service.receive(packets.tcp(ENDS, "A"))
    flow = service.flow(ENDS)
    assert flow is not None
    assert flow.state == 1


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "SA", "SF", "SR"])
def test_tcp_that_no_flow_knows_goes_up_untouched(service: DataPlane, flags: str) -> None:
    data = packets.tcp(ENDS, flags)
    assert to_backend(service, data) == (XDP_PASS, data)
    assert service.events(NO_FLOW) == 1
    assert service.flow(ENDS) is None


@pytest.mark.parametrize("scheduler", [MAGLEV, SOURCE_HASH])
def test_hash_schedulers_find_the_backend_of_an_unknown_flow(
    plane: DataPlane, scheduler: int
) -> None:
    plane.backend(0, *BACKENDS[0])
    plane.service(ENDS.destination, 80, [(0, 1)] * 7, scheduler=scheduler)
    there = ENDS.to(*BACKENDS[0])
    assert plane.receive(packets.tcp(ENDS, "A")).data == packets.tcp(there, "A")
    flow = plane.flow(ENDS)
    assert flow is not None
    assert flow.state == 1
    plane.receive(packets.tcp(ENDS, "FA"))
    assert plane.active(0) == 0


def test_a_drained_backend_keeps_its_flows_and_gets_no_new_one(service: DataPlane) -> None:
    opened(service)
    service.backend(0, *BACKENDS[0], flags=UP)
    opened(service)
    service.receive(packets.tcp(ENDS, "A"))
    assert service.active(0) == 1
    for client in range(6):
        service.receive(packets.tcp(Ends(f"192.0.2.{10 + client}", 5, ENDS.destination, 80)))
    assert service.counters(0)["new_flows"] == 1
    assert service.active(1) + service.active(2) == 6


def test_a_syn_leaves_a_backend_that_is_down(service: DataPlane) -> None:
    opened(service)
    service.backend(0, *BACKENDS[0], flags=ACCEPTS)
    opened(service, ENDS, BACKENDS[1])
    assert [service.active(index) for index in range(3)] == [0, 1, 0]
    assert service.reply(ENDS.to(*BACKENDS[0])) is None


def test_an_established_connection_stays_with_a_backend_that_is_down(service: DataPlane) -> None:
    there = opened(service)
    service.receive(packets.tcp(ENDS, "A"))
    service.backend(0, *BACKENDS[0], flags=0)
    assert service.receive(packets.tcp(ENDS, "PA")).data == packets.tcp(there, "PA")


def test_udp_leaves_a_backend_that_is_down(service: DataPlane) -> None:
    service.receive(packets.udp(ENDS))
    assert service.active(0) == 1
    service.backend(0, *BACKENDS[0], flags=0)
    run = service.receive(packets.udp(ENDS))
    assert run.data == packets.udp(ENDS.to(*BACKENDS[1]))
    assert [service.active(index) for index in range(3)] == [0, 1, 0]


def test_a_flow_whose_backend_was_taken_away_is_forgotten(service: DataPlane) -> None:
    opened(service)
    service.backend(0, *BACKENDS[0], service=7)
    data = packets.tcp(ENDS, "A")
    assert to_backend(service, data) == (XDP_PASS, data)
    assert service.flow(ENDS) is None
    assert service.active(0) == 0


# One client port, two services that share a backend: behind the gateway both look the same.

SHARED = ("203.0.113.50", 9000)
OTHER = Ends(ENDS.source, ENDS.source_port, "198.51.100.20", 80)


def sharing(plane: DataPlane, *second: tuple[str, int]) -> DataPlane:
    """Service 1 has only the shared backend; service 2 has it too, before those in `second`."""
    plane.backend(0, *SHARED)
    plane.service(ENDS.destination, 80, [(0, 1)])
    plane.backend(1, *SHARED, service=2)
    for index, backend in enumerate(second, start=2):
        plane.backend(index, *backend, service=2)
    slots = [(index, 1) for index in range(1, 2 + len(second))]
    plane.service(OTHER.destination, 80, slots, service_id=2)
    opened(plane, ENDS, SHARED)
    return plane


def test_a_collision_goes_to_another_backend(plane: DataPlane) -> None:
    sharing(plane, BACKENDS[0])
    there = opened(plane, OTHER, BACKENDS[0])
    out = plane.send(packets.tcp(there.reversed(), "SA"))
    assert out.data == packets.tcp(OTHER.reversed(), "SA")
    out = plane.send(packets.tcp(ENDS.to(*SHARED).reversed(), "SA"))
    assert out.data == packets.tcp(ENDS.reversed(), "SA")


def test_a_collision_without_another_backend_is_dropped(plane: DataPlane) -> None:
    sharing(plane)
    data = packets.tcp(OTHER)
    assert to_backend(plane, data) == (XDP_DROP, data)
    assert plane.events(COLLISION) == 1
    assert plane.active(1) == 0


def test_a_flow_that_one_side_closed_still_collides(plane: DataPlane) -> None:
    sharing(plane)
    plane.receive(packets.tcp(ENDS, "FA"))
    assert plane.receive(packets.tcp(OTHER)).verdict == XDP_DROP


def test_what_an_evicted_flow_left_is_taken_over(plane: DataPlane) -> None:
    sharing(plane)
    plane.forget(ENDS)
    there = opened(plane, OTHER, SHARED)
    out = plane.send(packets.tcp(there.reversed(), "SA"))
    assert out.data == packets.tcp(OTHER.reversed(), "SA")


def test_a_reply_that_became_another_flows_is_not_removed(plane: DataPlane) -> None:
    """The first flow's reply entry was evicted; its end must not hurt the flow that came after."""
    sharing(plane)
    plane.forget_reply(ENDS.to(*SHARED))
    there = opened(plane, OTHER, SHARED)
    plane.backend(0, *SHARED, flags=0)
    plane.receive(packets.tcp(ENDS))
    out = plane.send(packets.tcp(there.reversed(), "SA"))
    assert out.data == packets.tcp(OTHER.reversed(), "SA")


@pytest.mark.parametrize("scheduler", [ROUND_ROBIN, LEAST_CONNECTIONS, MAGLEV, SOURCE_HASH])
@pytest.mark.parametrize(("unavailable", "verdict"), [(0, XDP_PASS), (DROP, XDP_DROP)])
@pytest.mark.parametrize("slots", [[], [(0, 1)], [(1, 0)]], ids=["none", "not-up", "weight-0"])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_without_a_backend_new_flows_get_what_unavailable_says(
    plane: DataPlane,
    scheduler: int,
    unavailable: int,
    verdict: int,
    slots: list[tuple[int, int]],
    build: packets.Builder,
) -> None:
    plane.backend(0, *BACKENDS[0], flags=ACCEPTS)
    plane.backend(1, *BACKENDS[1])
    plane.service(
        ENDS.destination,
        80,
        slots,
        scheduler=scheduler,
        unavailable=unavailable,
        protocol=UDP if build is packets.udp else TCP_NUMBER,
    )
    data = build(ENDS)
    assert to_backend(plane, data) == (verdict, data)
    assert plane.events(UNAVAILABLE) == 1
    assert [plane.active(index) for index in (0, 1)] == [0, 0]


def test_a_service_with_two_ports_shares_backends_and_turns(plane: DataPlane) -> None:
    for index, backend in enumerate(BACKENDS[:2]):
        plane.backend(index, *backend)
    plane.service(ENDS.destination, 80, [(0, 1), (1, 1)])
    plane.service(ENDS.destination, 443, [(0, 1), (1, 1)])
    opened(plane, ENDS, BACKENDS[0])
    opened(plane, Ends(ENDS.source, 50000, ENDS.destination, 443), BACKENDS[1])


def test_a_reply_of_no_flow_is_untouched(service: DataPlane) -> None:
    data = packets.tcp(ENDS.to(*BACKENDS[0]).reversed(), "SA")
    out = service.send(data)
    assert (out.verdict, out.data, out.priority) == (TC_UNSPEC, data, 0)


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize(
    ("ends", "backend"), [(ENDS, BACKENDS[0]), (ENDS6, BACKENDS6[0])], ids=["ipv4", "ipv6"]
)
def test_a_lost_reply_is_made_again_by_a_packet_of_the_client(
    service: DataPlane, ends: Ends, backend: tuple[str, int], closing: bool
) -> None:
    """At most a second later: until then the answers pass as they are."""
    there = opened(service, ends, backend)
    if closing:
        service.receive(packets.tcp(ends, "FA"))
    before = service.reply(there)
    service.age(ends, there, by_ns=2 * SECOND_NS, closing=closing)
    service.forget_reply(there)
    assert service.send(packets.tcp(there.reversed(), "A")).data == packets.tcp(
        there.reversed(), "A"
    )
    assert service.receive(packets.tcp(ends, "A")).data == packets.tcp(there, "A")
    assert service.send(packets.tcp(there.reversed(), "A")).data == packets.tcp(
        ends.reversed(), "A"
    )
    after = service.reply(there)
    assert before is not None
    assert after is not None
    assert (after.backend, after.service) == (before.backend, before.service)


def test_a_reply_that_another_living_flow_has_now_is_left_to_it(service: DataPlane) -> None:
    """Two services share the backend; the second one came while the first one's entry was lost."""
    there = opened(service)
    service.age(ENDS, there, by_ns=2 * SECOND_NS)
    service.forget_reply(there)
    service.backend(5, *BACKENDS[0], service=3)
    service.service("198.51.100.30", 80, [(5, 1)], service_id=3)
    other = Ends(ENDS.source, ENDS.source_port, "198.51.100.30", 80)
    opened(service, other)
    service.receive(packets.tcp(ENDS, "A"))
    assert service.send(packets.tcp(there.reversed(), "A")).data == packets.tcp(
        other.reversed(), "A"
    )
