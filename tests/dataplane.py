"""The real programs on private maps: set up by raw writes, run by BPF_PROG_TEST_RUN.

Depends on nothing but the loader, so that a test of the programs fails for the programs only.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from socket import htons
from typing import Any, Final

from shaper.kernel import libbpf
from shaper.kernel.compile import ProgramObject
from shaper.kernel.loader import BpfMap, Loaded, load
from tests.oracles import packed
from tests.packets import Ends

XDP_DROP: Final = 1
XDP_PASS: Final = 2
TC_UNSPEC: Final = 0xFFFFFFFF

TCP: Final = 6
UDP: Final = 17

ROUND_ROBIN, LEAST_CONNECTIONS, MAGLEV, SOURCE_HASH = range(4)
REJECT, DROP = range(2)
UP, ACCEPTS = 1, 2
UNAVAILABLE, NO_FLOW, COLLISION, TABLE_FULL, FRAGMENT = range(5)

# Offsets in struct __sk_buff (UAPI), of which BPF_PROG_TEST_RUN gives a copy back.
_SKB_SIZE: Final = 192
_SKB_PRIORITY: Final = 32
_SKB_GSO_SEGS: Final = 164
_SKB_GSO_SIZE: Final = 176

_MAX_SERVICE_ID: Final = 7
"""Tests use service ids up to this one."""


@dataclass(frozen=True, slots=True)
class Classified:
    """What a clsact program made of a packet."""

    verdict: int
    data: bytes
    priority: int


@dataclass(slots=True)
class DataPlane:
    """Maps and programs of one test."""

    loaded: Loaded
    _next_slot: int = field(default=0)
    _backends: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, compiled: ProgramObject) -> DataPlane:
        return cls(load(compiled, None))

    def reset(self) -> None:
        """Empties the maps: loading programs takes the verifier far longer."""
        for name in ("service_map", "flow_map", "closing_map", "reply_map"):
            self._clear(name)
        zero = ctypes.c_uint64()
        no_counters = (self._map("counter_map").value_type * _possible_cpus())()
        for index in self._backends:
            key = ctypes.c_uint32(index)
            self._put("backend_map", key, self._map("backend_map").value_type())
            self._put("active_map", key, zero)
            self._put("counter_map", key, no_counters)
        for service in range(_MAX_SERVICE_ID + 1):
            self._put("cursor_map", ctypes.c_uint32(service), zero)
            self._put("class_map", ctypes.c_uint32(service), ctypes.c_uint32())
        for event in range(FRAGMENT + 1):
            self._put("event_map", ctypes.c_uint32(event), (ctypes.c_uint64 * _possible_cpus())())
        self.classes(default=0)
        self._backends.clear()
        self._next_slot = 0

    def _clear(self, name: str) -> None:
        key = self._map(name).key_type()
        while libbpf.map_next_key(self._map(name).fd, None, key):
            libbpf.map_delete(self._map(name).fd, key)

    def _map(self, name: str) -> BpfMap:
        return self.loaded.maps[name]

    def _put(self, name: str, key: Any, value: Any) -> None:
        libbpf.map_update(self._map(name).fd, key, value)

    def _get(self, name: str, key: Any) -> Any | None:
        value = self._map(name).value_type()
        return value if libbpf.map_lookup(self._map(name).fd, key, value) else None

    # Setting up

    def backend(
        self, index: int, address: str, port: int, *, flags: int = UP | ACCEPTS, service: int = 1
    ) -> None:
        self._backends.add(index)
        value = self._map("backend_map").value_type(port=htons(port), flags=flags, service=service)
        _set_address(value.address, address)
        self._put("backend_map", ctypes.c_uint32(index), value)

    def service(
        self,
        address: str,
        port: int,
        slots: Sequence[tuple[int, int]],
        *,
        protocol: int = TCP,
        scheduler: int = ROUND_ROBIN,
        service_id: int = 1,
        unavailable: int = REJECT,
    ) -> None:
        """`slots`: (backend index, weight), written to a region that no other service has."""
        first, self._next_slot = self._next_slot, self._next_slot + len(slots)
        if slots:
            keys = (ctypes.c_uint32 * len(slots))(*range(first, first + len(slots)))
            values = (self._map("slot_map").value_type * len(slots))(*slots)
            libbpf.map_update_batch(self._map("slot_map").fd, keys, values, len(slots))
        key = self._map("service_map").key_type(port=htons(port), protocol=protocol)
        _set_address(key.address, address)
        value = self._map("service_map").value_type(
            id=service_id,
            first=first,
            count=len(slots),
            scheduler=scheduler,
            unavailable=unavailable,
        )
        self._put("service_map", key, value)

    def classes(self, *, default: int = 0, services: dict[int, int] | None = None) -> None:
        settings = self._map("settings_map").value_type(default_class=default)
        self._put("settings_map", ctypes.c_uint32(0), settings)
        for service, classid in (services or {}).items():
            self._put("class_map", ctypes.c_uint32(service), ctypes.c_uint32(classid))

    # Running

    def receive(self, data: bytes) -> libbpf.TestRun:
        """A frame into a client-side device."""
        return libbpf.program_test_run(self.loaded.programs["xdp_balance"], data)

    def send(
        self,
        data: bytes,
        *,
        program: str = "classify_client",
        priority: int = 0,
        segments: int = 0,
        segment_size: int = 0,
    ) -> Classified:
        """A frame out of a device."""
        context = bytearray(_SKB_SIZE)
        struct.pack_into("=I", context, _SKB_PRIORITY, priority)
        struct.pack_into("=I", context, _SKB_GSO_SEGS, segments)
        struct.pack_into("=I", context, _SKB_GSO_SIZE, segment_size)
        run = libbpf.program_test_run(
            self.loaded.programs[program], data, context=bytes(context), context_size=_SKB_SIZE
        )
        (after,) = struct.unpack_from("=I", run.context, _SKB_PRIORITY)
        return Classified(run.verdict, run.data, after)

    # Looking

    def active(self, index: int) -> int:
        value = ctypes.c_uint64()
        libbpf.map_lookup(self._map("active_map").fd, ctypes.c_uint32(index), value)
        return int(value.value)

    def counters(self, index: int) -> dict[str, int]:
        """The backend's counters, summed over the CPUs."""
        counter_map = self._map("counter_map")
        per_cpu = (counter_map.value_type * _possible_cpus())()
        libbpf.map_lookup(counter_map.fd, ctypes.c_uint32(index), per_cpu)
        names = [name for name, _ in counter_map.value_type._fields_]
        return {name: sum(getattr(cpu, name) for cpu in per_cpu) for name in names}

    def events(self, event: int) -> int:
        per_cpu = (ctypes.c_uint64 * _possible_cpus())()
        libbpf.map_lookup(self._map("event_map").fd, ctypes.c_uint32(event), per_cpu)
        return sum(per_cpu)

    def flow(self, ends: Ends, protocol: int = TCP, *, closing: bool = False) -> Any | None:
        """The flow's entry, from the client's point of view, or None."""
        return self._get("closing_map" if closing else "flow_map", self.flow_key(ends, protocol))

    def forget(self, ends: Ends, protocol: int = TCP) -> None:
        """Takes an entry out of flow_map as an eviction does: nothing else learns of it."""
        libbpf.map_delete(self._map("flow_map").fd, self.flow_key(ends, protocol))

    def claim(self, ends: Ends, protocol: int = TCP) -> None:
        """Makes the flow look as if another CPU were just about to delete it."""
        key = self.flow_key(ends, protocol)
        value = self._get("flow_map", key)
        assert value is not None
        value.begun_ns = 0
        self._put("flow_map", key, value)

    def set_active(self, index: int, flows: int) -> None:
        """Makes the count wrong."""
        self._put("active_map", ctypes.c_uint32(index), ctypes.c_uint64(flows))

    def forget_reply(self, backend: Ends, protocol: int = TCP) -> None:
        """The same for reply_map."""
        libbpf.map_delete(self._map("reply_map").fd, self.reply_key(backend, protocol))

    def age(
        self, ends: Ends, backend: Ends, protocol: int = TCP, *, by_ns: int, closing: bool = False
    ) -> None:
        """Makes both sides of a flow look as if they had been silent for longer.

        Args:
            backend: the same flow as it goes to the backend.
        """
        name = "closing_map" if closing else "flow_map"
        self._age(name, self.flow_key(ends, protocol), by_ns)
        self.age_reply(backend, protocol, by_ns=by_ns)

    def age_reply(self, backend: Ends, protocol: int = TCP, *, by_ns: int) -> None:
        self._age("reply_map", self.reply_key(backend, protocol), by_ns)

    def _age(self, table: str, key: Any, by_ns: int) -> None:
        value = self._get(table, key)
        assert value is not None
        value.seen_ns -= by_ns
        self._put(table, key, value)

    def reply(self, backend: Ends, protocol: int = TCP) -> Any | None:
        return self._get("reply_map", self.reply_key(backend, protocol))

    def flow_key(self, ends: Ends, protocol: int) -> Any:
        key = self._map("flow_map").key_type(
            client_port=htons(ends.source_port),
            service_port=htons(ends.destination_port),
            protocol=protocol,
        )
        _set_address(key.client, ends.source)
        _set_address(key.service, ends.destination)
        return key

    def reply_key(self, ends: Ends, protocol: int) -> Any:
        key = self._map("reply_map").key_type(
            client_port=htons(ends.source_port),
            backend_port=htons(ends.destination_port),
            protocol=protocol,
        )
        _set_address(key.client, ends.source)
        _set_address(key.backend, ends.destination)
        return key


def _set_address(target: Any, address: str) -> None:
    ctypes.memmove(ctypes.byref(target), packed(address), 16)


def _possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible") as file:  # noqa: PTH123
        return int(file.read().strip().rpartition("-")[2].rpartition(",")[2]) + 1
