"""Names and addresses of a lab. Pure.

    client 1 ─┐                                             ┌─ s1
    client 2 ─┼─ bridge "wan" ── wan0 gateway lan0 ── bridge "lan" ─┼─ s2
    …        ─┘                                             └─ …

Both bridges live in one more namespace, the switch. Virtual addresses are in a network of their
own that clients reach through the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

CLIENTS4: Final = IPv4Network("198.18.0.0/16")
CLIENTS6: Final = IPv6Network("2001:db8:1::/64")
BACKENDS4: Final = IPv4Network("203.0.113.0/24")
BACKENDS6: Final = IPv6Network("2001:db8:2::/64")
VIRTUAL4: Final = IPv4Network("198.51.100.0/24")
VIRTUAL6: Final = IPv6Network("2001:db8:10::/64")

WAN_DEVICE: Final = "wan0"
LAN_DEVICE: Final = "lan0"
HOST_DEVICE: Final = "net0"
"""The only device of a client and of a backend."""

_MAX_BACKENDS: Final = 200
_MAX_CLIENTS: Final = 200
_MAX_SOURCES: Final = 250


@dataclass(frozen=True, slots=True)
class LabSpec:
    """How big a lab is. Every client has `sources` IPv4 (and as many IPv6) addresses."""

    backends: int = 4
    clients: int = 1
    sources: int = 8
    ipv6: bool = True

    def __post_init__(self) -> None:
        for value, limit, what in (
            (self.backends, _MAX_BACKENDS, "backends"),
            (self.clients, _MAX_CLIENTS, "clients"),
            (self.sources, _MAX_SOURCES, "sources"),
        ):
            if not 1 <= value <= limit:
                raise ValueError(f"{what}: {value} is not in 1 … {limit}")


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A client or a backend: its name and its addresses, without a prefix length."""

    name: str
    addresses4: tuple[IPv4Address, ...]
    addresses6: tuple[IPv6Address, ...]


@dataclass(frozen=True, slots=True)
class LabPlan:
    clients: tuple[HostPlan, ...]
    backends: tuple[HostPlan, ...]
    ipv6: bool


def plan_lab(spec: LabSpec) -> LabPlan:
    """Clients are c1, c2, …; backends s1, s2, …"""
    clients = tuple(
        HostPlan(
            f"c{number}",
            tuple(CLIENTS4[number * 256 + source] for source in range(1, spec.sources + 1)),
            tuple(CLIENTS6[number * 65536 + source] for source in range(1, spec.sources + 1))
            if spec.ipv6
            else (),
        )
        for number in range(1, spec.clients + 1)
    )
    backends = tuple(
        HostPlan(
            f"s{number}",
            (BACKENDS4[10 + number],),
            (BACKENDS6[0x10 + number],) if spec.ipv6 else (),
        )
        for number in range(1, spec.backends + 1)
    )
    return LabPlan(clients, backends, spec.ipv6)


def gateway_address(network: IPv4Network | IPv6Network) -> str:
    """The gateway's own address in a network (its first host), as text."""
    return str(network[1])


def virtual_address(number: int, *, ipv6: bool = False) -> Address:
    """The VIP with a number: 10 -> 198.51.100.10 or 2001:db8:10::10 (the digits look alike)."""
    return VIRTUAL6[int(str(number), 16)] if ipv6 else VIRTUAL4[number]


def cable_commands(plan: LabPlan, namespaces: dict[str, str]) -> list[str]:
    """`ip -batch` lines that join the namespaces.

    Args:
        namespaces: role ("switch", "gateway", "c1", "s1", …) -> the namespace's name.

    veth pairs are born in their namespaces (`netns` on both ends), so nothing appears in the
    first namespace even for a moment.
    """
    switch, gateway = namespaces["switch"], namespaces["gateway"]
    lines = [
        _cable(WAN_DEVICE, gateway, "wan-gw", switch),
        _cable(LAN_DEVICE, gateway, "lan-gw", switch),
    ]
    for side, hosts in (("wan", plan.clients), ("lan", plan.backends)):
        lines += [
            _cable(HOST_DEVICE, namespaces[host.name], f"{side}-{host.name}", switch)
            for host in hosts
        ]
    return lines


def _cable(device: str, namespace: str, port: str, switch: str) -> str:
    return f"link add {device} netns {namespace} type veth peer name {port} netns {switch}"


def switch_commands(plan: LabPlan) -> list[str]:
    """Bridges without multicast snooping, which would delay neighbour discovery."""
    lines = ["link set lo up"]
    for side, hosts in (("wan", plan.clients), ("lan", plan.backends)):
        lines.append(f"link add {side} type bridge stp_state 0 mcast_snooping 0")
        ports = [f"{side}-gw", *(f"{side}-{host.name}" for host in hosts)]
        lines += [f"link set {port} master {side} up" for port in ports]
        lines.append(f"link set {side} up")
    return lines


def gateway_commands(plan: LabPlan) -> list[str]:
    lines = ["link set lo up"]
    for device, networks in (
        (WAN_DEVICE, (CLIENTS4, CLIENTS6)),
        (LAN_DEVICE, (BACKENDS4, BACKENDS6)),
    ):
        lines.append(f"link set {device} up")
        lines += [
            _add_address(gateway_address(network), network, device)
            for network in networks
            if network.version == 4 or plan.ipv6
        ]
    return lines


def host_commands(
    host: HostPlan, networks: tuple[IPv4Network, IPv6Network], *, ipv6: bool
) -> list[str]:
    network4, network6 = networks
    lines = ["link set lo up", f"link set {HOST_DEVICE} up"]
    lines += [_add_address(str(address), network4, HOST_DEVICE) for address in host.addresses4]
    lines.append(f"route add default via {gateway_address(network4)}")
    if ipv6:
        lines += [_add_address(str(address), network6, HOST_DEVICE) for address in host.addresses6]
        lines.append(f"route add ::/0 via {gateway_address(network6)}")
    return lines


def _add_address(address: str, network: IPv4Network | IPv6Network, device: str) -> str:
    """Duplicate address detection would keep an IPv6 address tentative for a second: `nodad`."""
    suffix = " nodad" if network.version == 6 else ""
    return f"address add {address}/{network.prefixlen} dev {device}{suffix}"
