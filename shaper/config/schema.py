"""The format of the configuration file as pydantic models: keys, types, defaults, descriptions.

The whole format is here, also what `unsupported` still refuses. The models know single values
only; what must agree between values is in `checks`. Fields are read as `T | Unknown`.

Defaults are written as in a file and parsed like one (`validate_default`), so that the JSON Schema
shows them as users write them.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from shaper.config.fields import (
    AffinityTime,
    AnnounceChoice,
    Boolean,
    CheckCount,
    Connections,
    ControlTime,
    Device,
    Dscp,
    FileName,
    ForwardingChoice,
    HealthChoice,
    HealthTime,
    Host,
    Ip,
    Key,
    LeafChoice,
    Mark,
    Name,
    Packets,
    PathChoice,
    Percent,
    Port,
    Ports,
    Prefix,
    PrefixLength,
    Priority,
    ProtocolChoice,
    QueueFlows,
    QueueTime,
    Rate,
    RoleChoice,
    SchedulerChoice,
    Size,
    Statuses,
    TransportChoice,
    UnavailableChoice,
    UrlPath,
    Version,
    Weight,
    WeightsChoice,
)
from shaper.config.parsers import FieldError, show
from shaper.config.unknown import UNKNOWN

T = TypeVar("T")


class Spec(BaseModel):
    """A mapping of the file with known keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _without_unknown(value: Any) -> Any:
    if value is UNKNOWN:
        return {}
    if isinstance(value, dict):
        return {key: entry for key, entry in value.items() if entry is not UNKNOWN}
    return value


def _unknown_to_none(value: Any) -> Any:
    return None if value is UNKNOWN else value


def _unknown_to_empty(value: Any) -> Any:
    return [] if value is UNKNOWN else value


def _leaf_mapping(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _port_list(value: Any) -> Any:
    if value == []:
        raise FieldError("the list of ports is empty")
    return value if isinstance(value, list) or value is UNKNOWN else [value]


def _affinity_mapping(value: Any) -> Any:
    if isinstance(value, str):
        if value != "none":
            raise FieldError(
                f"{show(value)} is not an affinity: use none, or a mapping",
                "such as {source_prefix: 32, timeout: 10m}",
            )
        return None
    return value


def _some_condition(value: Any) -> Any:
    if value == {}:
        raise FieldError("a match rule without conditions")
    return {} if value is UNKNOWN else value


Table = Annotated[dict[Key, T], BeforeValidator(_without_unknown)]
"""Named entries. An entry that is no mapping at all was reported and is left out."""
Section = Annotated[T | None, BeforeValidator(_unknown_to_none)]
# An unknown entry of a list stays in it, because its index is its place in the file.
Items = Annotated[list[T], BeforeValidator(_unknown_to_empty)]

PortList = Annotated[
    Items[Ports], BeforeValidator(_port_list, json_schema_input_type=Ports | list[Ports])
]


def described(text: str, default: Any = ..., **options: Any) -> Any:
    return Field(default=default, description=text, validate_default=True, **options)


class InterfaceSpec(Spec):
    device: Device = described("Name of the network device, such as eth0.")
    role: RoleChoice = described("The side it faces: client, backend, or both (one-armed).")
    bandwidth: Rate | None = described(
        "What its egress is shaped to. Without it nothing is shaped here.", None
    )


class LeafSpec(Spec):
    kind: LeafChoice = described(
        "The qdisc at the end of the class; auto is fq_codel where the kernel has it, else fifo.",
        "auto",
    )
    limit: Packets | None = described("Packets that the queue holds.", None)
    target: QueueTime | None = described("fq_codel: the queueing delay that is accepted.", None)
    interval: QueueTime | None = described("fq_codel: how long delay may stay above target.", None)
    flows: QueueFlows | None = described("fq_codel: number of flow queues.", None)
    quantum: Size | None = described("fq_codel: bytes a flow sends per turn.", None)
    memory_limit: Size | None = described("fq_codel: memory that the queue may take.", None)
    ecn: Boolean | None = described("fq_codel: mark instead of dropping where ECN is spoken.", None)


class MatchSpec(Spec):
    dscp: Dscp | None = described("DSCP as a number or a name (ef, af41, cs1).", None)
    protocol: TransportChoice | None = described("Protocol of the packet.", None)
    port: PortList | None = described("Destination port, a range, or a list of both.", None)
    source: Prefix | None = described("Source prefix.", None)
    destination: Prefix | None = described("Destination prefix.", None)
    mark: Mark | None = described("Firewall mark.", None)


class ElasticSpec(Spec):
    min: Rate = described("The rate never falls below this.")
    max: Rate = described("The rate never rises above this.")
    target: Percent | None = described("Utilisation that the control aims at.", "80%")


class ClassSpec(Spec):
    parent: Name | None = described("The class it is part of; none: the interface itself.", None)
    rate: Rate = described("Guaranteed rate.")
    ceil: Rate | None = described("Rate it can borrow up to; none given: the rate.", None)
    priority: Priority = described("Who gets spare bandwidth first: 0 before 7.", 0)
    interfaces: Items[Name] | None = described(
        "Where the class exists; none given: where its parent does, or on every interface with a "
        "bandwidth.",
        None,
    )
    leaf: Annotated[
        Section[LeafSpec],
        BeforeValidator(_leaf_mapping, json_schema_input_type=LeafChoice | LeafSpec),
    ] = described("Queue of the class: a kind, or a mapping with its options.", "auto")
    match: Items[Annotated[MatchSpec, BeforeValidator(_some_condition)]] = described(
        "Rules that put packets of no service into this class.", []
    )
    elastic: Section[ElasticSpec] = described("Lets the rate follow the load.", None)


class AffinitySpec(Spec):
    source_prefix: PrefixLength | None = described(
        "Clients of one prefix of this length go to the same backend.", None
    )
    timeout: AffinityTime | None = described("How long without packets.", "10m")


class BackendSpec(Spec):
    address: Ip = described("Address of the backend, of the same family as the service's.")
    port: Port | None = described("Port of the backend; none given: the service's.", None)
    weight: Weight = described("Its share; 0: no new flow, flows that exist go on.", 1)
    bandwidth: Rate | None = described("What it can take, for admission.", None)
    max_connections: Connections | None = described("Flows it takes at most.", None)


class HealthSpec(Spec):
    type: HealthChoice = described("tcp: it accepts a connection. http: it answers a GET.")
    path: UrlPath | None = described("http: path that is asked for; none given: /", None)
    host: Host | None = described("http: Host header; none given: the backend's address.", None)
    expect: Statuses | None = described(
        "http: status, or range of them, of a healthy backend; none given: 200-399.", None
    )
    port: Port | None = described("Port that is checked; none given: the backend's.", None)
    interval: HealthTime = described("From one check to the next.", "2s")
    timeout: HealthTime | None = described(
        "How long an answer may take; none given: the interval, at most 1s.", None
    )
    rise: CheckCount = described("Good answers in a row that bring a backend up.", 2)
    fall: CheckCount = described("Failures in a row that take it down.", 3)


class ServiceSpec(Spec):
    address: Ip = described("The virtual address (VIP).")
    port: PortList = described("Port of the service, a list of them, a range, or any.")
    protocol: ProtocolChoice = described("tcp or udp.", "tcp")
    scheduler: SchedulerChoice = described(
        "How the backend of a new flow is picked.", "least-connections"
    )
    forwarding: ForwardingChoice = described("How packets reach the backend.", "nat")
    class_: Name | None = described(
        "Class of its packets; none given: default_class.", None, alias="class"
    )
    path: PathChoice = described(
        "shaped: through the stack and its qdiscs. direct: past them. auto: direct only where "
        "nothing is shaped.",
        "auto",
    )
    affinity: Annotated[Section[AffinitySpec], BeforeValidator(_affinity_mapping)] = described(
        "Whether one client keeps its backend over several flows.", "none"
    )
    unavailable: UnavailableChoice = described(
        "What a new flow gets while no backend is up.", "reject"
    )
    announce: AnnounceChoice = described(
        "auto: the address is added to the client-side devices. none: routing brings it here.",
        "auto",
    )
    backends: Table[BackendSpec] = described("The real servers, by name.")
    health: Section[HealthSpec] = described("Checks of every backend; none given: always up.", None)


class SubscribersSpec(Spec):
    file: FileName = described("CSV file of addresses and their classes.")


class ControllerSpec(Spec):
    interval: ControlTime = described("Time between two decisions.", "1s")
    weights: WeightsChoice = described(
        "adaptive: the controller steers the weights by load. static: as configured.", "static"
    )


class GatewaySpec(Spec):
    version: Version = described("Version of the format.")
    interfaces: Table[InterfaceSpec] = described("The gateway's devices, by name.")
    classes: Table[ClassSpec] = described("The HTB tree, by class name.", {})
    default_class: Name | None = described("Class of what no service or rule claims.", None)
    services: Table[ServiceSpec] = described("The virtual services, by name.", {})
    subscribers: Section[SubscribersSpec] = described("Classes by address, by the thousand.", None)
    controller: Section[ControllerSpec] = described(
        "The user-space controller; none given: static weights.", None
    )
