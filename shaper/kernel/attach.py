"""Attaches the programs: XDP at ingress, a direct-action filter at clsact egress.

The filter continues with TC_ACT_UNSPEC, so other tools' filters behind it still see the packet.
What is not ours is never replaced: XDP goes to a device without a program, or in place of one whose
id the caller knows to be ours; our filter is recognised by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg import sched_bpf

from shaper.errors import KernelError

EGRESS = 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)
FILTER_HANDLE = 1
FILTER_PRIORITY = 0x5348
_NAME_PREFIX = "shaper/"
_XDP_FLAGS_UPDATE_IF_NOEXIST = 1


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
class EgressFilters:
    """What hangs at a device's clsact. `program_id` 0: our filter is not there."""

    program_id: int
    others: bool


class Attachments:
    """A netlink socket in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()

    def __enter__(self) -> Attachments:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def egress_filters(self, index: int) -> EgressFilters:
        """What clsact holds in both directions (an ingress filter of others keeps clsact alive)."""
        program_id = 0
        others = False
        for parent in (EGRESS, EGRESS - 1):
            for message in self._route.get_filters(index, parent=parent):
                options = message.get_attr("TCA_OPTIONS")
                if options is None:
                    continue  # the head of a chain, without a filter of its own
                if parent == EGRESS and self._is_ours(message, options):
                    program_id = int(options.get_attr("TCA_BPF_ID") or 0)
                else:
                    others = True
        return EgressFilters(program_id, others)

    @staticmethod
    def _is_ours(message: Any, options: Any) -> bool:
        if message.get_attr("TCA_KIND") != "bpf" or message["info"] >> 16 != FILTER_PRIORITY:
            return False
        return str(options.get_attr("TCA_BPF_NAME") or "").startswith(_NAME_PREFIX)

    def add_clsact(self, index: int, device: str) -> None:
        try:
            self._route.tc("add", "clsact", index)
        except NetlinkError as error:
            raise KernelError(
                f"{device}: adding clsact: {error.args[1]}",
                "the kernel needs CONFIG_NET_SCH_INGRESS (module sch_ingress)",
            ) from error

    def remove_clsact(self, index: int, device: str) -> None:
        try:
            self._route.tc("del", "clsact", index)
        except NetlinkError as error:
            raise KernelError(f"{device}: removing clsact: {error.args[1]}") from error

    def attach_classifier(self, index: int, device: str, fd: int, name: str) -> None:
        """Adds our filter or swaps its program (the packet sees either the old or the new one)."""
        try:
            self._route.tc(
                "replace-filter",
                "bpf",
                index,
                FILTER_HANDLE,
                fd=fd,
                name=f"{_NAME_PREFIX}{name}",
                parent=EGRESS,
                prio=FILTER_PRIORITY,
                direct_action=True,
            )
        except NetlinkError as error:
            raise KernelError(
                f"{device}: attaching {name} at clsact egress: {error.args[1]}",
                "the kernel needs CONFIG_NET_CLS_BPF (module cls_bpf)",
            ) from error

    def detach_classifier(self, index: int, device: str) -> None:
        try:
            self._route.tc(
                "del-filter", "bpf", index, FILTER_HANDLE, parent=EGRESS, prio=FILTER_PRIORITY
            )
        except NetlinkError as error:
            raise KernelError(f"{device}: detaching from clsact egress: {error.args[1]}") from error

    def attach_xdp(self, index: int, device: str, fd: int, replaces: bool) -> None:
        """Native where the driver can, else generic (the kernel chooses).

        Args:
            replaces: the program there now is ours; it is swapped in one step.
        """
        flags = 0 if replaces else _XDP_FLAGS_UPDATE_IF_NOEXIST
        try:
            self._route.link(
                "set",
                index=index,
                xdp={"attrs": [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags)]},
            )
        except NetlinkError as error:
            raise KernelError(
                f"{device}: attaching XDP: {error.args[1]}",
                "an XDP program of somebody else may be there (`ip link show`), or the MTU is too "
                "large for the driver",
            ) from error

    def detach_xdp(self, index: int, device: str) -> None:
        try:
            self._route.link("set", index=index, xdp_fd=-1)
        except NetlinkError as error:
            raise KernelError(f"{device}: detaching XDP: {error.args[1]}") from error
