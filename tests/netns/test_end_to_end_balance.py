"""Real connections through the installed `shaper apply`: who answered, against the weights.

Each service gets a client of its own. While a client port talks to one service, it cannot reach
the same backend through another one (behind the gateway both flows would look the same), so shares
would only be nearly exact; the tests of client ports are about that.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from shaper.lab.network import Client, Lab
from shaper.lab.plan import BACKENDS4, BACKENDS6, VIRTUAL4, LabSpec, virtual_address
from shaper.lab.servers import ECHO_PORT, HTTP_PORT
from shaper.lab.traffic import held_connections, http_load, start_load, udp_load
from tests.netns.configs import gateway_config, service

pytestmark = [pytest.mark.netns, pytest.mark.bpf]

WEIGHTS = {"s1": 1, "s2": 2, "s3": 3, "s4": 4}
EQUAL = dict.fromkeys(WEIGHTS, 1)
FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])

ROUND_ROBIN, MAGLEV, LEAST, SOURCE_HASH, ECHO, SAME_PORT, OTHER_ECHO = range(10, 17)
DIRECT = 17  # no service: a client that talks to backends themselves

_FIXED_PORTS = """
import json, re, socket, sys

answers = []
for source, source_port, address, port in json.load(sys.stdin):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(10)
        client.bind((source, source_port))
        client.connect((address, port))
        client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    answers.append(re.search(rb"X-Backend: (\\w+)", answer)[1].decode())
print(json.dumps(answers))
"""
"""Connections one after the other, each from a given port: which backend answered."""

_FIREWALL = f"""
table inet firewall {{
    counter invalid {{ }}
    counter refused {{ }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state invalid counter name invalid drop
        ct state established,related accept
        ip daddr {BACKENDS4} tcp dport {HTTP_PORT} ct state new accept
        ip6 daddr {BACKENDS6} tcp dport {HTTP_PORT} ct state new accept
        ip daddr {BACKENDS4} udp dport {ECHO_PORT} ct state new accept
        ip6 daddr {BACKENDS6} udp dport {ECHO_PORT} ct state new accept
        counter name refused
    }}
}}
"""


def _services(lab: Lab) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = {}
    for suffix, ipv6 in (("", False), ("6", True)):
        services |= {
            f"ring{suffix}": service(lab, ROUND_ROBIN, "round-robin", WEIGHTS, ipv6=ipv6),
            f"hashed{suffix}": service(lab, MAGLEV, "maglev", WEIGHTS, ipv6=ipv6),
            f"least{suffix}": service(lab, LEAST, "least-connections", WEIGHTS, ipv6=ipv6),
            f"source{suffix}": service(lab, SOURCE_HASH, "source-hash", EQUAL, ipv6=ipv6),
            f"echo{suffix}": service(
                lab,
                ECHO,
                "round-robin",
                WEIGHTS,
                port=53,
                backend_port=ECHO_PORT,
                ipv6=ipv6,
                protocol="udp",
            ),
        }
    services["same-port"] = service(lab, SAME_PORT, "round-robin", EQUAL, port=HTTP_PORT)
    services["other-echo"] = service(
        lab, OTHER_ECHO, "round-robin", EQUAL, port=53, backend_port=ECHO_PORT, protocol="udp"
    )
    return services


@pytest.fixture(scope="module")
def lab_spec() -> LabSpec:
    return LabSpec(clients=DIRECT - ROUND_ROBIN + 1)


def _client(lab: Lab, number: int) -> Client:
    """The client that talks to `virtual_address(number)`, and to nothing else."""
    return lab.clients[number - ROUND_ROBIN]


@pytest.fixture(scope="module")
def balanced(lab: Lab) -> Iterator[Lab]:
    """The lab with every service of this module applied, without an agent."""
    path = lab.write_config(gateway_config(_services(lab)))
    lab.gateway.must_shaper("apply", str(path))
    yield lab
    lab.gateway.must_shaper("down")


def _backends(lab: Lab, name: str) -> dict[str, dict[str, Any]]:
    for entry in lab.gateway.status()["services"]:
        if entry["name"] == name:
            return {backend["name"]: backend for backend in entry["backends"]}
    raise AssertionError(f"status knows no service {name}")


@FAMILIES
def test_round_robin_gives_exact_shares_over_full_rings(balanced: Lab, ipv6: bool) -> None:
    name = "ring6" if ipv6 else "ring"
    before = _backends(balanced, name)
    result = http_load(
        _client(balanced, ROUND_ROBIN), virtual_address(ROUND_ROBIN, ipv6=ipv6), 80, 10_000
    )
    assert result.failures == ()
    assert result.answered == {"s1": 1000, "s2": 2000, "s3": 3000, "s4": 4000}
    after = _backends(balanced, name)
    counted = {n: after[n]["new_flows_total"] - before[n]["new_flows_total"] for n in WEIGHTS}
    assert counted == result.answered


@FAMILIES
def test_maglev_shares_are_within_two_points(balanced: Lab, ipv6: bool) -> None:
    result = http_load(_client(balanced, MAGLEV), virtual_address(MAGLEV, ipv6=ipv6), 80, 10_000)
    assert result.failures == ()
    for name, weight in WEIGHTS.items():
        assert 100 * result.answered[name] / 10_000 == pytest.approx(10 * weight, abs=2.0), name


@FAMILIES
def test_least_connections_always_picks_the_least_loaded(balanced: Lab, ipv6: bool) -> None:
    """Oracle: every new connection goes where (active + 1) / weight is least."""
    address = virtual_address(LEAST, ipv6=ipv6)
    with held_connections(_client(balanced, LEAST), address, 80, 100) as held:
        assert held.failures == ()
        active: Counter[str] = Counter()
        for sample in held.samples:
            load = {name: (active[name] + 1) / weight for name, weight in WEIGHTS.items()}
            assert load[sample.backend] == min(load.values())
            active[sample.backend] += 1
        seen = _backends(balanced, "least6" if ipv6 else "least")
        assert {name: seen[name]["active_flows"] for name in WEIGHTS} == active
    balanced.gateway.wait_status(
        lambda status: all(
            backend["active_flows"] == 0
            for entry in status["services"]
            for backend in entry["backends"]
            if entry["protocol"] == "tcp"
        ),
        20.0,
        "every active count to return to zero",
    )


@FAMILIES
def test_source_hash_keeps_a_client_on_its_backend(balanced: Lab, ipv6: bool) -> None:
    address = virtual_address(SOURCE_HASH, ipv6=ipv6)
    chosen = set()
    client = _client(balanced, SOURCE_HASH)
    for source in client.sources_for(str(address)):
        load = start_load(client, address, 80, requests=20, sources=[source])
        answered = load.result().answered
        assert list(answered.values()) == [20], f"{source} was spread: {answered}"
        chosen |= set(answered)
    assert len(chosen) > 1


@FAMILIES
def test_udp_flows_follow_the_weights_exactly(balanced: Lab, ipv6: bool) -> None:
    result = udp_load(_client(balanced, ECHO), virtual_address(ECHO, ipv6=ipv6), 53, 2000)
    assert result.failures == ()
    assert result.answered == {"s1": 200, "s2": 400, "s3": 600, "s4": 800}


def test_one_client_port_may_talk_to_two_services_that_share_backends(balanced: Lab) -> None:
    """The load client takes the same ports both times; no two flows end at the same backend."""
    client = _client(balanced, OTHER_ECHO)
    first, second = (
        udp_load(client, virtual_address(number), 53, 1000).samples for number in (ECHO, OTHER_ECHO)
    )
    assert [sample for sample in (*first, *second) if sample.error] == []
    assert len(first) == len(second) == 1000


def _answers(client: Client, targets: Sequence[tuple[int, str, int]]) -> list[str]:
    """Who answers; a target is (source port, address, port)."""
    source = client.sources_for(targets[0][1])[0]
    jobs = json.dumps([(source, *target) for target in targets])
    program = [sys.executable, "-c", _FIXED_PORTS]
    answers: list[str] = json.loads(client.namespace.run(program, text_input=jobs))
    return answers


def test_a_client_port_may_be_used_again_once_its_connection_is_closed(balanced: Lab) -> None:
    """For a service, another one with the same backends, and the backend itself: shares are exact.

    No sweep runs here, and the backends, which close first, still have the ports in TIME_WAIT.
    """
    client = _client(balanced, DIRECT)
    ports = range(20000, 20100)
    ring, equal = str(virtual_address(ROUND_ROBIN)), str(virtual_address(SAME_PORT))
    for _ in range(2):
        by_ring = _answers(client, [(port, ring, 80) for port in ports])
        assert Counter(by_ring) == {"s1": 10, "s2": 20, "s3": 30, "s4": 40}
        by_equal = _answers(client, [(port, equal, HTTP_PORT) for port in ports])
        assert Counter(by_equal) == dict.fromkeys(WEIGHTS, 25)
        themselves = [balanced.backend(name).address for name in by_equal]
        targets = [(port, to, HTTP_PORT) for port, to in zip(ports, themselves, strict=True)]
        assert _answers(client, targets) == by_equal


def test_backend_port_may_equal_the_service_port(balanced: Lab) -> None:
    result = http_load(_client(balanced, SAME_PORT), virtual_address(SAME_PORT), HTTP_PORT, 400)
    assert (result.failures, result.answered) == ((), dict.fromkeys(WEIGHTS, 100))


def test_virtual_address_without_a_service_on_the_port_refuses(balanced: Lab) -> None:
    result = http_load(_client(balanced, ROUND_ROBIN), virtual_address(ROUND_ROBIN), 81, 4)
    assert {sample.error for sample in result.failures} == {"Connection refused"}
    assert len(result.failures) == 4


def test_traffic_for_no_service_is_routed_unchanged(balanced: Lab) -> None:
    for backend in balanced.backends.values():
        for address in (backend.address, backend.address6):
            result = http_load(_client(balanced, DIRECT), address, HTTP_PORT, 50)
            assert (result.failures, result.answered) == ((), {backend.name: 50})


def test_stateful_firewall_on_the_gateway_sees_nothing_invalid(balanced: Lab) -> None:
    gateway = balanced.gateway.namespace
    gateway.run(["nft", "-f", "-"], text_input=_FIREWALL)
    try:
        for ipv6 in (False, True):
            address = virtual_address(ROUND_ROBIN, ipv6=ipv6)
            assert http_load(_client(balanced, ROUND_ROBIN), address, 80, 500).failures == ()
            echo = virtual_address(ECHO, ipv6=ipv6)
            assert udp_load(_client(balanced, ECHO), echo, 53, 100).failures == ()
        curl = ["curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{size_download}"]
        large = f"http://{VIRTUAL4[ROUND_ROBIN]}/large"
        received = _client(balanced, ROUND_ROBIN).namespace.run([*curl, "-r", "0-19999999", large])
        assert received == "20000000"
        listed = json.loads(gateway.run(["nft", "-j", "list", "counters"]))["nftables"]
        packets = {
            entry["counter"]["name"]: entry["counter"]["packets"]
            for entry in listed
            if "counter" in entry
        }
        assert packets == {"invalid": 0, "refused": 0}
    finally:
        gateway.run(["nft", "delete", "table", "inet", "firewall"])
