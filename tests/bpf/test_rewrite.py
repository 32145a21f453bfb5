"""Whole frames through xdp_balance and classify_client, compared with frames built from scratch."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import packets
from tests.dataplane import FRAGMENT, TC_UNSPEC, TCP, UDP, XDP_PASS, DataPlane
from tests.packets import Builder, Ends

pytestmark = pytest.mark.bpf

IPV4 = Ends("192.0.2.7", 40000, "198.51.100.10", 80)
IPV6 = Ends("2001:db8:1::7", 40000, "2001:db8:2::10", 80)
BACKEND_IPV4 = ("203.0.113.11", 8080)
BACKEND_IPV6 = ("2001:db8:3::11", 8080)

FAMILIES = [
    pytest.param(IPV4, BACKEND_IPV4, id="ipv4"),
    pytest.param(IPV6, BACKEND_IPV6, id="ipv6"),
]
TRANSLATED = [
    pytest.param(ends, backend, build, id=f"{family}-{name}")
    for family, ends, backend, builders in (
        ("ipv4", IPV4, BACKEND_IPV4, packets.TRANSLATED_IPV4),
        ("ipv6", IPV6, BACKEND_IPV6, packets.TRANSLATED_IPV6),
    )
    for name, build in builders.items()
]
UNTOUCHED = [
    pytest.param(ends, build, id=f"{family}-{name}")
    for family, ends, builders in (
        ("ipv4", IPV4, packets.UNTOUCHED),
        ("ipv6", IPV6, packets.UNTOUCHED_IPV6),
    )
    for name, build in builders.items()
]


@pytest.fixture
def service(plane: DataPlane) -> DataPlane:
    """TCP and UDP services on both families, one backend each, with a class."""
    for index, (ends, backend) in enumerate(((IPV4, BACKEND_IPV4), (IPV6, BACKEND_IPV6))):
        plane.backend(index, *backend)
        for protocol in (TCP, UDP):
            plane.service(ends.destination, ends.destination_port, [(index, 1)], protocol=protocol)
    plane.classes(default=0x53480002, services={1: 0x53480010})
    return plane


@pytest.mark.parametrize(("ends", "backend", "build"), TRANSLATED)
def test_balance_rewrites_the_destination(
    service: DataPlane, ends: Ends, backend: tuple[str, int], build: Builder
) -> None:
    run = service.receive(build(ends))
    assert run.verdict == XDP_PASS
    assert run.data == build(ends.to(*backend))


@pytest.mark.parametrize(("ends", "backend", "build"), TRANSLATED)
def test_classify_restores_the_source_and_sets_the_class(
    service: DataPlane, ends: Ends, backend: tuple[str, int], build: Builder
) -> None:
    service.receive(build(ends))
    out = service.send(build(ends.to(*backend).reversed()))
    assert out.data == build(ends.reversed())
    assert (out.verdict, out.priority) == (TC_UNSPEC, 0x53480010)


@pytest.mark.parametrize(("ends", "backend", "build"), TRANSLATED)
def test_classify_backend_sets_the_class_only(
    service: DataPlane, ends: Ends, backend: tuple[str, int], build: Builder
) -> None:
    routed = service.receive(build(ends)).data
    assert routed == build(ends.to(*backend))
    out = service.send(routed, program="classify_backend")
    assert (out.verdict, out.priority, out.data) == (TC_UNSPEC, 0x53480010, routed)


@pytest.mark.parametrize(("ends", "build"), UNTOUCHED)
def test_packets_that_are_not_for_the_service_are_untouched(
    service: DataPlane, ends: Ends, build: Builder
) -> None:
    data = build(ends)
    run = service.receive(data)
    assert (run.verdict, run.data) == (XDP_PASS, data)
    priority = 0x53480000 if build is packets.arp else 0x53480002
    for program in ("classify_client", "classify_backend"):
        out = service.send(data, program=program)
        assert (out.verdict, out.data, out.priority) == (TC_UNSPEC, data, priority)
    assert [service.active(index) for index in (0, 1)] == [0, 0]


@pytest.mark.parametrize("message", packets.NEIGHBOUR_DISCOVERY, ids=lambda build: build.__name__)
def test_neighbours_are_found_past_all_classes(service: DataPlane, message: Builder) -> None:
    """By HTB's direct queue; a ping is of the default class."""
    for build, priority in ((message, 0x53480000), (packets.ping6, 0x53480002)):
        out = service.send(build(IPV6), program="classify_backend")
        assert (out.verdict, out.data, out.priority) == (TC_UNSPEC, build(IPV6), priority)


@pytest.mark.parametrize(("ends", "backend", "build"), TRANSLATED)
def test_packets_for_another_port_or_address_are_untouched(
    service: DataPlane, ends: Ends, backend: tuple[str, int], build: Builder
) -> None:
    for other in (ends.to(ends.destination, 81), ends.to(backend[0], ends.destination_port)):
        data = build(other)
        run = service.receive(data)
        assert (run.verdict, run.data) == (XDP_PASS, data)


@pytest.mark.parametrize(("ends", "backend", "build"), TRANSLATED)
def test_every_truncation_is_untouched_or_rewritten(
    service: DataPlane, ends: Ends, backend: tuple[str, int], build: Builder
) -> None:
    """Only Ethernet's padding may be missing from a packet that is translated."""
    whole, translated = build(ends), build(ends.to(*backend))
    end = len(packets.tcp_without_payload(ends)) if build is packets.padded else len(whole)
    for length in range(14, len(whole)):
        run = service.receive(whole[:length])
        expected = translated if length >= end else whole
        assert (run.verdict, run.data) == (XDP_PASS, expected[:length]), f"{length} bytes"


@pytest.mark.parametrize(("ends", "backend"), FAMILIES)
def test_a_udp_checksum_that_becomes_zero_is_sent_as_ones(
    service: DataPlane, ends: Ends, backend: tuple[str, int]
) -> None:
    data = packets.udp_with_sum_zero(ends, ends.to(*backend))
    run = service.receive(data)
    assert run.data[-4:-2] == b"\xff\xff"  # the checksum stands before two bytes of payload
    back = service.send(packets.udp_with_sum_zero(ends.to(*backend).reversed(), ends.reversed()))
    assert back.data[-4:-2] == b"\xff\xff"


def addresses(prefix: str) -> st.SearchStrategy[str]:
    """Any address of a prefix: its bits decide which way the checksums carry."""
    network = ip_network(prefix)
    return st.integers(1, network.num_addresses - 2).map(lambda host: str(network[host]))


@pytest.mark.parametrize("prefix", ["198.18.0.0/15", "2001:db8::/32"])
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_checksums_are_right_for_any_addresses_and_ports(
    plane: DataPlane, prefix: str, data: st.DataObject
) -> None:
    hosts = data.draw(st.lists(addresses(prefix), min_size=3, max_size=3, unique=True))
    ports = data.draw(st.lists(st.integers(1, 65535), min_size=3, max_size=3))
    protocol = data.draw(st.sampled_from([TCP, UDP]))
    build: Builder = packets.tcp if protocol == TCP else packets.udp
    ends = Ends(hosts[0], ports[0], hosts[1], ports[1])
    there = ends.to(hosts[2], ports[2])
    plane.reset()
    plane.backend(0, hosts[2], ports[2])
    plane.service(hosts[1], ports[1], [(0, 1)], protocol=protocol)
    assert plane.receive(build(ends)).data == build(there)
    out = plane.send(build(there.reversed()))
    assert (out.verdict, out.data) == (TC_UNSPEC, build(ends.reversed()))


@pytest.mark.parametrize(("ends", "backend"), FAMILIES)
def test_a_wrong_checksum_stays_wrong(
    service: DataPlane, ends: Ends, backend: tuple[str, int]
) -> None:
    data = bytearray(packets.tcp(ends))
    data[-1] ^= 0x55
    out = service.receive(bytes(data)).data
    assert out[:-1] == packets.tcp(ends.to(*backend))[:-1]
    assert not packets.checksums_verify(out)


@pytest.mark.parametrize(("ends", "backend"), FAMILIES)
def test_first_fragments_are_counted(
    service: DataPlane, ends: Ends, backend: tuple[str, int]
) -> None:
    service.receive(packets.first_fragment(ends))
    service.receive(packets.later_fragment(ends))
    service.receive(packets.first_fragment(ends.to(*backend)))
    assert service.events(FRAGMENT) == 1


def test_an_ipv4_mapped_address_in_ipv6_is_not_ipv4(service: DataPlane) -> None:
    data = packets.tcp(Ends("2001:db8::1", 40000, f"::ffff:{IPV4.destination}", 80))
    assert service.receive(data).data == data
    assert service.active(0) == 0


def test_a_class_that_somebody_gave_is_kept(service: DataPlane) -> None:
    data = packets.tcp(IPV4.to("203.0.113.99", 9))
    assert service.send(data, priority=0x53480077).priority == 0x53480077
    assert service.send(data, priority=6).priority == 0x53480002
    service.classes(default=0)
    assert service.send(data, priority=6).priority == 6


def test_a_service_without_a_class_gets_the_default(service: DataPlane) -> None:
    service.classes(default=0x53480002, services={1: 0})
    service.receive(packets.tcp(IPV4))
    out = service.send(packets.tcp(IPV4.to(*BACKEND_IPV4).reversed(), "SA"))
    assert out.priority == 0x53480002


@pytest.mark.parametrize(("ends", "backend"), FAMILIES)
def test_counters_hold_packets_and_bytes_of_both_directions(
    service: DataPlane, ends: Ends, backend: tuple[str, int]
) -> None:
    index = 0 if ends is IPV4 else 1
    request = packets.tcp(ends)
    answer = packets.tcp(ends.to(*backend).reversed(), "SA")
    service.receive(request)
    service.receive(request)
    service.send(answer)
    assert service.counters(index) == {
        "new_flows": 1,
        "packets_in": 2,
        "bytes_in": 2 * len(request),
        "packets_out": 1,
        "bytes_out": len(answer),
    }


def test_a_gso_packet_counts_as_what_goes_over_the_wire(service: DataPlane) -> None:
    service.receive(packets.tcp(IPV4))
    ends = IPV4.to(*BACKEND_IPV4).reversed()
    payload = bytes(3000)
    data = packets.frame(packets.network(ends) / packets.transport(ends, "tcp", "A", payload))
    out = service.send(data, segments=3, segment_size=1000)
    assert out.verdict == TC_UNSPEC
    headers = len(data) - len(payload)
    counters = service.counters(0)
    assert counters["packets_out"] == 3
    assert counters["bytes_out"] == len(payload) + 3 * headers
