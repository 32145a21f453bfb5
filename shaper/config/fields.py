"""The types of the models' fields: a parser each, and its JSON Schema.

`UNKNOWN` passes through every one, see `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Annotated, Any, Final, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from shaper.config import parsers
from shaper.config.parsers import MAX_PORT, NAME_PATTERN, Network, Span
from shaper.config.unknown import UNKNOWN, Unknown
from shaper.model import (
    MAX_WEIGHT,
    Address,
    Forwarding,
    HealthKind,
    Protocol,
    Role,
    Scheduler,
    Unavailable,
    WeightMode,
)

T = TypeVar("T")


def tolerant(parse: Callable[[Any], T]) -> PlainValidator:
    """A pydantic validator from a parser; what was already reported passes through."""

    def validate(value: Any) -> T | Unknown:
        return UNKNOWN if value is UNKNOWN else parse(value)

    return PlainValidator(validate)


class PathKind(StrEnum):
    AUTO = "auto"
    SHAPED = "shaped"
    DIRECT = "direct"


class Announce(StrEnum):
    AUTO = "auto"
    NONE = "none"


class LeafName(StrEnum):
    """Every leaf qdisc the format knows; `model.LeafKind` has those that are built."""

    AUTO = "auto"
    FQ_CODEL = "fq_codel"
    FIFO = "fifo"
    CAKE = "cake"
    FQ = "fq"
    SFQ = "sfq"


class Transport(StrEnum):
    """What a match rule can ask for; a service is TCP or UDP."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"


_RATE_SCHEMA: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kmgtKMGT]?[bB][iI][tT])$"}
_TIME_SCHEMA: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(us|ms|s|m|h|d)$"}
_SIZE_SCHEMA: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kmgKMG]?[bB])$"}


def _choice(kind: type[Enum]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": [str(member.value) for member in kind]})


def _text(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


def _number(low: int, high: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high})


_NUMBER_OR_TEXT: Final = {"type": ["integer", "string"]}

Version = Annotated[int | Unknown, tolerant(parsers.version), WithJsonSchema({"const": 1})]
Name = Annotated[str | Unknown, tolerant(parsers.name), _text(f"^{NAME_PATTERN}$")]
Key = Annotated[str, PlainValidator(parsers.name), _text(f"^{NAME_PATTERN}$")]
Device = Annotated[str | Unknown, tolerant(parsers.device), _text(r"^[^\s/:]{1,15}$")]
Boolean = Annotated[bool | Unknown, tolerant(parsers.boolean), WithJsonSchema({"type": "boolean"})]
UrlPath = Annotated[str | Unknown, tolerant(parsers.url_path), _text("^/")]
Host = Annotated[str | Unknown, tolerant(parsers.host), _text("^.+$")]
FileName = Annotated[str | Unknown, tolerant(parsers.file_name), _text("^.+$")]

Rate = Annotated[int | Unknown, tolerant(parsers.rate), WithJsonSchema(_RATE_SCHEMA)]
HealthTime = Annotated[
    int | Unknown, tolerant(parsers.time_ms(10, 3_600_000)), WithJsonSchema(_TIME_SCHEMA)
]
ControlTime = Annotated[
    int | Unknown, tolerant(parsers.time_ms(100, 60_000)), WithJsonSchema(_TIME_SCHEMA)
]
AffinityTime = Annotated[
    int | Unknown, tolerant(parsers.time_ms(1_000, 86_400_000)), WithJsonSchema(_TIME_SCHEMA)
]
QueueTime = Annotated[
    int | Unknown, tolerant(parsers.time_us(1, 60_000_000)), WithJsonSchema(_TIME_SCHEMA)
]
Size = Annotated[int | Unknown, tolerant(parsers.size_bytes), WithJsonSchema(_SIZE_SCHEMA)]
Percent = Annotated[int | Unknown, tolerant(parsers.percent), _text("^[0-9]{1,3}%$")]

Port = Annotated[
    int | Unknown, tolerant(parsers.integer("a port", 1, MAX_PORT)), _number(1, MAX_PORT)
]
Ports = Annotated[Span | Unknown, tolerant(parsers.ports), WithJsonSchema(_NUMBER_OR_TEXT)]
Statuses = Annotated[Span | Unknown, tolerant(parsers.statuses), WithJsonSchema(_NUMBER_OR_TEXT)]
Priority = Annotated[int | Unknown, tolerant(parsers.integer("a priority", 0, 7)), _number(0, 7)]
Weight = Annotated[
    int | Unknown, tolerant(parsers.integer("a weight", 0, MAX_WEIGHT)), _number(0, MAX_WEIGHT)
]
CheckCount = Annotated[
    int | Unknown, tolerant(parsers.integer("a number of checks", 1, 100)), _number(1, 100)
]
Connections = Annotated[
    int | Unknown,
    tolerant(parsers.integer("a number of connections", 1, 2**31 - 1)),
    _number(1, 2**31 - 1),
]
Packets = Annotated[
    int | Unknown, tolerant(parsers.integer("a number of packets", 1, 10**6)), _number(1, 10**6)
]
QueueFlows = Annotated[
    int | Unknown, tolerant(parsers.integer("a number of flows", 1, 65536)), _number(1, 65536)
]
PrefixLength = Annotated[
    int | Unknown, tolerant(parsers.integer("a prefix length", 1, 128)), _number(1, 128)
]
Dscp = Annotated[int | Unknown, tolerant(parsers.dscp), WithJsonSchema(_NUMBER_OR_TEXT)]
Mark = Annotated[int | Unknown, tolerant(parsers.mark), WithJsonSchema(_NUMBER_OR_TEXT)]

Ip = Annotated[Address | Unknown, tolerant(parsers.address), WithJsonSchema({"type": "string"})]
Prefix = Annotated[Network | Unknown, tolerant(parsers.network), WithJsonSchema({"type": "string"})]

RoleChoice = Annotated[Role | Unknown, tolerant(parsers.one_of(Role, "a role")), _choice(Role)]
ProtocolChoice = Annotated[
    Protocol | Unknown,
    tolerant(parsers.one_of(Protocol, "a protocol of services")),
    _choice(Protocol),
]
TransportChoice = Annotated[
    Transport | Unknown, tolerant(parsers.one_of(Transport, "a protocol")), _choice(Transport)
]
SchedulerChoice = Annotated[
    Scheduler | Unknown, tolerant(parsers.one_of(Scheduler, "a scheduler")), _choice(Scheduler)
]
ForwardingChoice = Annotated[
    Forwarding | Unknown, tolerant(parsers.one_of(Forwarding, "a forwarding")), _choice(Forwarding)
]
PathChoice = Annotated[
    PathKind | Unknown, tolerant(parsers.one_of(PathKind, "a path")), _choice(PathKind)
]
UnavailableChoice = Annotated[
    Unavailable | Unknown,
    tolerant(parsers.one_of(Unavailable, "an answer to 'unavailable'")),
    _choice(Unavailable),
]
AnnounceChoice = Annotated[
    Announce | Unknown,
    tolerant(parsers.one_of(Announce, "an answer to 'announce'")),
    _choice(Announce),
]
LeafChoice = Annotated[
    LeafName | Unknown, tolerant(parsers.one_of(LeafName, "a leaf")), _choice(LeafName)
]
HealthChoice = Annotated[
    HealthKind | Unknown,
    tolerant(parsers.one_of(HealthKind, "a type of check")),
    _choice(HealthKind),
]
WeightsChoice = Annotated[
    WeightMode | Unknown,
    tolerant(parsers.one_of(WeightMode, "a kind of weights")),
    _choice(WeightMode),
]
