"""Links and addresses of the current network namespace, by rtnetlink."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from shaper.errors import KernelError
from shaper.model import Address

IFA_F_NODAD = 0x02
_FOREVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Link:
    """One device. `xdp_program_id` 0: none; `xdp_mode`: native | generic | off."""

    index: int
    mtu: int
    addresses: frozenset[Address]
    xdp_program_id: int
    xdp_mode: str


class Links:
    """A netlink socket in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()

    def __enter__(self) -> Links:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def find(self, device: str) -> Link | None:
        """The device with its addresses, or None where there is no such device."""
        indices = self._route.link_lookup(ifname=device)
        if not indices:
            return None
        index = int(indices[0])
        message = self._route.link("get", index=index)[0]
        program_id, mode = _xdp(message.get_attr("IFLA_XDP"))
        return Link(
            index, int(message.get_attr("IFLA_MTU")), self._addresses(index), program_id, mode
        )

    def get(self, device: str) -> Link:
        """Like `find`. Raises KernelError where there is no such device."""
        link = self.find(device)
        if link is None:
            raise KernelError(
                f"there is no device {device} in this network namespace",
                "`ip link` lists the devices; `interfaces` in the file names them",
            )
        return link

    def add_address(self, device: str, address: Address) -> None:
        """Adds a host address. IPv6 without duplicate detection, so that it answers at once, and
        deprecated, so that it is never picked as source for the gateway's own traffic."""
        options: dict[str, Any] = {}
        if address.version == 6:
            options["IFA_FLAGS"] = IFA_F_NODAD
            options["IFA_CACHEINFO"] = {"ifa_preferred": 0, "ifa_valid": _FOREVER}
        self._address("add", device, address, "announcing", options)

    def remove_address(self, device: str, address: Address) -> None:
        self._address("del", device, address, "withdrawing", {})

    def _address(
        self, verb: str, device: str, address: Address, doing: str, options: dict[str, Any]
    ) -> None:
        try:
            self._route.addr(
                verb,
                index=self.get(device).index,
                address=str(address),
                prefixlen=address.max_prefixlen,
                **options,
            )
        except NetlinkError as error:
            raise KernelError(f"{device}: {doing} {address}: {error.args[1]}") from error

    def _addresses(self, index: int) -> frozenset[Address]:
        found = set()
        for message in self._route.get_addr(index=index):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text:
                found.add(ip_address(text))
        return frozenset(found)


def _xdp(attribute: Any) -> tuple[int, str]:
    """(program id, mode) of IFLA_XDP; which of the per-mode ids is present tells the mode."""
    if attribute is None:
        return 0, "off"
    driver = attribute.get_attr("IFLA_XDP_DRV_PROG_ID")
    generic = attribute.get_attr("IFLA_XDP_SKB_PROG_ID")
    offloaded = attribute.get_attr("IFLA_XDP_HW_PROG_ID")
    if driver or offloaded:
        return int(driver or offloaded), "native"
    return (int(generic), "generic") if generic else (0, "off")
