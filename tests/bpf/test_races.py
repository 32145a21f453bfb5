"""Two CPUs that end the same flow: one counts, and a new flow is not mistaken for the old one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shaper.kernel import libbpf
from shaper.kernel.compile import compile_object
from shaper.kernel.flows import FlowTimeouts, count_flows, sweep_flows
from shaper.kernel.probe import atomic_fetch
from tests import packets
from tests.dataplane import LEAST_CONNECTIONS, TABLE_FULL, XDP_DROP, DataPlane
from tests.packets import Ends

pytestmark = pytest.mark.bpf

ENDS = Ends("192.0.2.7", 40000, "198.51.100.10", 80)
BACKENDS = [("203.0.113.11", 8080), ("203.0.113.12", 8080)]
SECOND_NS = 10**9


@pytest.fixture(scope="module")
def atomic_loaded() -> Iterator[DataPlane]:
    if not atomic_fetch():
        pytest.skip("this kernel has no fetching atomics (5.12)")
    plane = DataPlane.of(compile_object(("WITH_ROUND_ROBIN", "WITH_ATOMIC_FETCH")))
    yield plane
    plane.loaded.close()


@pytest.fixture
def atomic(atomic_loaded: DataPlane) -> DataPlane:
    """Two backends in turn."""
    atomic_loaded.reset()
    for index, backend in enumerate(BACKENDS):
        atomic_loaded.backend(index, *backend)
    atomic_loaded.service(ENDS.destination, 80, [(0, 1), (1, 1)])
    return atomic_loaded


def test_a_flow_that_another_cpu_ends_is_left_to_it(atomic: DataPlane) -> None:
    """By a FIN, by a RST of the backend, and by the sweep."""
    atomic.receive(packets.tcp(ENDS))
    atomic.claim(ENDS)
    there = ENDS.to(*BACKENDS[0])
    atomic.receive(packets.tcp(ENDS, "FA"))
    atomic.send(packets.tcp(there.reversed(), "R"))
    atomic.age(ENDS, there, by_ns=100 * SECOND_NS)
    assert sweep_flows(atomic.loaded, FlowTimeouts()).removed == 0
    assert atomic.active(0) == 1
    assert atomic.flow(ENDS) is not None


def test_a_syn_that_meets_the_end_of_an_older_flow_has_to_come_again(atomic: DataPlane) -> None:
    atomic.receive(packets.tcp(ENDS))
    atomic.claim(ENDS)
    atomic.backend(0, *BACKENDS[0], flags=0)
    assert atomic.receive(packets.tcp(ENDS)).verdict == XDP_DROP
    assert atomic.events(TABLE_FULL) == 1
    assert [atomic.active(index) for index in (0, 1)] == [1, 0]
    assert atomic.reply(ENDS.to(*BACKENDS[1])) is None


def test_syns_and_fins_on_all_cpus_leave_a_count_that_is_right(atomic: DataPlane) -> None:
    """Of one client port. The backends have the service's own address, so that a packet looks the
    same after the program as before, and one call can run it many times."""
    for index in (0, 1):
        atomic.backend(index, ENDS.destination, 80)
    program = atomic.loaded.programs["xdp_balance"]

    def run(flags: str) -> None:
        libbpf.program_test_run(program, packets.tcp(ENDS, flags), repeat=400_000)

    with ThreadPoolExecutor(max_workers=4) as executor:
        for _ in executor.map(run, ("S", "FA", "S", "FA")):
            pass
    assert sum(atomic.counters(index)["new_flows"] for index in (0, 1)) > 1
    counted = {index: atomic.active(index) for index in (0, 1) if atomic.active(index)}
    assert counted == count_flows(atomic.loaded).by_backend


def test_a_count_below_zero_is_taken_for_zero(plane: DataPlane) -> None:
    """As a great number it would keep its backend from ever being chosen."""
    for index, backend in enumerate(BACKENDS):
        plane.backend(index, *backend)
    plane.service(ENDS.destination, 80, [(0, 1000), (1, 1000)], scheduler=LEAST_CONNECTIONS)
    plane.set_active(0, 2**63)
    for port in range(1000, 1010):
        plane.receive(packets.tcp(Ends("192.0.2.9", port, ENDS.destination, 80)))
    assert (plane.active(0), plane.active(1)) == (2**63 + 9, 1)


def test_the_greatest_weights_are_compared_right(plane: DataPlane) -> None:
    """1000, doubled by steering, in thousandths."""
    weights = (2_000_000, 1_000_000)
    for index, backend in enumerate(BACKENDS):
        plane.backend(index, *backend)
    slots = list(enumerate(weights))
    plane.service(ENDS.destination, 80, slots, scheduler=LEAST_CONNECTIONS)
    for port in range(1000, 1300):
        plane.receive(packets.tcp(Ends("192.0.2.9", port, ENDS.destination, 80)))
    assert [plane.active(index) for index in (0, 1)] == [200, 100]
