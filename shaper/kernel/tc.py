"""Qdiscs and classes of the current network namespace: observe, execute, count.

Only one thing is ever ours: a root qdisc `htb` with handle `5348:` and what is below it. A root
qdisc with handle 0 is the kernel's default, comes back by itself, and may be covered; any other
belongs to somebody else and stays.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    nlmsg,
)
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTM_DELQDISC,
    RTM_DELTCLASS,
    RTM_GETQDISC,
    RTM_GETTCLASS,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
)
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from shaper.errors import KernelError
from shaper.kernel import qdisc_probe
from shaper.kernel.netlink import RouteSocket
from shaper.kernel.tc_codec import (
    QueueStatistics,
    decode_class,
    decode_leaf,
    decode_root,
    decode_statistics,
    encode_class,
    encode_leaf,
    encode_root,
)
from shaper.shaping.leaf import LeafSpec, OtherOptions
from shaper.shaping.operations import (
    AddClass,
    AddLeaf,
    AddRoot,
    ChangeClass,
    ChangeLeaf,
    DeleteClass,
    DeleteLeaf,
    DeleteRoot,
    TcOperation,
)
from shaper.shaping.tree import MAJOR, ClassSpec, TcTree

_TC_H_ROOT: Final = 0xFFFFFFFF
_CREATE: Final = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
_CHANGE: Final = NLM_F_REQUEST | NLM_F_ACK
_DRAIN_S: Final = 1.0
_DRAIN_POLL_S: Final = 0.005


class _Message(nlmsg):  # type: ignore[misc]
    """struct tcmsg with options and statistics left as bytes, for `tc_codec`."""

    prefix = "TCA_"
    fields = tcmsg.fields
    nla_map = (
        ("TCA_UNSPEC", "none"),
        ("TCA_KIND", "asciiz"),
        ("TCA_OPTIONS", "cdata"),
        ("TCA_STATS", "none"),
        ("TCA_XSTATS", "none"),
        ("TCA_RATE", "none"),
        ("TCA_FCNT", "none"),
        ("TCA_STATS2", "cdata"),
    )


@dataclass(frozen=True, slots=True)
class Observed:
    """What is at a device. `tree` is ours, in whatever state; None where the root is not ours.

    `foreign`: the root qdisc was put there by somebody else. `root_kind` None: there is none.
    """

    root_kind: str | None
    foreign: bool
    tree: TcTree | None
    has_clsact: bool


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """Since the class was made; an inner class's include its children's."""

    bytes: int
    packets: int
    drops: int
    backlog_bytes: int


@dataclass(frozen=True, slots=True)
class _Queue:
    """One class or qdisc as the kernel lists it."""

    kind: str
    handle: int
    parent: int
    options: bytes
    statistics: QueueStatistics


class TrafficControl(RouteSocket):
    """Qdiscs and classes, in the network namespace of the calling thread."""

    def __init__(self) -> None:
        super().__init__()
        # nlm_request() reads this, and pyroute2 0.9 sets it for other sockets than IPRoute only
        self._route.status["nlm_generator"] = False
        for kind in (RTM_NEWQDISC, RTM_NEWTCLASS):
            self._route.marshal.msg_map[kind] = _Message

    def leaf_kinds(self) -> frozenset[str]:
        """Kernel kinds that may serve as leaf, found out once per process by trying."""
        return qdisc_probe.leaf_kinds()

    def observe(self, device: str) -> Observed:
        """
        Raises:
            KernelError: there is no such device.
        """
        index = self._index(device)
        qdiscs = self._qdiscs(index)
        root = next((queue for queue in qdiscs if queue.parent == _TC_H_ROOT), None)
        ours = root is not None and root.kind == "htb" and root.handle == MAJOR << 16
        tree = None
        if root is not None and ours:
            classes = self._classes(index)
            tree = TcTree(device, decode_root(root.options), _classes(classes), _leaves(qdiscs))
        return Observed(
            root_kind=root.kind if root is not None else None,
            foreign=root is not None and not ours and root.handle != 0,
            tree=tree,
            has_clsact=any(queue.kind == "clsact" for queue in qdiscs),
        )

    def execute(self, operation: TcOperation) -> None:
        """Makes one change.

        A class is deleted when its queue is empty, or after a second: what is left is lost then.

        Raises:
            KernelError: the kernel refused; the message says what was to be done.
        """
        try:
            self._execute(operation)
        except NetlinkError as error:
            reason = f"{operation.describe()}: {error.args[1]}"
            raise KernelError(reason, _hint(operation, error.code)) from error

    def class_statistics(self, device: str) -> dict[int, ClassStatistics]:
        """By minor. Empty where the root qdisc is not ours.

        HTB's own count of drops knows only what a leaf refused at its door, and nothing of what
        fq_codel drops later; so a class's drops are its leaf qdisc's, an inner class's the sum.
        """
        index = self._index(device)
        drops = {
            queue.parent & 0xFFFF: queue.statistics.drops
            for queue in self._qdiscs(index)
            if queue.parent >> 16 == MAJOR
        }
        return _totals(self._classes(index), drops)

    def _execute(self, operation: TcOperation) -> None:
        index = self._index(operation.device)
        match operation:
            case AddRoot(default_minor=minor):
                root, options = MAJOR << 16, encode_root(minor)
                self._send(RTM_NEWQDISC, _CREATE, index, _TC_H_ROOT, root, "htb", options)
            case DeleteRoot():
                self._send(RTM_DELQDISC, _CHANGE, index, _TC_H_ROOT, MAJOR << 16)
            case AddClass(spec=spec):
                self._class(_CREATE, index, spec)
            case ChangeClass(spec=spec):
                self._class(_CHANGE, index, spec)
            case DeleteClass(minor=minor):
                self._drain(index, minor)
                self._send(RTM_DELTCLASS, _CHANGE, index, 0, _handle(minor))
            case AddLeaf(leaf=leaf):
                self._leaf(_CREATE, index, leaf)
            case ChangeLeaf(leaf=leaf):
                self._leaf(_CHANGE, index, leaf)
            case DeleteLeaf(leaf=leaf):
                self._send(RTM_DELQDISC, _CHANGE, index, _handle(leaf.class_minor), 0)

    def _class(self, flags: int, index: int, spec: ClassSpec) -> None:
        parent = _handle(spec.parent_minor)
        options = encode_class(spec)
        self._send(RTM_NEWTCLASS, flags, index, parent, _handle(spec.minor), "htb", options)

    def _leaf(self, flags: int, index: int, leaf: LeafSpec) -> None:
        options = encode_leaf(leaf.options, change=flags == _CHANGE)
        parent, handle = _handle(leaf.class_minor), leaf.class_minor << 16
        self._send(RTM_NEWQDISC, flags, index, parent, handle, leaf.kind, options)

    def _drain(self, index: int, minor: int) -> None:
        deadline = time.monotonic() + _DRAIN_S
        while self._backlog_packets(index, minor) and time.monotonic() < deadline:
            time.sleep(_DRAIN_POLL_S)

    def _backlog_packets(self, index: int, minor: int) -> int:
        """The kernel answers a request for one class to the RTNLGRP_TC group, and to who asked only
        where it wants an echo (tclass_notify())."""
        answer = self._send(RTM_GETTCLASS, _CHANGE | NLM_F_ECHO, index, 0, _handle(minor))
        return sum(_queue(message).statistics.backlog_packets for message in answer)

    def _index(self, device: str) -> int:
        try:
            return int(self._route.link("get", ifname=device)[0]["index"])
        except NetlinkError as error:
            raise KernelError(
                f"there is no device {device} in this network namespace",
                "`ip link` lists the devices; `interfaces` in the file names them",
            ) from error

    def _qdiscs(self, index: int) -> list[_Queue]:
        """The kernel lists those of every device."""
        messages = self._send(RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP, index)
        return [_queue(message) for message in messages if message["index"] == index]

    def _classes(self, index: int) -> list[_Queue]:
        """The classes of our HTB. A fq_codel leaf lists every flow that waits in it as a class of
        its own; the parent in the request leaves them out (tc_dump_tclass_qdisc())."""
        flags = NLM_F_REQUEST | NLM_F_DUMP
        messages = self._send(RTM_GETTCLASS, flags, index, parent=MAJOR << 16)
        return [_queue(message) for message in messages]

    def _send(
        self,
        message_type: int,
        flags: int,
        index: int,
        parent: int = 0,
        handle: int = 0,
        kind: str = "",
        options: bytes = b"",
    ) -> tuple[Any, ...]:
        message = _Message()
        message["index"], message["parent"], message["handle"] = index, parent, handle
        if kind:
            message["attrs"] = [("TCA_KIND", kind), ("TCA_OPTIONS", options)]
        answers = self._route.nlm_request(message, message_type, flags)
        return tuple(answer for answer in answers if isinstance(answer, _Message))


def _handle(minor: int) -> int:
    return MAJOR << 16 | minor


def _parent_minor(queue: _Queue) -> int:
    return 0 if queue.parent == _TC_H_ROOT else queue.parent & 0xFFFF


def _queue(message: Any) -> _Queue:
    return _Queue(
        kind=str(message.get_attr("TCA_KIND")),
        handle=message["handle"],
        parent=message["parent"],
        options=message.get_attr("TCA_OPTIONS") or b"",
        statistics=decode_statistics(message.get_attr("TCA_STATS2") or b""),
    )


def _classes(listed: list[_Queue]) -> tuple[ClassSpec, ...]:
    """Parents before children; the kernel lists them by hash."""
    specs = [
        decode_class(queue.handle & 0xFFFF, _parent_minor(queue), queue.options) for queue in listed
    ]
    parents = {spec.minor: spec.parent_minor for spec in specs}
    return tuple(sorted(specs, key=lambda spec: (_depth(spec.minor, parents), spec.minor)))


def _depth(minor: int, parents: dict[int, int]) -> int:
    return 1 + _depth(parents[minor], parents) if minor in parents else 0


def _leaves(qdiscs: list[_Queue]) -> tuple[LeafSpec, ...]:
    """The qdiscs below our classes. HTB's built-in fifo of a class without leaf is not listed."""
    leaves = []
    for queue in qdiscs:
        if queue.parent >> 16 == MAJOR:
            minor = queue.parent & 0xFFFF
            expected = queue.handle == minor << 16
            options = (
                decode_leaf(queue.kind, queue.options) if expected else OtherOptions(queue.kind)
            )
            leaves.append(LeafSpec(minor, options))
    return tuple(sorted(leaves, key=lambda leaf: leaf.class_minor))


def _totals(classes: list[_Queue], leaf_drops: dict[int, int]) -> dict[int, ClassStatistics]:
    """HTB counts bytes and packets of inner classes itself; drops and backlog are added up here."""
    drops: dict[int, int] = {}
    backlog: dict[int, int] = {}
    parents = {queue.handle & 0xFFFF: _parent_minor(queue) for queue in classes}
    inner = set(parents.values())
    for queue in classes:
        minor = queue.handle & 0xFFFF
        if minor in inner:
            continue
        dropped = leaf_drops.get(minor, queue.statistics.drops)
        for member in _upwards(minor, parents):
            drops[member] = drops.get(member, 0) + dropped
            backlog[member] = backlog.get(member, 0) + queue.statistics.backlog_bytes
    return {
        minor: ClassStatistics(
            queue.statistics.bytes, queue.statistics.packets, drops[minor], backlog[minor]
        )
        for queue in classes
        for minor in [queue.handle & 0xFFFF]
    }


def _upwards(minor: int, parents: dict[int, int]) -> Iterator[int]:
    """The class itself and every class above it."""
    while minor in parents:
        yield minor
        minor = parents[minor]


def _hint(operation: TcOperation, code: int) -> str:
    if code == errno.EPERM:
        return "shaper needs root (CAP_NET_ADMIN)"
    match operation:
        case AddRoot() if code == errno.EEXIST:
            return f"remove the other root qdisc with `tc qdisc del dev {operation.device} root`"
        case AddRoot() if code in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL):
            return "the kernel needs CONFIG_NET_SCH_HTB (module sch_htb)"
        case AddLeaf(leaf=leaf) if code == errno.ENOENT:
            return f"the kernel needs CONFIG_NET_SCH_{leaf.kind.upper()} (module sch_{leaf.kind})"
    return ""
