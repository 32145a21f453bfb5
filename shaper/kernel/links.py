"""Links and addresses of the current network namespace, by rtnetlink."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from shaper.errors import KernelError
from shaper.kernel.netlink import RouteSocket, netlink_errors
from shaper.model import Address

IFA_F_NODAD = 0x02
_FOREVER = 0xFFFFFFFF
_ARPHRD_ETHER = 1


@dataclass(frozen=True, slots=True)
class Link:
    """One device. `xdp_program_id` 0: none; `xdp_mode`: native | generic | off.

    `ethernet`: its packets begin with an Ethernet header. `addresses` are its host addresses (/32,
    /128): the form in which services are announced.
    """

    index: int
    mtu: int
    ethernet: bool
    addresses: frozenset[Address]
    xdp_program_id: int
    xdp_mode: str


class Links(RouteSocket):
    """Links and their addresses, in the network namespace of the calling thread."""

    def names(self) -> dict[int, str]:
        """Every device of the namespace: index -> name."""
        with netlink_errors("listing the devices"):
            return {
                int(message["index"]): str(message.get_attr("IFLA_IFNAME"))
                for message in self._route.get_links()
            }

    def find(self, device: str) -> Link | None:
        """The device with its addresses, or None where no device has this name (an alternative
        name does not count: sysctls do not know it)."""
        with netlink_errors(f"{device}: looking at the device"):
            indices = self._route.link_lookup(ifname=device)
            if not indices:
                return None
            message = self._route.link("get", index=indices[0])[0]
            if message.get_attr("IFLA_IFNAME") != device:
                return None
            index = int(indices[0])
            addresses = self._host_addresses(index)
        program_id, mode = _xdp(message.get_attr("IFLA_XDP"))
        return Link(
            index=index,
            mtu=int(message.get_attr("IFLA_MTU")),
            ethernet=message["ifi_type"] == _ARPHRD_ETHER,
            addresses=addresses,
            xdp_program_id=program_id,
            xdp_mode=mode,
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
        with netlink_errors(f"{device}: announcing {address}", ignore=(errno.EEXIST,)):
            self._address("add", device, address, options)

    def remove_address(self, device: str, address: Address) -> None:
        with netlink_errors(f"{device}: withdrawing {address}", ignore=(errno.EADDRNOTAVAIL,)):
            self._address("del", device, address, {})

    def _address(self, verb: str, device: str, address: Address, options: dict[str, Any]) -> None:
        self._route.addr(
            verb,
            index=self.get(device).index,
            address=str(address),
            prefixlen=address.max_prefixlen,
            **options,
        )

    def _host_addresses(self, index: int) -> frozenset[Address]:
        found = set()
        for message in self._route.get_addr(index=index):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text and message["prefixlen"] == ip_address(text).max_prefixlen:
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
