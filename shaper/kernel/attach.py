"""Attaches the programs: XDP at ingress, a direct-action filter at clsact egress.

The filter continues with TC_ACT_UNSPEC, so other tools' filters behind it still see the packet.
What is not ours is never replaced: XDP goes to a device without a program, or in place of one that
the caller knows to be ours; our filter is recognised by its priority and name.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg import sched_bpf

from shaper.errors import KernelError
from shaper.kernel.links import Link
from shaper.kernel.netlink import RouteSocket, netlink_errors

EGRESS: Final = 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)
INGRESS: Final = 0xFFFFFFF2
FILTER_HANDLE: Final = 1
FILTER_PRIORITY: Final = 0x5348
_NAME_PREFIX: Final = "shaper/"
_GONE: Final = (errno.ENOENT, errno.ENODEV)

_XDP_UPDATE_IF_NOEXIST: Final = 1
_XDP_MODES: Final = {"off": 0, "generic": 2, "native": 4}
"""XDP_FLAGS_SKB_MODE and XDP_FLAGS_DRV_MODE: a program is replaced and removed only by naming the
mode that it is in."""

_XDP_REFUSED: Final = (errno.ERANGE, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOMEM, errno.EBUSY)
"""What drivers answer where they cannot run the program natively (an MTU that is too large, LRO,
too few queues). The kernel then does not fall back by itself (net/core/dev.c, dev_xdp_attach)."""


class _BpfOptions(sched_bpf.options):  # type: ignore[misc]
    """pyroute2 stops before the attributes that tell which program a filter runs."""

    nla_map = (
        *sched_bpf.options.nla_map,
        ("TCA_BPF_FLAGS_GEN", "uint32"),
        ("TCA_BPF_TAG", "hex"),
        ("TCA_BPF_ID", "uint32"),
    )


sched_bpf.options = _BpfOptions


@dataclass(frozen=True, slots=True)
class Filters:
    """What hangs at a device's clsact, in both directions. `program_id` 0: our filter is not
    there."""

    program_id: int
    others: bool


class Attachments(RouteSocket):
    """Programs on devices, in the network namespace of the calling thread."""

    def qdiscs(self) -> Iterator[tuple[int, str, int]]:
        """Every qdisc of the namespace: (device index, kind, handle)."""
        with netlink_errors("listing the qdiscs"):
            messages = list(self._route.get_qdiscs())
        for message in messages:
            yield int(message["index"]), str(message.get_attr("TCA_KIND")), int(message["handle"])

    def has_ingress(self, index: int) -> bool:
        """Whether the older `ingress` qdisc is in clsact's place."""
        return any(at == index and kind == "ingress" for at, kind, _ in self.qdiscs())

    def filters(self, index: int) -> Filters:
        program_id = 0
        others = False
        for parent in (EGRESS, INGRESS):
            with netlink_errors(f"device {index}: reading its filters"):
                messages = list(self._route.get_filters(index, parent=parent))
            for message in messages:
                options = message.get_attr("TCA_OPTIONS")
                if options is None:
                    continue  # the head of a chain, without a filter of its own
                if parent == EGRESS and _is_ours(message, options):
                    program_id = int(options.get_attr("TCA_BPF_ID") or 0)
                else:
                    others = True
        return Filters(program_id, others)

    def add_clsact(self, link: Link, device: str) -> None:
        with netlink_errors(
            f"{device}: adding clsact",
            "the kernel needs CONFIG_NET_SCH_INGRESS (module sch_ingress)",
            ignore=(errno.EEXIST,),
        ):
            self._route.tc("add", "clsact", link.index)

    def remove_clsact(self, link: Link, device: str) -> None:
        with netlink_errors(f"{device}: removing clsact", ignore=(*_GONE, errno.EINVAL)):
            self._route.tc("del", "clsact", link.index)

    def attach_classifier(self, link: Link, device: str, fd: int, name: str) -> None:
        """Adds our filter or swaps its program (the packet sees either the old or the new one)."""
        with netlink_errors(
            f"{device}: attaching {name} at clsact egress",
            "the kernel needs CONFIG_NET_CLS_BPF (module cls_bpf)",
        ):
            self._route.tc(
                "replace-filter",
                "bpf",
                link.index,
                FILTER_HANDLE,
                fd=fd,
                name=f"{_NAME_PREFIX}{name}",
                parent=EGRESS,
                prio=FILTER_PRIORITY,
                direct_action=True,
            )

    def detach_classifier(self, link: Link, device: str) -> None:
        with netlink_errors(
            f"{device}: detaching from clsact egress", ignore=(*_GONE, errno.EINVAL)
        ):
            self._route.tc(
                "del-filter", "bpf", link.index, FILTER_HANDLE, parent=EGRESS, prio=FILTER_PRIORITY
            )

    def attach_xdp(self, link: Link, device: str, fd: int) -> None:
        """In place of our own program, in its mode and in one step; else natively where the
        driver can, else generic."""
        doing = f"{device}: attaching XDP"
        if link.xdp_program_id:
            with netlink_errors(doing):
                self._set_xdp(link.index, fd, _XDP_MODES[link.xdp_mode])
            return
        try:
            self._set_xdp(link.index, fd, _XDP_UPDATE_IF_NOEXIST)
            return
        except NetlinkError as error:
            if error.code not in _XDP_REFUSED:
                raise KernelError(f"{doing}: {error.args[1]}") from error
        with netlink_errors(doing, "the driver refuses XDP, native and generic"):
            self._set_xdp(link.index, fd, _XDP_UPDATE_IF_NOEXIST | _XDP_MODES["generic"])

    def detach_xdp(self, link: Link, device: str) -> None:
        if link.xdp_program_id:
            with netlink_errors(f"{device}: detaching XDP"):
                self._set_xdp(link.index, -1, _XDP_MODES[link.xdp_mode])

    def _set_xdp(self, index: int, fd: int, flags: int) -> None:
        attributes = [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags)]
        self._route.link("set", index=index, xdp={"attrs": attributes})


def _is_ours(message: Any, options: Any) -> bool:
    if message.get_attr("TCA_KIND") != "bpf" or message["info"] >> 16 != FILTER_PRIORITY:
        return False
    return str(options.get_attr("TCA_BPF_NAME") or "").startswith(_NAME_PREFIX)
