"""rtnetlink's traffic control messages: their options as bytes, both ways.

pyroute2 carries the messages, but their content is packed here, because its own encoders lose what
must be exact: bursts become whole microseconds, and fq_codel's memory limit cannot be given. The
layouts are those of include/uapi/linux/pkt_sched.h, in host byte order.

HTB still reserves attributes for rate tables (1 KB each). A rate whose `linklayer` is set needs
none: only for TC_LINKLAYER_UNAWARE does htb_change_class() look at them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from shaper.shaping.htb import burst_ticks, ticks_to_bytes
from shaper.shaping.leaf import (
    FqCodelOptions,
    LeafOptions,
    OtherOptions,
    PfifoOptions,
    codel_time_to_send_us,
)
from shaper.shaping.tree import ClassSpec

_HTB_PARMS: Final = 1
_HTB_INIT: Final = 2
_HTB_RATE64: Final = 6
_HTB_CEIL64: Final = 7
_HTB_VERSION: Final = 3
_HTB_RATE_TO_QUANTUM: Final = 10  # unused: every class gives its quantum

_FQ_CODEL_TARGET: Final = 1
_FQ_CODEL_LIMIT: Final = 2
_FQ_CODEL_INTERVAL: Final = 3
_FQ_CODEL_ECN: Final = 4
_FQ_CODEL_FLOWS: Final = 5
_FQ_CODEL_QUANTUM: Final = 6
_FQ_CODEL_MEMORY_LIMIT: Final = 9

_STATS_BASIC: Final = 1
_STATS_QUEUE: Final = 3

_LINKLAYER_ETHERNET: Final = 1
_MAX_U32: Final = 2**32 - 1

_ATTRIBUTE: Final = struct.Struct("=HH")
_GLOB: Final = struct.Struct("=5I")  # version, rate2quantum, defcls, debug, direct_pkts
_RATE: Final = struct.Struct("=BBHhHI")  # cell_log, linklayer, overhead, cell_align, mpu, rate
_CLASS: Final = struct.Struct("=12s12s5I")  # rate, ceil, buffer, cbuffer, quantum, level, prio
_BASIC: Final = struct.Struct("=QI")  # bytes, packets
_QUEUE: Final = struct.Struct("=5I")  # qlen, backlog, drops, requeues, overlimits


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """TCA_STATS2 of a class or qdisc; 0 where a kind does not count."""

    bytes: int = 0
    packets: int = 0
    backlog_packets: int = 0
    backlog_bytes: int = 0
    drops: int = 0


def encode_root(default_minor: int) -> bytes:
    glob = _GLOB.pack(_HTB_VERSION, _HTB_RATE_TO_QUANTUM, default_minor, 0, 0)
    return _attribute(_HTB_INIT, glob)


def decode_root(options: bytes) -> int:
    """The default minor of an HTB qdisc."""
    return int(_GLOB.unpack_from(_attributes(options)[_HTB_INIT])[2])


def encode_class(spec: ClassSpec) -> bytes:
    """Rates from 2^32 bytes/s on (34 gbit) go into attributes of 64 bits of their own."""
    rate, ceil = spec.rate_bps // 8, spec.ceil_bps // 8
    parameters = _CLASS.pack(
        _RATE.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, _MAX_U32)),
        _RATE.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(ceil, _MAX_U32)),
        burst_ticks(spec.burst_bytes, spec.rate_bps),
        burst_ticks(spec.cburst_bytes, spec.ceil_bps),
        spec.quantum_bytes,
        0,
        spec.priority,
    )
    return (
        _attribute(_HTB_PARMS, parameters)
        + (_attribute(_HTB_RATE64, struct.pack("=Q", rate)) if rate > _MAX_U32 else b"")
        + (_attribute(_HTB_CEIL64, struct.pack("=Q", ceil)) if ceil > _MAX_U32 else b"")
    )


def decode_class(minor: int, parent_minor: int, options: bytes) -> ClassSpec:
    attributes = _attributes(options)
    rate, ceil, buffer, cbuffer, quantum, _, priority = _CLASS.unpack_from(attributes[_HTB_PARMS])
    rate_bps = _rate_bps(rate, attributes.get(_HTB_RATE64))
    ceil_bps = _rate_bps(ceil, attributes.get(_HTB_CEIL64))
    return ClassSpec(
        minor=minor,
        parent_minor=parent_minor,
        rate_bps=rate_bps,
        ceil_bps=ceil_bps,
        priority=priority,
        burst_bytes=ticks_to_bytes(buffer, rate_bps),
        cburst_bytes=ticks_to_bytes(cbuffer, ceil_bps),
        quantum_bytes=quantum,
    )


def encode_leaf(options: LeafOptions, *, change: bool) -> bytes:
    """
    Args:
        change: for a qdisc that exists; fq_codel refuses its number of flows then, even if equal.
    Raises:
        ValueError: for `OtherOptions`, which nobody wants made.
    """
    match options:
        case PfifoOptions():
            return struct.pack("=I", options.limit_packets)
        case FqCodelOptions():
            return _encode_fq_codel(options, change)
        case OtherOptions():
            raise ValueError(f"cannot make a leaf {options.kind}")


def _encode_fq_codel(options: FqCodelOptions, change: bool) -> bytes:
    values = {
        _FQ_CODEL_TARGET: codel_time_to_send_us(options.target_us),
        _FQ_CODEL_LIMIT: options.limit_packets,
        _FQ_CODEL_INTERVAL: codel_time_to_send_us(options.interval_us),
        _FQ_CODEL_ECN: int(options.ecn),
        _FQ_CODEL_QUANTUM: options.quantum_bytes,
        _FQ_CODEL_MEMORY_LIMIT: options.memory_limit_bytes,
    }
    if not change:
        values[_FQ_CODEL_FLOWS] = options.flows
    return b"".join(_attribute(kind, struct.pack("=I", value)) for kind, value in values.items())


def decode_leaf(kind: str, options: bytes) -> LeafOptions:
    match kind:
        case "pfifo":
            return PfifoOptions(_u32(options))
        case "fq_codel":
            attributes = _attributes(options)
            return FqCodelOptions(
                limit_packets=_u32(attributes[_FQ_CODEL_LIMIT]),
                target_us=_u32(attributes[_FQ_CODEL_TARGET]),
                interval_us=_u32(attributes[_FQ_CODEL_INTERVAL]),
                flows=_u32(attributes[_FQ_CODEL_FLOWS]),
                quantum_bytes=_u32(attributes[_FQ_CODEL_QUANTUM]),
                memory_limit_bytes=_u32(attributes[_FQ_CODEL_MEMORY_LIMIT]),
                ecn=bool(_u32(attributes[_FQ_CODEL_ECN])),
            )
        case _:
            return OtherOptions(kind)


def decode_statistics(payload: bytes) -> QueueStatistics:
    attributes = _attributes(payload)
    basic = attributes.get(_STATS_BASIC, bytes(_BASIC.size))
    queue = attributes.get(_STATS_QUEUE, bytes(_QUEUE.size))
    total_bytes, packets = _BASIC.unpack_from(basic)
    backlog_packets, backlog_bytes, drops, _, _ = _QUEUE.unpack_from(queue)
    return QueueStatistics(total_bytes, packets, backlog_packets, backlog_bytes, drops)


def _rate_bps(ratespec: bytes, wide: bytes | None) -> int:
    if wide is not None:
        return int(struct.unpack_from("=Q", wide)[0]) * 8
    return int(_RATE.unpack(ratespec)[5]) * 8


def _u32(payload: bytes) -> int:
    return int(struct.unpack_from("=I", payload)[0])


def _attribute(kind: int, payload: bytes) -> bytes:
    """struct nlattr, padded to four bytes."""
    padding = b"\0" * (-len(payload) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + padding


def _attributes(payload: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        found[kind & 0x3FFF] = payload[offset + _ATTRIBUTE.size : offset + length]
        offset += max(length + 3 & ~3, _ATTRIBUTE.size)
    return found
