"""Named packets, as scapy builds them, and what becomes of them.

Every builder gives a whole frame with correct lengths and checksums, computed from scratch: so the
expected output of a rewrite is the same packet built with the other addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

MAC: Final = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
PAYLOAD: Final = b"the quick brown fox jumps over the lazy dog"


@dataclass(frozen=True, slots=True)
class Ends:
    """Who talks to whom; the family follows from the addresses."""

    source: str
    source_port: int
    destination: str
    destination_port: int

    def reversed(self) -> Ends:
        return Ends(self.destination, self.destination_port, self.source, self.source_port)

    def to(self, address: str, port: int) -> Ends:
        return Ends(self.source, self.source_port, address, port)


def network(ends: Ends, **fields: Any) -> Packet:
    layer = IPv6 if ":" in ends.source else IP
    return layer(src=ends.source, dst=ends.destination, **fields)


def transport(ends: Ends, protocol: str, flags: str = "S", payload: bytes = PAYLOAD) -> Packet:
    ports = {"sport": ends.source_port, "dport": ends.destination_port}
    if protocol == "udp":
        return UDP(**ports) / Raw(payload)
    options = [("MSS", 1460), ("NOP", None), ("WScale", 7)] if flags == "S" else []
    return TCP(**ports, flags=flags, seq=1000, ack=2000, options=options) / Raw(payload)


class Template:
    """A frame of which only the ends change: scapy would take a second for a thousand.

    The checksums are those of the first frame; the programs change them by increments and look at
    nothing else.
    """

    def __init__(self, ends: Ends, protocol: str, flags: str = "S") -> None:
        self._frame = bytearray(udp(ends) if protocol == "udp" else tcp(ends, flags))
        self._is_ipv6 = ":" in ends.source

    def between(self, ends: Ends) -> bytes:
        addresses, ports = (22, 54) if self._is_ipv6 else (26, 34)
        both = ip_address(ends.source).packed + ip_address(ends.destination).packed
        self._frame[addresses : addresses + len(both)] = both
        struct.pack_into("!HH", self._frame, ports, ends.source_port, ends.destination_port)
        return bytes(self._frame)


def frame(packet: Packet) -> bytes:
    return bytes(Ether(**MAC) / packet)


def tcp(ends: Ends, flags: str = "S") -> bytes:
    return frame(network(ends) / transport(ends, "tcp", flags))


def udp(ends: Ends, payload: bytes = PAYLOAD) -> bytes:
    return frame(network(ends) / transport(ends, "udp", payload=payload))


def udp_without_checksum(ends: Ends) -> bytes:
    packet = network(ends) / transport(ends, "udp")
    packet[UDP].chksum = 0
    return frame(packet)


def udp_with_sum_zero(ends: Ends, other: Ends) -> bytes:
    """A datagram between `ends` whose checksum, once it goes between `other`, computes to 0."""
    probe = network(other) / UDP(sport=other.source_port, dport=other.destination_port)
    check = int(type(probe)(bytes(probe / Raw(b"\0\0")))[UDP].chksum)
    return udp(ends, payload=check.to_bytes(2, "big"))


def padded(ends: Ends) -> bytes:
    """A short packet that Ethernet pads to 60 bytes; the padding is no part of it."""
    return tcp_without_payload(ends).ljust(60, b"\xaa")


def tcp_without_payload(ends: Ends, flags: str = "S") -> bytes:
    ports = {"sport": ends.source_port, "dport": ends.destination_port}
    return frame(network(ends) / TCP(**ports, flags=flags, seq=1, ack=1))


def vlan(ends: Ends) -> bytes:
    return frame(Dot1Q(vlan=42) / network(ends) / transport(ends, "tcp"))


def qinq(ends: Ends) -> bytes:
    return frame(Dot1AD(vlan=7) / Dot1Q(vlan=42) / network(ends) / transport(ends, "tcp"))


def triple_vlan(ends: Ends) -> bytes:
    tags = Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3)
    return frame(tags / network(ends) / transport(ends, "tcp"))


def ip_options(ends: Ends) -> bytes:
    """IPv4 only: the header is 40 bytes long."""
    options = [IPOption_NOP(), IPOption_Timestamp(flg=0, length=16, pointer=5), IPOption_NOP()]
    return frame(network(ends, options=options) / transport(ends, "tcp"))


def _extended(ends: Ends, *headers: Packet, protocol: str = "tcp") -> bytes:
    packet = network(ends)
    for header in headers:
        packet = packet / header
    return frame(packet / transport(ends, protocol))


def hop_by_hop(ends: Ends) -> bytes:
    return _extended(ends, IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(20))]))


def extensions(ends: Ends) -> bytes:
    """Hop-by-hop, destination options, a used-up routing header and an atomic fragment."""
    return _extended(
        ends,
        IPv6ExtHdrHopByHop(options=[PadN(optdata=b"")]),
        IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]),
        IPv6ExtHdrRouting(segleft=0, addresses=[]),
        IPv6ExtHdrFragment(offset=0, m=0, id=5),
        protocol="udp",
    )


def routing_unfinished(ends: Ends) -> bytes:
    """The destination is only the next stop."""
    return _extended(ends, IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8:99::1"]))


def too_many_extensions(ends: Ends) -> bytes:
    return _extended(ends, *(IPv6ExtHdrDestOpt(options=[PadN(optdata=b"")]) for _ in range(7)))


def first_fragment(ends: Ends) -> bytes:
    if ":" in ends.source:
        return _extended(ends, IPv6ExtHdrFragment(offset=0, m=1, id=9), protocol="udp")
    return frame(network(ends, flags="MF", id=9) / transport(ends, "udp"))


def later_fragment(ends: Ends) -> bytes:
    """What it carries looks like a transport header and is none."""
    if ":" in ends.source:
        return _extended(ends, IPv6ExtHdrFragment(offset=8, m=0, id=9), protocol="udp")
    return frame(network(ends, frag=8, id=9) / transport(ends, "udp"))


def arp(ends: Ends) -> bytes:
    return bytes(Ether(src=MAC["src"], dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=ends.destination))


def unknown_protocol(ends: Ends) -> bytes:
    packet = network(ends)
    packet.__setattr__("nh" if ":" in ends.source else "proto", 132)
    return frame(packet / Raw(bytes(40)))


def unknown_ethertype(ends: Ends) -> bytes:
    return bytes(Ether(**MAC, type=0x88CC) / network(ends) / transport(ends, "tcp"))


def lying_length(ends: Ends) -> bytes:
    """The IP header counts more bytes than there are."""
    field = "plen" if ":" in ends.source else "len"
    return frame(network(ends, **{field: 1400}) / transport(ends, "tcp"))


def lying_data_offset(ends: Ends) -> bytes:
    packet = network(ends) / TCP(
        sport=ends.source_port, dport=ends.destination_port, flags="S", dataofs=15
    )
    return frame(packet)


def short_data_offset(ends: Ends) -> bytes:
    ports = {"sport": ends.source_port, "dport": ends.destination_port}
    return frame(network(ends) / TCP(**ports, flags="S", dataofs=4) / Raw(PAYLOAD))


def lying_udp_length(ends: Ends) -> bytes:
    ports = {"sport": ends.source_port, "dport": ends.destination_port}
    return frame(network(ends) / UDP(**ports, len=900) / Raw(PAYLOAD))


def short_udp_length(ends: Ends) -> bytes:
    ports = {"sport": ends.source_port, "dport": ends.destination_port}
    return frame(network(ends) / UDP(**ports, len=7) / Raw(PAYLOAD))


def wrong_version(ends: Ends) -> bytes:
    return frame(network(ends, version=5) / transport(ends, "tcp"))


Builder = Callable[[Ends], bytes]


def _icmpv6(ends: Ends, message: Packet) -> bytes:
    ethernet = Ether(src=MAC["src"], dst=MAC["dst"])
    return bytes(ethernet / IPv6(src=ends.source, dst=ends.destination, hlim=255) / message)


def neighbour_solicitation(ends: Ends) -> bytes:
    return _icmpv6(ends, ICMPv6ND_NS(tgt=ends.destination))


def neighbour_advertisement(ends: Ends) -> bytes:
    return _icmpv6(ends, ICMPv6ND_NA(tgt=ends.source))


def router_solicitation(ends: Ends) -> bytes:
    return _icmpv6(ends, ICMPv6ND_RS())


def ping6(ends: Ends) -> bytes:
    return _icmpv6(ends, ICMPv6EchoRequest())


NEIGHBOUR_DISCOVERY: Final[tuple[Builder, ...]] = (
    neighbour_solicitation,
    neighbour_advertisement,
    router_solicitation,
)

TRANSLATED: Final[dict[str, Builder]] = {
    "tcp": tcp,
    "udp": udp,
    "udp-without-checksum": udp_without_checksum,
    "padded": padded,
    "vlan": vlan,
    "qinq": qinq,
}
"""Packets of both families that belong to a flow whatever they carry on top."""

TRANSLATED_IPV4: Final[dict[str, Builder]] = TRANSLATED | {"ip-options": ip_options}
TRANSLATED_IPV6: Final[dict[str, Builder]] = TRANSLATED | {
    "hop-by-hop": hop_by_hop,
    "extensions": extensions,
}

UNTOUCHED: Final[dict[str, Builder]] = {
    "triple-vlan": triple_vlan,
    "first-fragment": first_fragment,
    "later-fragment": later_fragment,
    "arp": arp,
    "unknown-protocol": unknown_protocol,
    "unknown-ethertype": unknown_ethertype,
    "lying-length": lying_length,
    "lying-data-offset": lying_data_offset,
    "short-data-offset": short_data_offset,
    "lying-udp-length": lying_udp_length,
    "short-udp-length": short_udp_length,
    "wrong-version": wrong_version,
}
"""Packets that name a service's address and are yet not for it."""

UNTOUCHED_IPV6: Final[dict[str, Builder]] = UNTOUCHED | {
    "routing-unfinished": routing_unfinished,
    "too-many-extensions": too_many_extensions,
}
UNTOUCHED_IPV6.pop("arp")


def checksums_verify(data: bytes) -> bool:
    """Whether every checksum in a frame is what scapy computes from scratch.

    A UDP checksum of 0 stands for none and verifies.
    """
    packet = Ether(data)
    fresh = Ether(data)
    for layer in (IP, TCP, UDP):
        if layer in fresh and not (layer is UDP and fresh[UDP].chksum == 0):
            del fresh[layer].chksum
    return bytes(fresh) == bytes(packet)
