"""What is valid and not built yet is refused at its place, never passed over in silence."""

from __future__ import annotations

import pytest

from shaper.config import parse_config
from shaper.config.unsupported import TABLE
from tests.unit.config_cases import (
    Case,
    backend_case,
    case,
    class_case,
    expected,
    found,
    parametrize,
    service_case,
)

PORTS = "backends: {s1: {address: 203.0.113.11, port: 80}}"

CASES = [
    *(
        service_case(
            f"scheduler {word}", f"scheduler: ▶{word}", f"scheduler '{word}' is not supported yet"
        )
        for word in ("response-time", "least-bandwidth", "power-of-two", "best-fit")
    ),
    *(
        service_case(
            f"forwarding {word}",
            f"forwarding: ▶{word}",
            f"forwarding '{word}' is not supported yet",
        )
        for word in ("masquerade", "dsr", "ipip")
    ),
    *(
        class_case(
            f"leaf {word}", f"{{rate: 1mbit, leaf: ▶{word}}}", f"leaf '{word}' is not supported yet"
        )
        for word in ("cake", "fq", "sfq")
    ),
    class_case(
        "leaf in a mapping",
        "{rate: 1mbit, leaf: {kind: ▶fq, limit: 100}}",
        "leaf 'fq' is not supported yet",
    ),
    service_case("path", "path: ▶direct", "path 'direct' is not supported yet"),
    service_case(
        "affinity",
        "▶affinity: {source_prefix: 24, timeout: 5m}",
        "'affinity' is not supported yet",
    ),
    service_case("unavailable", "unavailable: ▶queue", "unavailable 'queue' is not supported yet"),
    service_case(
        "reject without an announced address",
        "announce: ▶none\nunavailable: reject",
        "'announce: none' together with 'unavailable: reject' is not supported yet",
    ),
    service_case(
        "reject by default without an announced address",
        "announce: ▶none",
        "'announce: none' together with 'unavailable: reject' is not supported yet",
    ),
    service_case("any port", f"port: ▶any\n{PORTS}", "port 'any' is not supported yet"),
    service_case(
        "port range", f"port: ▶8000-8010\n{PORTS}", "port range '8000-8010' is not supported yet"
    ),
    service_case(
        "range and any in a list",
        f"port: [80, ▶90-99, ▶any]\n{PORTS}",
        "port range '90-99' is not supported yet",
        "port 'any' is not supported yet",
    ),
    case(
        "one-armed",
        "interfaces:\n  wan: {device: eth0, role: ▶both}\n",
        "role 'both' is not supported yet",
    ),
    class_case(
        "match",
        "{rate: 1mbit, ▶match: [{dscp: EF, mark: 0x10}, {protocol: udp, port: [53, 5060-5061], "
        "source: 192.0.2.0/24, destination: 2001:db8::/32}]}",
        "'match' is not supported yet",
    ),
    class_case(
        "elastic",
        "{rate: 1mbit, ▶elastic: {min: 1mbit, max: 10mbit, target: 80%}}",
        "'elastic' is not supported yet",
    ),
    case(
        "subscribers",
        "▶subscribers: {file: subscribers.csv}\n",
        "'subscribers' is not supported yet",
    ),
    backend_case(
        "bandwidth of a backend",
        "{address: 203.0.113.11, ▶bandwidth: 1gbit}",
        "'bandwidth' of a backend is not supported yet",
    ),
    backend_case(
        "max_connections",
        "{address: 203.0.113.11, ▶max_connections: 100}",
        "'max_connections' is not supported yet",
    ),
]


@parametrize(CASES)
def test_config_not_supported_yet(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


def test_config_every_line_of_the_table_has_a_case() -> None:
    messages = [message for entry in CASES for message in entry.messages]
    for row in TABLE:
        before, _, behind = row.what.partition("{value}")
        assert any(
            message.startswith(before) and message.endswith(f"{behind} is not supported yet")
            for message in messages
        ), row


@pytest.mark.parametrize(
    "lines",
    [
        "scheduler: round-robin",
        "scheduler: maglev",
        "scheduler: source-hash",
        "path: shaped",
        "affinity: none",
        "unavailable: drop",
        "announce: none\nunavailable: drop",
        "announce: auto\nunavailable: reject",
        f"port: [80, 443]\n{PORTS}",
    ],
)
def test_config_supported_values_are_accepted(lines: str) -> None:
    parse_config(service_case("good", lines).text)
