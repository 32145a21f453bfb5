"""Sweeping idle flows, and counting what the flow tables hold.

The tables are read in batches into arrays and filtered there; what looks idle goes by its keys to
the program `flow_sweep`, which looks again and removes. Only the program sees both directions of a
flow and a packet that came meanwhile.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from socket import IPPROTO_UDP
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shaper.kernel import libbpf
from shaper.kernel.loader import BpfMap, Loaded

_NS: Final = 10**9
_BATCH: Final = 16384
_KEYS_PER_RUN: Final = 16
"""SWEEP_KEYS_MAX of bpf/shared.h."""
_FLOW_NEW: Final = 0
"""FLOW_NEW of bpf/shared.h."""


@dataclass(frozen=True, slots=True)
class FlowTimeouts:
    """Idle times, in nanoseconds, after which a flow is forgotten.

    RFC 5382 asks for 2 h 4 min or more for established TCP, RFC 4787 recommends 5 min for UDP.
    """

    syn_ns: int = 60 * _NS
    established_ns: int = 7440 * _NS
    closing_ns: int = 120 * _NS
    udp_ns: int = 300 * _NS


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """Flows that the tables hold; `by_backend` has the open ones by backend index."""

    open: int
    closing: int
    by_backend: dict[int, int]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """`seen` flows were looked at, `idle` went to the program, `removed` are gone."""

    seen: int
    idle: int
    removed: int


def sweep_flows(loaded: Loaded, timeouts: FlowTimeouts) -> SweepResult:
    """Removes every flow of which neither side was heard within its timeout.

    Raises:
        KernelError: a map cannot be read, or the program cannot be run.
    """
    _write_timeouts(loaded.maps["timeout_map"], timeouts)
    seen = idle = removed = 0
    for name in ("flow_map", "closing_map"):
        for keys, flows in _batches(loaded.maps[name]):
            expired = _expired(name == "closing_map", keys, flows, timeouts)
            seen += len(keys)
            idle += len(expired)
            removed += _remove(loaded.programs["flow_sweep"], expired)
    return SweepResult(seen, idle, removed)


def count_flows(loaded: Loaded) -> FlowCounts:
    """What is in flow_map and closing_map now.

    Raises:
        KernelError: a map cannot be read.
    """
    backends = [flows["backend"] for _, flows in _batches(loaded.maps["flow_map"])]
    indices, counts = np.unique(np.concatenate(backends), return_counts=True)
    closing = sum(len(keys) for keys, _ in _batches(loaded.maps["closing_map"]))
    by_backend = dict(zip(indices.tolist(), counts.tolist(), strict=True))
    return FlowCounts(int(counts.sum()), closing, by_backend)


def _batches(bpf_map: BpfMap) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Keys and values as structured arrays.

    A flow that comes or goes meanwhile may be missing or seen twice.
    """
    keys = (bpf_map.key_type * _BATCH)()
    values = (bpf_map.value_type * _BATCH)()
    cursor = ctypes.create_string_buffer(bpf_map.spec.key_size)
    first, more = True, True
    while more:
        count, more = libbpf.map_lookup_batch(bpf_map.fd, cursor, first, keys, values, _BATCH)
        first = False
        yield (
            np.frombuffer(keys, dtype=np.dtype(bpf_map.key_type), count=count).copy(),
            np.frombuffer(values, dtype=np.dtype(bpf_map.value_type), count=count).copy(),
        )


def _expired(
    closing: bool, keys: NDArray[Any], flows: NDArray[Any], timeouts: FlowTimeouts
) -> NDArray[Any]:
    """The keys of flows whose client was silent for long enough."""
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    idle_ns = now_ns - flows["seen_ns"].astype(np.int64)
    tcp_ns = np.where(flows["state"] == _FLOW_NEW, timeouts.syn_ns, timeouts.established_ns)
    open_ns = np.where(keys["protocol"] == IPPROTO_UDP, timeouts.udp_ns, tcp_ns)
    result: NDArray[Any] = keys[idle_ns > (timeouts.closing_ns if closing else open_ns)]
    return result


def _remove(program: int, keys: NDArray[Any]) -> int:
    """Gives the keys to flow_sweep, as many as fit one run; returns how many it removed."""
    removed = 0
    for start in range(0, len(keys), _KEYS_PER_RUN):
        chunk = keys[start : start + _KEYS_PER_RUN]
        removed += libbpf.program_test_run(program, chunk.tobytes()).verdict
    return removed


def _write_timeouts(timeout_map: BpfMap, timeouts: FlowTimeouts) -> None:
    value = timeout_map.value_type(
        syn=timeouts.syn_ns,
        established=timeouts.established_ns,
        closing=timeouts.closing_ns,
        udp=timeouts.udp_ns,
    )
    libbpf.map_update(timeout_map.fd, ctypes.c_uint32(0), value)
