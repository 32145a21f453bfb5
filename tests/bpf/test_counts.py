"""Counts of flows that missed evictions, put right by the sweep."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from shaper.kernel import libbpf
from shaper.kernel.compile import ProgramObject
from shaper.kernel.flows import FlowTimeouts, correct_counts, count_flows, sweep_flows
from tests import packets
from tests.dataplane import LEAST_CONNECTIONS, UDP, DataPlane
from tests.packets import Ends

pytestmark = pytest.mark.bpf

VIP = "198.51.100.10"
BACKENDS = [("203.0.113.11", 8080), ("203.0.113.12", 8080)]
MAX_FLOWS = 1 << 18


@pytest.fixture
def service(plane: DataPlane) -> DataPlane:
    return serve(plane)


@pytest.fixture
def own_service(compiled: ProgramObject) -> Iterator[DataPlane]:
    """With maps that go with the test: emptying a full one takes a minute."""
    plane = DataPlane.of(compiled)
    yield serve(plane)
    plane.loaded.close()


def serve(plane: DataPlane) -> DataPlane:
    """Two backends, the less loaded one next."""
    for index, backend in enumerate(BACKENDS):
        plane.backend(index, *backend)
    slots = [(0, 1000), (1, 1000)]
    plane.service(VIP, 80, slots, protocol=UDP, scheduler=LEAST_CONNECTIONS)
    return plane


def clients(count: int) -> list[Ends]:
    return [
        Ends(f"198.18.{number >> 14}.7", 1024 + number % (1 << 14), VIP, 80)
        for number in range(count)
    ]


def counted(plane: DataPlane) -> dict[int, int]:
    return {index: plane.active(index) for index in range(2) if plane.active(index)}


def test_what_was_evicted_leaves_the_count(service: DataPlane) -> None:
    flows = clients(1000)
    for ends in flows:
        service.receive(packets.udp(ends))
    for ends in flows[:300:2]:
        service.forget(ends, UDP)
    assert counted(service) == {0: 500, 1: 500}
    assert sweep_flows(service.loaded, FlowTimeouts()).corrected == 150
    assert counted(service) == count_flows(service.loaded).by_backend == {0: 350, 1: 500}
    assert sweep_flows(service.loaded, FlowTimeouts()).corrected == 0


def test_new_flows_go_where_the_table_has_the_fewest(service: DataPlane) -> None:
    """A backend that came back does not get all of them: the other's count was too high."""
    service.backend(1, *BACKENDS[1], flags=0)
    flows = clients(500)
    for ends in flows[:400]:
        service.receive(packets.udp(ends))
    for ends in flows[:380]:
        service.forget(ends, UDP)
    service.backend(1, *BACKENDS[1])
    sweep_flows(service.loaded, FlowTimeouts())
    for ends in flows[400:]:
        service.receive(packets.udp(ends))
    assert counted(service) == {0: 60, 1: 60}


@pytest.mark.parametrize("wrong", [7, 2**64 - 3])
def test_a_count_of_flows_that_never_were_is_corrected(service: DataPlane, wrong: int) -> None:
    """Below zero as well."""
    service.receive(packets.udp(clients(1)[0]))
    service.set_active(1, wrong)
    service.set_active(0, 0)
    sweep_flows(service.loaded, FlowTimeouts())
    assert counted(service) == {0: 1}


def test_many_backends_are_corrected_at_once(plane: DataPlane) -> None:
    """More than one run of the program takes."""
    for index in range(100):
        plane.backend(index, f"203.0.113.{index + 1}", 8080)
        plane.set_active(index, index)
    assert correct_counts(plane.loaded) == sum(range(100))
    assert [plane.active(index) for index in range(100)] == [0] * 100


def test_a_table_that_overflows_is_counted_right(own_service: DataPlane) -> None:
    template = packets.Template(clients(1)[0], "udp")
    for ends in clients(MAX_FLOWS + 40_000):
        own_service.receive(template.between(ends))
    assert sum(counted(own_service).values()) == MAX_FLOWS + 40_000
    corrected = sweep_flows(own_service.loaded, FlowTimeouts()).corrected
    assert corrected >= 40_000
    assert counted(own_service) == count_flows(own_service.loaded).by_backend
    assert sum(counted(own_service).values()) == MAX_FLOWS + 40_000 - corrected


def test_flows_that_come_and_go_are_no_error(service: DataPlane) -> None:
    """Connections open and close all the time: nothing is corrected, all is right at the end."""
    service.service(VIP, 80, [(0, 1), (1, 1)])
    program = service.loaded.programs["xdp_balance"]
    frames = [packets.tcp(ends, flags) for ends in clients(200) for flags in ("S", "FA", "S", "R")]
    enough = Event()

    def connect() -> int:
        rounds = 0
        while not enough.is_set():
            for frame in frames:
                libbpf.program_test_run(program, frame)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(max_workers=1) as executor:
        traffic = executor.submit(connect)
        try:
            corrected = [correct_counts(service.loaded) for _ in range(50)]
        finally:
            enough.set()
        assert traffic.result() > 0
    assert corrected == [0] * 50
    assert counted(service) == {}
    assert correct_counts(service.loaded) == 0
