"""Reads back everything a plan compares: devices, queues, attachments, pins, sysctls, tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shaper.errors import KernelError
from shaper.kernel import loader, sysctl
from shaper.kernel.attach import Attachments
from shaper.kernel.compile import PROGRAMS, MapSpec
from shaper.kernel.links import Links
from shaper.kernel.tables import DataPlaneTables
from shaper.kernel.tc import TrafficControl
from shaper.reconcile.desired import Desired
from shaper.reconcile.entries import Tables
from shaper.reconcile.plan import Actual, DeviceState


@dataclass(frozen=True, slots=True)
class Observer:
    """Netlink sockets in the network namespace of the calling thread, and the instance's pins."""

    links: Links
    attachments: Attachments
    tc: TrafficControl
    pins: Path

    @staticmethod
    def sysctls(names: Iterable[str]) -> dict[str, str]:
        return sysctl.read_family(names)

    def observe(
        self, devices: Iterable[str], sysctls: Iterable[str], maps: dict[str, MapSpec] | None
    ) -> Actual:
        """The present state. Devices that do not exist are left out.

        Args:
            sysctls: names to read; an `….all.…` name brings every device's.
            maps: how to read the tables; None where no object is known, and the tables are empty.
        """
        programs = loader.pinned_programs(self.pins)
        names: dict[str, set[str]] = {}
        for path in programs.values():
            digest, _, program = path.partition("/")
            names.setdefault(digest, set()).add(program)
        return Actual(
            devices={
                device: state
                for device in devices
                if (state := self._device(device, programs)) is not None
            },
            digests=loader.pinned_digests(self.pins),
            complete=frozenset(
                digest for digest, found in names.items() if found == PROGRAMS.keys()
            ),
            pins=self.pins.is_dir(),
            sysctls=sysctl.read_family(sysctls),
            tables=self._tables(maps),
        )

    def _device(self, device: str, programs: dict[int, str]) -> DeviceState | None:
        link = self.links.find(device)
        if link is None:
            return None
        observed = self.tc.observe(device)
        filters = self.attachments.egress_filters(link.index) if observed.has_clsact else None
        classifier = xdp = None
        if filters is not None and filters.program_id:
            classifier = programs.get(filters.program_id, "unknown")
        if link.xdp_program_id:
            xdp = programs.get(link.xdp_program_id)
        return DeviceState(
            tree=observed.tree,
            foreign_qdisc=observed.root_kind if observed.foreign else None,
            has_clsact=observed.has_clsact,
            clsact_shared=filters is not None and filters.others,
            classifier=classifier,
            xdp=xdp,
            foreign_xdp=bool(link.xdp_program_id) and xdp is None,
            addresses=link.addresses,
        )

    def _tables(self, specs: dict[str, MapSpec] | None) -> Tables:
        if specs is None:
            return Tables()
        maps = loader.open_maps(specs, self.pins)
        if maps is None:
            return Tables()
        try:
            return DataPlaneTables(maps).read()
        finally:
            loader.close_maps(maps)


def refuse_foreign(desired: Desired, actual: Actual) -> None:
    """Raises KernelError where somebody else holds what `desired` needs; nothing is replaced."""
    for device, state in actual.devices.items():
        if device in desired.trees and state.foreign_qdisc:
            raise KernelError(
                f"{device} has a root qdisc that shaper did not make ({state.foreign_qdisc})",
                f"remove it first: tc qdisc del dev {device} root",
            )
        if device in desired.xdp_devices and state.foreign_xdp:
            raise KernelError(
                f"{device} has an XDP program that shaper did not attach",
                f"remove it first: ip link set dev {device} xdp off",
            )
