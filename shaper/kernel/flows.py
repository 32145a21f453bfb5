"""Sweeping idle flows and replies without a flow, and keeping the counts of flows right.

The tables are read in batches into arrays and filtered there; what looks idle goes by its keys to
the programs of `bpf/sweep.c`, which look again and remove. Only a program sees both directions of a
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
_PAUSE_S: Final = 0.001
"""A program that has entered or deleted a flow has counted it by then."""
_HASH_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, odd: multiplying spreads every bit upwards."""
_FLOW_NEW: Final = 0
"""FLOW_NEW of bpf/shared.h."""


@dataclass(frozen=True, slots=True)
class FlowTimeouts:
    """Idle times, in nanoseconds, after which a flow is forgotten.

    RFC 5382 asks for 2 h 4 min or more for established TCP, RFC 4787 recommends 5 min for UDP.
    `closing_ns` is for connections that one side has closed, `over_ns` for those that both have (or
    one by RST), of which only repeated last packets may come, and for replies without a flow.
    """

    syn_ns: int = 60 * _NS
    established_ns: int = 7440 * _NS
    closing_ns: int = 120 * _NS
    over_ns: int = 10 * _NS
    udp_ns: int = 300 * _NS


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """Flows that the tables hold; `by_backend` has the open ones by backend index."""

    open: int
    closing: int
    by_backend: dict[int, int]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """`seen` flows were looked at, `idle` went to the program, `removed` are gone.

    `orphans` are the replies without a flow that are gone, `corrected` is by how many flows the
    counts of backends were wrong and are right now.
    """

    seen: int
    idle: int
    removed: int
    orphans: int = 0
    corrected: int = 0


def sweep_flows(loaded: Loaded, timeouts: FlowTimeouts) -> SweepResult:
    """Removes every flow of which neither side was heard within its timeout, then the orphans.

    At last it corrects the counts, see `correct_counts`.

    Raises:
        KernelError: a map cannot be read, or the program cannot be run.
    """
    _write_timeouts(loaded.maps["timeout_map"], timeouts)
    seen = idle = removed = 0
    identities = []
    for name in ("flow_map", "closing_map"):
        for keys, flows in _batches(loaded.maps[name]):
            expired = keys[
                _idle_ns(flows) > _timeouts_ns(name == "closing_map", keys, flows, timeouts)
            ]
            seen += len(keys)
            idle += len(expired)
            removed += _run_on(loaded.programs["flow_sweep"], expired)
            identities.append(_identities(keys, keys["service"], keys["service_port"], flows))
    orphans = _sweep_replies(loaded, np.concatenate(identities), timeouts)
    return SweepResult(seen, idle, removed, orphans, correct_counts(loaded))


def correct_counts(loaded: Loaded) -> int:
    """Puts right what active_map says where the LRU evicted flows, which nothing counts.

    A count is off by what it says beyond what flow_map holds. Flows that open and close during the
    scan make that uncertain by their number, so no more than the rest is corrected: nothing under
    load that needs nothing, and all of it on a quiet table. A CPU that the hypervisor stops for
    longer than the pause, between entering a flow and counting it, is off by that one flow until
    the next time.

    Returns:
        the sum of the corrections, all taken as positive.
    Raises:
        KernelError: a map cannot be read, or the program cannot be run.
    """
    ended_before, active_before = (_counts(loaded, name) for name in ("ended_map", "active_map"))
    held = np.zeros_like(active_before)
    for _, flows in _batches(loaded.maps["flow_map"]):
        held += np.bincount(flows["backend"], minlength=len(held))
    time.sleep(_PAUSE_S)
    active, ended = (_counts(loaded, name) for name in ("active_map", "ended_map"))
    closed = ended - ended_before
    opened = active - active_before + closed
    drift = active - held
    certain = np.sign(drift) * np.maximum(np.abs(drift) - opened - closed, 0)
    backends = np.flatnonzero(certain)
    _run_on(loaded.programs["active_correct"], np.column_stack((backends, -certain[backends])))
    return int(np.abs(certain).sum())


def _counts(loaded: Loaded, name: str) -> NDArray[np.int64]:
    """A number for each backend; signed, because a count may have gone below zero."""
    return np.concatenate([values for _, values in _batches(loaded.maps[name])]).astype(np.int64)


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


def _idle_ns(entries: NDArray[Any]) -> NDArray[np.int64]:
    """For how long each flow's client, or each reply's backend, was silent."""
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    result: NDArray[np.int64] = now_ns - entries["seen_ns"].astype(np.int64)
    return result


def _timeouts_ns(
    closing: bool, keys: NDArray[Any], flows: NDArray[Any], timeouts: FlowTimeouts
) -> NDArray[np.int64]:
    """The timeout of each flow."""
    if closing:
        over = flows["client_closed"] & flows["backend_closed"]
        return np.where(over, timeouts.over_ns, timeouts.closing_ns)
    tcp_ns = np.where(flows["state"] == _FLOW_NEW, timeouts.syn_ns, timeouts.established_ns)
    return np.where(keys["protocol"] == IPPROTO_UDP, timeouts.udp_ns, tcp_ns)


def _sweep_replies(loaded: Loaded, flows: NDArray[np.uint64], timeouts: FlowTimeouts) -> int:
    """Removes replies, not heard for a while, of none of the `flows`; returns how many."""
    removed = 0
    known = np.append(np.sort(flows), np.uint64(0))  # so that every position below is in it
    for keys, replies in _batches(loaded.maps["reply_map"]):
        mine = _identities(keys, replies["address"], replies["port"], replies)
        unknown = known[np.searchsorted(known[:-1], mine)] != mine
        orphaned = keys[unknown & (_idle_ns(replies) > timeouts.over_ns)]
        removed += _run_on(loaded.programs["reply_sweep"], orphaned)
    return removed


def _identities(
    keys: NDArray[Any], service: NDArray[Any], service_port: NDArray[Any], entries: NDArray[Any]
) -> NDArray[np.uint64]:
    """A hash of client, service and backend, the same for a flow and for its reply."""
    client_port, service_port = (
        part.astype(np.uint64) for part in (keys["client_port"], service_port)
    )
    words = [keys["client"]["word"], service["word"]]
    columns = [part[:, index].astype(np.uint64) for part in words for index in range(4)]
    columns.append(client_port << np.uint64(16) | service_port)
    columns.append(keys["protocol"].astype(np.uint64) << np.uint64(32) | entries["backend"])
    result = np.zeros(len(keys), np.uint64)
    for column in columns:
        result = (result ^ column) * _HASH_FACTOR
        result ^= result >> np.uint64(32)
    return result


def _run_on(program: int, rows: NDArray[Any]) -> int:
    """Gives the rows to a program, as many as fit one run; returns how many it acted on."""
    done = 0
    for start in range(0, len(rows), _KEYS_PER_RUN):
        chunk = rows[start : start + _KEYS_PER_RUN]
        done += libbpf.program_test_run(program, chunk.tobytes()).verdict
    return done


def _write_timeouts(timeout_map: BpfMap, timeouts: FlowTimeouts) -> None:
    value = timeout_map.value_type(
        syn=timeouts.syn_ns,
        established=timeouts.established_ns,
        closing=timeouts.closing_ns,
        over=timeouts.over_ns,
        udp=timeouts.udp_ns,
    )
    libbpf.map_update(timeout_map.fd, ctypes.c_uint32(0), value)
