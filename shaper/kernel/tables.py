"""Typed reading and writing of the data plane's maps.

Turns `struct service`, `struct backend` … (types derived by bcc, never mirrored) into the values of
`shaper.reconcile.entries` and back. A service's schedule is replaced in two steps: slots written
into a free region, then one write to service_map that packets see whole. Its other ports then
point to the same region.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from socket import IPPROTO_TCP, IPPROTO_UDP, htons, ntohs
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shaper.balance.schedule import Schedule
from shaper.errors import KernelError
from shaper.kernel import libbpf
from shaper.kernel.loader import BpfMap
from shaper.kernel.regions import Region, Regions
from shaper.model import Address, Protocol, Scheduler, Unavailable
from shaper.reconcile import operations as ops
from shaper.reconcile.entries import BackendEntry, ServiceEntry, ServiceKey, Tables

_SCHEDULERS: Final = (
    Scheduler.ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS,
    Scheduler.MAGLEV,
    Scheduler.SOURCE_HASH,
)
"""By the numbers SCHED_* of bpf/shared.h."""
_UNAVAILABLE: Final = (Unavailable.REJECT, Unavailable.DROP)
_EVENTS: Final = ("unavailable", "no_flow", "collision", "table_full", "fragment")
"""By the numbers EVENT_* of bpf/shared.h."""
_PROTOCOLS: Final = {Protocol.TCP: IPPROTO_TCP, Protocol.UDP: IPPROTO_UDP}
_PROTOCOL_NAMES: Final = {number: name for name, number in _PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class BackendCounters:
    """Summed over the CPUs. Bytes include the Ethernet header; in is towards the backend."""

    active_flows: int = 0
    new_flows: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


class DataPlaneTables:
    """The maps of one instance; does not own their descriptors.

    Reading takes a map that is not there for an empty one (one that an upgrade brings, or whose
    pin is lost); writing needs them all. Nobody else may write while one of these is used: what
    is known of slot_map is kept from the first change to the next.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._maps = maps
        self._regions: Regions | None = None

    def read(self) -> Tables:
        """Everything that user space wrote."""
        found = tuple(self._services())
        if self._regions is None:
            self._regions = _regions(found)
        services = {entry.key: entry for entry, _ in found}
        backends = {entry.index: entry for entry in self._backends()}
        values = self._array("class_map")
        classes = {int(number): int(values[number]) for number in np.flatnonzero(values)}
        settings = self._array("settings_map")
        default = int(settings["default_class"][0]) if len(settings) else 0
        return Tables(services, backends, classes, default)

    def execute(self, operation: ops.Operation) -> None:
        """One of the table operations of a plan."""
        match operation:
            case ops.PutBackend(entry):
                self.put_backend(entry)
            case ops.PutService(service):
                self.put_service(service)
            case ops.RemoveService(key):
                self.remove_service(key)
            case ops.PutServiceClass(service_id, classid):
                self.put_service_class(service_id, classid)
            case ops.PutDefaultClass(classid):
                self.put_default_class(classid)
            case _:
                raise TypeError(f"no way to execute {operation!r}")

    def put_backend(self, entry: BackendEntry) -> None:
        backend_map = self._maps["backend_map"]
        value = backend_map.value_type()
        _write_address(value.address, entry.address)
        value.port = htons(entry.port)
        value.flags = entry.flags
        value.service = entry.service_id
        value.weight = entry.weight_milli
        libbpf.map_update(backend_map.fd, ctypes.c_uint32(entry.index), value)

    def put_service(self, entry: ServiceEntry) -> None:
        """Points the service at its schedule, written into free slots where no region has it."""
        regions = self._known_regions()
        region = regions.holding(entry.schedule)
        if region is None:
            region = regions.free(len(entry.schedule.backends))
            if region is None:
                raise KernelError(
                    f"no room for the schedule of {entry.key} ({entry.summary()})",
                    "fewer services or fewer backends in maglev services",
                )
            self._write_slots(region, entry.schedule)
        service_map = self._maps["service_map"]
        value = service_map.value_type()
        value.id = entry.service_id
        value.first = region.first
        value.count = region.count
        value.scheduler = _SCHEDULERS.index(entry.scheduler)
        value.unavailable = _UNAVAILABLE.index(entry.unavailable)
        libbpf.map_update(service_map.fd, self._service_key(entry.key), value)
        regions.assign(entry.key, region, entry.schedule)

    def remove_service(self, key: ServiceKey) -> None:
        libbpf.map_delete(self._maps["service_map"].fd, self._service_key(key))
        if self._regions is not None:
            self._regions.remove(key)

    def put_service_class(self, service_id: int, classid: int) -> None:
        class_map = self._maps["class_map"]
        libbpf.map_update(class_map.fd, ctypes.c_uint32(service_id), ctypes.c_uint32(classid))

    def put_default_class(self, classid: int) -> None:
        settings = self._maps["settings_map"]
        value = settings.value_type(default_class=classid)
        libbpf.map_update(settings.fd, ctypes.c_uint32(0), value)

    def busy_backends(self) -> frozenset[int]:
        """Indices that flows count on."""
        return frozenset(np.flatnonzero(self._array("active_map")).tolist())

    def counters(self, indices: Iterable[int]) -> dict[int, BackendCounters]:
        """The counters of the given backends."""
        active_map, counter_map = self._maps.get("active_map"), self._maps.get("counter_map")
        if active_map is None or counter_map is None:
            return dict.fromkeys(indices, BackendCounters())
        per_cpu = (counter_map.value_type * _possible_cpus())()
        active = ctypes.c_uint64()
        result = {}
        for index in indices:
            key = ctypes.c_uint32(index)
            libbpf.map_lookup(active_map.fd, key, active)
            libbpf.map_lookup(counter_map.fd, key, per_cpu)
            result[index] = BackendCounters(
                active_flows=active.value,
                new_flows=sum(cpu.new_flows for cpu in per_cpu),
                packets_in=sum(cpu.packets_in for cpu in per_cpu),
                bytes_in=sum(cpu.bytes_in for cpu in per_cpu),
                packets_out=sum(cpu.packets_out for cpu in per_cpu),
                bytes_out=sum(cpu.bytes_out for cpu in per_cpu),
            )
        return result

    def events(self) -> dict[str, int]:
        """How many packets for a service met each event of bpf/shared.h, summed over the CPUs."""
        event_map = self._maps.get("event_map")
        if event_map is None:
            return dict.fromkeys(_EVENTS, 0)
        per_cpu = (event_map.value_type * _possible_cpus())()
        counts = {}
        for number, name in enumerate(_EVENTS):
            libbpf.map_lookup(event_map.fd, ctypes.c_uint32(number), per_cpu)
            counts[name] = sum(per_cpu)
        return counts

    def _services(self) -> Iterator[tuple[ServiceEntry, Region]]:
        schedules: dict[Region, Schedule] = {}
        for raw, value in self._service_elements():
            key = ServiceKey(
                _read_address(raw.address), ntohs(raw.port), _PROTOCOL_NAMES[raw.protocol]
            )
            region = Region(int(value.first), int(value.count))
            if region not in schedules:
                schedules[region] = self._read_slots(region)
            entry = ServiceEntry(
                key,
                int(value.id),
                _SCHEDULERS[value.scheduler],
                _UNAVAILABLE[value.unavailable],
                schedules[region],
            )
            yield entry, region

    def _service_elements(self) -> Iterator[tuple[Any, Any]]:
        service_map = self._maps.get("service_map")
        if service_map is None:
            return
        previous = None
        while True:
            key = service_map.key_type()
            if not libbpf.map_next_key(service_map.fd, previous, key):
                return
            value = service_map.value_type()
            if libbpf.map_lookup(service_map.fd, key, value):
                yield key, value
            previous = key

    def _known_regions(self) -> Regions:
        if self._regions is None:
            self._regions = _regions(self._services())
        return self._regions

    def _backends(self) -> Iterator[BackendEntry]:
        values = self._array("backend_map")
        if not len(values):
            return
        for index in np.flatnonzero(values["address"]["word"].any(axis=1)).tolist():
            value = values[index]
            yield BackendEntry(
                index,
                _read_address(value["address"]),
                ntohs(int(value["port"])),
                int(value["flags"]),
                int(value["service"]),
                int(value["weight"]),
            )

    def _array(self, name: str) -> NDArray[Any]:
        """All values of an array map in one call; none where the map is not there."""
        bpf_map = self._maps.get(name)
        if bpf_map is None:
            return np.empty(0)
        return _read_array(bpf_map, 0, bpf_map.spec.max_entries)

    def _read_slots(self, region: Region) -> Schedule:
        slot_map = self._maps.get("slot_map")
        if slot_map is None or not region.count:
            return Schedule((), ())
        slots = _read_array(slot_map, region.first, region.count)
        return Schedule(tuple(slots["backend"].tolist()), tuple(slots["weight"].tolist()))

    def _write_slots(self, region: Region, schedule: Schedule) -> None:
        if not region.count:
            return
        slot_map = self._maps["slot_map"]
        keys = (ctypes.c_uint32 * region.count)(*range(region.first, region.first + region.count))
        values = (slot_map.value_type * region.count)()
        slots = np.frombuffer(values, dtype=np.dtype(slot_map.value_type))
        slots["backend"] = schedule.backends
        slots["weight"] = schedule.weights
        libbpf.map_update_batch(slot_map.fd, keys, values, region.count)

    def _service_key(self, key: ServiceKey) -> Any:
        raw = self._maps["service_map"].key_type()
        _write_address(raw.address, key.address)
        raw.port = htons(key.port)
        raw.protocol = _PROTOCOLS[key.protocol]
        return raw


def _regions(found: Iterable[tuple[ServiceEntry, Region]]) -> Regions:
    return Regions((entry.key, region, entry.schedule) for entry, region in found)


def _read_array(bpf_map: BpfMap, first: int, count: int) -> NDArray[Any]:
    """`count` values from `first` on; the batch call takes the index before as its cursor."""
    keys = (ctypes.c_uint32 * count)()
    values = (bpf_map.value_type * count)()
    cursor = ctypes.c_uint32(max(0, first - 1))
    read, _ = libbpf.map_lookup_batch(bpf_map.fd, cursor, first == 0, keys, values, count)
    if read != count:
        raise KernelError(f"{bpf_map.name}: {read} of {count} elements could be read")
    return np.frombuffer(values, dtype=np.dtype(bpf_map.value_type))


def _packed(address: Address) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d."""
    if address.version == 6:
        return address.packed
    return bytes(10) + b"\xff\xff" + address.packed


def _write_address(target: Any, address: Address) -> None:
    ctypes.memmove(ctypes.byref(target), _packed(address), 16)


def _read_address(source: Any) -> Address:
    address = IPv6Address(bytes(source))
    return address.ipv4_mapped or address


def _possible_cpus() -> int:
    """How many elements a per-CPU value has: the highest possible CPU, plus one."""
    with open("/sys/devices/system/cpu/possible") as file:  # noqa: PTH123
        ranges = file.read().strip().split(",")
    return int(ranges[-1].rpartition("-")[2]) + 1
