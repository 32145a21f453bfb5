"""The tables written into real maps and read back."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from socket import ntohs

import pytest

from shaper.balance.schedule import Schedule
from shaper.errors import KernelError
from shaper.kernel import libbpf
from shaper.kernel.compile import ProgramObject
from shaper.kernel.loader import Loaded, load
from shaper.kernel.tables import BackendCounters, DataPlaneTables
from shaper.model import MAX_BACKENDS, Protocol, Scheduler, Unavailable
from shaper.reconcile.entries import BackendEntry, ServiceEntry, ServiceKey, Tables
from shaper.reconcile.plan import plan_tables

pytestmark = pytest.mark.bpf

VIP = ip_address("198.51.100.10")
VIP6 = ip_address("2001:db8:1::10")


@pytest.fixture
def loaded(compiled: ProgramObject) -> Iterator[Loaded]:
    """Maps without programs: no verifier, and empty at every start."""
    with load(ProgramObject(compiled.digest, compiled.maps, {}), None) as maps:
        yield maps


def schedule(*backends: int) -> Schedule:
    return Schedule(backends, tuple(1000 + backend for backend in backends))


def service(port: int, slots: Schedule, service_id: int = 1) -> ServiceEntry:
    key = ServiceKey(VIP, port, Protocol.TCP)
    return ServiceEntry(key, service_id, Scheduler.LEAST_CONNECTIONS, Unavailable.REJECT, slots)


def tables_of(*services: ServiceEntry) -> Tables:
    return Tables({entry.key: entry for entry in services})


def write(loaded: Loaded, desired: Tables) -> int:
    """As the engine does; returns how many operations it took."""
    tables = DataPlaneTables(loaded.maps)
    operations = plan_tables(desired, tables.read())
    for operation in operations:
        tables.execute(operation)
    assert DataPlaneTables(loaded.maps).read() == desired
    return len(operations)


def regions(loaded: Loaded) -> dict[int, tuple[int, int]]:
    """(first, count) by port, read without the code that is tested here."""
    service_map = loaded.maps["service_map"]
    found = {}
    key = None
    following = service_map.key_type()
    while libbpf.map_next_key(service_map.fd, key, following):
        value = service_map.value_type()
        assert libbpf.map_lookup(service_map.fd, following, value)
        found[ntohs(following.port)] = (int(value.first), int(value.count))
        key, following = following, service_map.key_type()
    return found


def test_everything_is_read_back_as_written(loaded: Loaded) -> None:
    udp6 = ServiceEntry(
        ServiceKey(VIP6, 53, Protocol.UDP), 2, Scheduler.MAGLEV, Unavailable.DROP, schedule(9, 4, 9)
    )
    backends = (
        BackendEntry(0, ip_address("203.0.113.11"), 8080, 3, 1, 2500),
        BackendEntry(MAX_BACKENDS - 1, ip_address("2001:db8:2::11"), 53, 1, 2, 1),
    )
    desired = Tables(
        services={entry.key: entry for entry in (service(80, schedule(0)), udp6)},
        backends={entry.index: entry for entry in backends},
        service_classes={1: 0x53480002, 511: 0x53480003},
        default_class=0x53480004,
    )
    assert write(loaded, desired) == 7
    assert write(loaded, desired) == 0


def test_ports_of_a_service_share_their_slots(loaded: Loaded) -> None:
    """With slots of their own, 8000 ports of 100 backends would not fit slot_map twice."""
    ports = range(1, 8001)
    write(loaded, tables_of(*(service(port, schedule(*range(100))) for port in ports)))
    assert set(regions(loaded).values()) == {(0, 100)}
    write(loaded, tables_of(*(service(port, schedule(*range(99))) for port in ports)))
    assert set(regions(loaded).values()) == {(100, 99)}


def test_a_change_does_not_write_where_another_service_points(loaded: Loaded) -> None:
    write(loaded, tables_of(service(80, schedule(1, 2)), service(443, schedule(3, 4), 2)))
    write(loaded, tables_of(service(80, schedule(1)), service(443, schedule(3), 2)))
    write(loaded, tables_of(service(80, schedule(1, 2, 5)), service(443, schedule(3), 2)))
    write(loaded, tables_of(service(80, schedule()), service(443, schedule(3, 6), 2)))


def test_the_services_are_walked_once_however_many_are_written(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = range(1, 201)
    write(loaded, tables_of(*(service(port, schedule(1, 2, 3)) for port in ports)))
    steps = 0
    walk = libbpf.map_next_key

    def counted(*args: object) -> bool:
        nonlocal steps
        steps += 1
        return walk(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(libbpf, "map_next_key", counted)
    tables = DataPlaneTables(loaded.maps)
    for port in ports:
        tables.put_service(service(port, schedule(1, 2)))
    tables.remove_service(service(1, schedule()).key)
    tables.put_service(service(1, schedule(4)))
    assert steps == len(ports) + 1


def test_too_many_slots_are_refused_by_name(loaded: Loaded) -> None:
    slots = Schedule((1,) * (1 << 19), (1,) * (1 << 19))
    more = Schedule((1,) * (1 << 19), (2,) * (1 << 19))
    write(loaded, tables_of(service(80, slots), service(81, more)))
    with pytest.raises(KernelError, match=r"no room for the schedule of 198\.51\.100\.10:82/tcp"):
        DataPlaneTables(loaded.maps).put_service(service(82, schedule(1)))


@pytest.mark.parametrize(
    "missing", ["service_map", "slot_map", "backend_map", "class_map", "settings_map"]
)
def test_a_missing_map_reads_as_empty(loaded: Loaded, missing: str) -> None:
    entry = service(80, schedule(0))
    backend = BackendEntry(0, ip_address("203.0.113.11"), 8080, 3, 1, 1000)
    desired = Tables({entry.key: entry}, {0: backend}, {1: 5}, 6)
    write(loaded, desired)
    present = {name: opened for name, opened in loaded.maps.items() if name != missing}
    found = DataPlaneTables(present).read()
    empty = {
        "service_map": found.services == {},
        "slot_map": found.services == {entry.key: service(80, schedule())},
        "backend_map": found.backends == {},
        "class_map": found.service_classes == {},
        "settings_map": found.default_class == 0,
    }
    assert [name for name, is_empty in empty.items() if is_empty] == [missing]


@pytest.mark.parametrize("missing", ["active_map", "counter_map"])
def test_counters_without_their_map_are_zero(loaded: Loaded, missing: str) -> None:
    present = {name: opened for name, opened in loaded.maps.items() if name != missing}
    assert DataPlaneTables(present).counters([3, 5]) == dict.fromkeys((3, 5), BackendCounters())


def test_nothing_is_there_without_maps() -> None:
    tables = DataPlaneTables({})
    assert tables.read() == Tables()
    assert tables.busy_backends() == frozenset()
