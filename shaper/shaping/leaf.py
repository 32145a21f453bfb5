"""The queue at the end of a class: the kernel's kinds with every option resolved.

Options are never left to the kernel's defaults, so that what is read back can be compared and a
later kernel's other default changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from shaper.errors import KernelError
from shaper.model import Gateway, Leaf, LeafKind
from shaper.shaping.htb import ETHERNET_HEADER_BYTES

FQ_CODEL: Final = "fq_codel"
PFIFO: Final = "pfifo"

PFIFO_LIMIT_PACKETS: Final = 1000
FQ_CODEL_LIMIT_PACKETS: Final = 10 * 1024
FQ_CODEL_FLOWS: Final = 1024
FQ_CODEL_TARGET_US: Final = 5_000
FQ_CODEL_INTERVAL_US: Final = 100_000
FQ_CODEL_MEMORY_BYTES: Final = 32 * 2**20
"""The defaults of tc-fq_codel(8); 1,024 flows cost 71 KB per class."""

_MIN_QUANTUM_BYTES: Final = 256  # fq_codel_change() raises anything smaller to this
_CODEL_SHIFT: Final = 10


@dataclass(frozen=True, slots=True)
class PfifoOptions:
    limit_packets: int
    kind: Literal["pfifo"] = field(default=PFIFO, init=False)


@dataclass(frozen=True, slots=True)
class FqCodelOptions:
    """Times are `codel_time_us` of what was asked for. `flows` is fixed once the qdisc exists."""

    limit_packets: int
    target_us: int
    interval_us: int
    flows: int
    quantum_bytes: int
    memory_limit_bytes: int
    ecn: bool
    kind: Literal["fq_codel"] = field(default=FQ_CODEL, init=False)


@dataclass(frozen=True, slots=True)
class OtherOptions:
    """A queue that somebody else put there, or one of a right kind under another handle."""

    kind: str


LeafOptions = PfifoOptions | FqCodelOptions | OtherOptions


@dataclass(frozen=True, slots=True)
class LeafSpec:
    """The qdisc below class `class_minor`; its handle is `class_minor:0`."""

    class_minor: int
    options: LeafOptions
    name: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        return self.options.kind


def resolve_leaf(leaf: Leaf, mtu: int, leaf_kinds: frozenset[str]) -> LeafOptions:
    """What a class's `leaf` comes to on a kernel that has `leaf_kinds`.

    Raises:
        KernelError: fq_codel was asked for by name and the kernel lacks it.
    """
    if leaf.kind is LeafKind.FQ_CODEL and FQ_CODEL not in leaf_kinds:
        raise KernelError(
            "this kernel has no fq_codel, which a class names as its leaf",
            "load the module sch_fq_codel (kernel option CONFIG_NET_SCH_FQ_CODEL), "
            "or write `leaf: auto` or `leaf: fifo`",
        )
    if leaf.kind is LeafKind.FIFO or FQ_CODEL not in leaf_kinds:
        return PfifoOptions(_given(leaf.limit_packets, PFIFO_LIMIT_PACKETS))
    quantum = _given(leaf.quantum_bytes, mtu + ETHERNET_HEADER_BYTES)
    return FqCodelOptions(
        limit_packets=_given(leaf.limit_packets, FQ_CODEL_LIMIT_PACKETS),
        target_us=codel_time_us(_given(leaf.target_us, FQ_CODEL_TARGET_US)),
        interval_us=codel_time_us(_given(leaf.interval_us, FQ_CODEL_INTERVAL_US)),
        flows=_given(leaf.flows, FQ_CODEL_FLOWS),
        quantum_bytes=max(_MIN_QUANTUM_BYTES, quantum),
        memory_limit_bytes=min(_given(leaf.memory_limit_bytes, FQ_CODEL_MEMORY_BYTES), 2**31),
        ecn=True if leaf.ecn is None else leaf.ecn,
    )


def leaf_warnings(gateway: Gateway, leaf_kinds: frozenset[str]) -> tuple[str, ...]:
    """What `status` tells about `leaf: auto` on a kernel without fq_codel."""
    fallen = [item.name for item in gateway.classes if item.leaf.kind is LeafKind.AUTO]
    if FQ_CODEL in leaf_kinds or not fallen:
        return ()
    return (
        f"no fq_codel in this kernel: plain fifo leaves, with long queues, on {_list(fallen)} "
        "(module sch_fq_codel, kernel option CONFIG_NET_SCH_FQ_CODEL)",
    )


def codel_time_us(time_us: int) -> int:
    """What the kernel reports after it was given `time_us`: CoDel's clock ticks every 1,024 ns
    (CODEL_SHIFT in include/net/codel.h), and both conversions round down. 5000 -> 4999."""
    return codel_ticks(time_us) * 1024 // 1000


def codel_ticks(time_us: int) -> int:
    return time_us * 1000 >> _CODEL_SHIFT


def codel_time_to_send_us(reported_us: int) -> int:
    """The least time that the kernel reports as `reported_us`. 4999 -> 5000."""
    ticks = -(-reported_us * 1000 // 1024)
    return -(-ticks * 1024 // 1000)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
