"""Text or number in, checked value out; pure.

A parser raises `FieldError` with the whole sentence for the user. Those that need limits are made
by a function that takes the limits.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from shaper.config.problems import nearest
from shaper.model import Address
from shaper.units import (
    RATE_EXAMPLE,
    SIZE_EXAMPLE,
    TIME_EXAMPLE,
    format_rate,
    format_time_us,
    parse_rate,
    parse_size,
    parse_time_us,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MIN_RATE_BPS: Final = 1_000
MAX_RATE_BPS: Final = 10**13
MAX_PORT: Final = 65535
NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
_US_PER_MS: Final = 1000

DSCP_NAMES: Final = {
    "default": 0,
    "be": 0,
    "le": 1,
    "ef": 46,
    "va": 44,
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{c}{d}": 8 * c + 2 * d for c in range(1, 5) for d in range(1, 4)},
}
"""RFC 2474, 2597, 3246, 5865 and 8622."""


class FieldError(ValueError):
    """A value that cannot stand where it stands: the sentence for the user, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def show(value: object) -> str:
    """A value as the user wrote it, near enough."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > 60:
        return repr(value[:57] + "...")
    return repr(value)


# -- words ---------------------------------------------------------------------------------------


def one_of(kind: type[Enum], what: str) -> Callable[[Any], Any]:
    """A parser for the values of an enum; `what` names the thing, with its article."""
    choices = [str(member.value) for member in kind]

    def parse(value: Any) -> Any:
        if isinstance(value, str) and value in choices:
            return kind(value)
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise FieldError(f"{show(value)} is not {what}: use {', '.join(choices)}", hint)

    return parse


def name(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        kind = "boolean" if isinstance(value, bool) else "number"
        raise FieldError(
            f"a name is needed here, and {show(value)} is a {kind}",
            f'write "{show(value)}", with quotes, if it is one',
        )
    if not isinstance(value, str):
        raise FieldError(f"a name is needed here, not {show(value)}")
    if not re.fullmatch(NAME_PATTERN, value):
        raise FieldError(
            f"{show(value)} is not a name",
            "up to 32 letters, digits, '_', '-' and '.', starting with a letter or digit",
        )
    return value


def device(value: Any) -> str:
    """By dev_valid_name() in net/core/dev.c; IFNAMSIZ is 16 with the final zero."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]+", value) or value in (".", ".."):
        raise FieldError(f"{show(value)} is not a device name")
    if len(value.encode()) > 15:
        raise FieldError(f"{show(value)} is not a device name", "Linux allows at most 15 bytes")
    return value


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    hint = f"YAML 1.2 reads {value} as text" if value in ("yes", "no", "on", "off") else ""
    raise FieldError(f"{show(value)} is not true or false", hint)


def url_path(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"/[!-~]*", value):
        return value
    raise FieldError(f"{show(value)} is not a path such as /healthz")


def host(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", value):
        return value
    raise FieldError(f"{show(value)} is not a host name")


def file_name(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise FieldError(f"{show(value)} is not a file name")


# -- numbers -------------------------------------------------------------------------------------


def integer(what: str, low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise FieldError(f"{show(value)} is not {what} ({low} to {high})")

    return parse


def _unit(read: Callable[[object], int], example: str) -> Callable[[Any], int]:
    """A reader of `shaper.units` that also has a word for what is no text at all."""

    def parse(value: Any) -> int:
        if isinstance(value, str):
            try:
                return read(value)
            except ValueError:
                pass
        raise FieldError(f"{show(value)} is not {example}", _unit_hint(value))

    return parse


def _unit_hint(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "the unit is missing"
    if isinstance(value, str) and re.fullmatch(r"[\d.]+\s*[kmgt]?bps", value, re.IGNORECASE):
        return "bps is bytes per second in tc and bits elsewhere: write bit"
    return ""


_read_rate: Final = _unit(parse_rate, RATE_EXAMPLE)
_read_time_us: Final = _unit(parse_time_us, TIME_EXAMPLE)
_read_size: Final = _unit(parse_size, SIZE_EXAMPLE)


def rate(value: Any) -> int:
    rate_bps = _read_rate(value)
    if not MIN_RATE_BPS <= rate_bps <= MAX_RATE_BPS:
        limits = f"{format_rate(MIN_RATE_BPS)} to {format_rate(MAX_RATE_BPS)}"
        raise FieldError(f"rate {show(value)} is out of range ({limits})")
    return rate_bps


def time_us(low_us: int, high_us: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        time_us = _read_time_us(value)
        if not low_us <= time_us <= high_us:
            limits = f"{format_time_us(low_us)} to {format_time_us(high_us)}"
            raise FieldError(f"time {show(value)} is out of range ({limits})")
        return time_us

    return parse


def time_ms(low_ms: int, high_ms: int) -> Callable[[Any], int]:
    read_us = time_us(low_ms * _US_PER_MS, high_ms * _US_PER_MS)

    def parse(value: Any) -> int:
        time_us = read_us(value)
        if time_us % _US_PER_MS:
            raise FieldError(f"time {show(value)} is not a whole number of milliseconds")
        return time_us // _US_PER_MS

    return parse


def size_bytes(value: Any) -> int:
    size_bytes = _read_size(value)
    if not 1 <= size_bytes < 2**32:
        raise FieldError(f"size {show(value)} is out of range (1b to less than 4gb)")
    return size_bytes


def version(value: Any) -> int:
    if value == 1 and isinstance(value, int) and not isinstance(value, bool):
        return 1
    raise FieldError(f"version {show(value)} is not known: this is version 1")


def percent(value: Any) -> int:
    match = re.fullmatch(r"(\d{1,3})%", value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 100:
        raise FieldError(f"{show(value)} is not a percentage (1% to 100%)")
    return int(match[1])


def dscp(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 63:
        return value
    if isinstance(value, str) and value.lower() in DSCP_NAMES:
        return DSCP_NAMES[value.lower()]
    hint = nearest(value, DSCP_NAMES) if isinstance(value, str) else ""
    raise FieldError(
        f"{show(value)} is not a DSCP (0 to 63, or a name such as ef, cs1, af41)", hint
    )


def mark(value: Any) -> int:
    """A firewall mark. Hexadecimal numbers are text in YAML 1.2, and usual for marks."""
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{1,8}", value):
        return int(value, 16)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    raise FieldError(f"{show(value)} is not a mark (0 to 0xffffffff)")


@dataclass(frozen=True, slots=True)
class Span:
    """An inclusive range of numbers: ports, or HTTP status codes."""

    first: int
    last: int

    def holds(self, number: int) -> bool:
        return self.first <= number <= self.last

    def overlaps(self, other: Span) -> bool:
        return self.first <= other.last and other.first <= self.last


ANY_PORT: Final = Span(1, MAX_PORT)


def _span(value: Any, low: int, high: int) -> Span | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return Span(value, value) if low <= value <= high else None
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value, re.A) if isinstance(value, str) else None
    span = Span(int(match[1]), int(match[2])) if match else None
    return span if span and low <= span.first <= span.last <= high else None


def ports(value: Any) -> Span:
    """One entry of a port list: a number, a range, or any."""
    if value == "any":
        return ANY_PORT
    span = _span(value, 1, MAX_PORT)
    if span is None:
        raise FieldError(
            f"{show(value)} is not a port (1 to {MAX_PORT}, a range 8000-8010, or any)"
        )
    return span


def statuses(value: Any) -> Span:
    span = _span(value, 100, 599)
    if span is None:
        raise FieldError(f"{show(value)} is not an HTTP status or a range such as 200-399")
    return span


# -- addresses -----------------------------------------------------------------------------------


def address(value: Any) -> Address:
    """A unicast address that packets can be routed to, on the wire and by itself."""
    if not isinstance(value, str):
        raise FieldError(f"{show(value)} is not an IP address")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        hint = "an address, without the prefix length" if "/" in value else ""
        raise FieldError(f"{show(value)} is not an IP address", hint) from None
    reason = _why_unusable(address)
    if reason:
        raise FieldError(f"{value} is {reason}", "use a unicast address that can be routed")
    return address


def _why_unusable(address: Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "an address with a zone"
        if address.ipv4_mapped is not None:
            return "an IPv4-mapped address"
    elif int(address) == 2**32 - 1:
        return "the broadcast address"
    for holds, what in (
        (address.is_unspecified, "the unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (address.is_link_local, "a link-local address"),
    ):
        if holds:
            return what
    return ""


def network(value: Any) -> Network:
    if isinstance(value, str):
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            if "host bits" in str(error):
                network = ipaddress.ip_network(value, strict=False)
                raise FieldError(
                    f"{value} has bits behind its prefix", f"write {network}"
                ) from None
    raise FieldError(f"{show(value)} is not a prefix such as 192.0.2.0/24")
