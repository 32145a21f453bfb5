"""From a right file to the gateway: defaults, resolution, warnings, files and examples."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from shaper.config import ConfigError, load_config, parse_config, parse_with_warnings
from shaper.errors import UsageError
from shaper.model import (
    IMPLICIT_CLASS,
    Backend,
    Controller,
    Forwarding,
    Gateway,
    HealthCheck,
    HealthKind,
    Interface,
    Leaf,
    LeafKind,
    Protocol,
    Role,
    Scheduler,
    Service,
    TrafficClass,
    Unavailable,
    WeightMode,
)
from tests.unit.config_cases import INTERFACES, class_case, service_case

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
README = ROOT / "README.md"

WHOLE = """\
version: 1

interfaces:
  wan: {device: eth0, role: client,  bandwidth: 1gbit}
  lan: {device: eth1, role: backend, bandwidth: 1gbit}

classes:
  voice: {rate: 50mbit,  priority: 0}
  web:   {rate: 500mbit, ceil: 1gbit, priority: 2}
  api:   {parent: web, rate: 200mbit, ceil: 400mbit, priority: 1}
  bulk:  {rate: 100mbit, ceil: 800mbit, priority: 6, leaf: {kind: fq_codel, target: 5ms}}
default_class: bulk

services:
  www:
    address: 198.51.100.10
    port: 80
    protocol: tcp
    scheduler: least-connections
    forwarding: nat
    class: web
    path: auto
    affinity: none
    unavailable: reject
    backends:
      s1: {address: 203.0.113.11, port: 8080, weight: 10}
      s2: {address: 203.0.113.12, port: 8080, weight: 20}
    health: {type: http, path: /healthz, interval: 1s, timeout: 500ms, rise: 2, fall: 3}

controller: {interval: 1s, weights: adaptive}
"""
BOTH = ("wan", "lan")
FQ_CODEL_5MS = Leaf(LeafKind.FQ_CODEL, target_us=5000)


def test_config_whole_file_becomes_the_gateway() -> None:
    """The example of the format's description, without what is not supported yet."""
    assert parse_config(WHOLE) == Gateway(
        interfaces=(
            Interface("wan", "eth0", Role.CLIENT, 10**9),
            Interface("lan", "eth1", Role.BACKEND, 10**9),
        ),
        classes=(
            TrafficClass("voice", None, 50_000_000, 50_000_000, 0, Leaf(), BOTH),
            TrafficClass("web", None, 500_000_000, 10**9, 2, Leaf(), BOTH),
            TrafficClass("api", "web", 200_000_000, 400_000_000, 1, Leaf(), BOTH),
            TrafficClass("bulk", None, 100_000_000, 800_000_000, 6, FQ_CODEL_5MS, BOTH),
        ),
        default_class="bulk",
        services=(
            Service(
                name="www",
                address=IPv4Address("198.51.100.10"),
                ports=(80,),
                protocol=Protocol.TCP,
                scheduler=Scheduler.LEAST_CONNECTIONS,
                forwarding=Forwarding.NAT,
                class_name="web",
                announce=True,
                unavailable=Unavailable.REJECT,
                backends=(
                    Backend("s1", IPv4Address("203.0.113.11"), 8080, 10),
                    Backend("s2", IPv4Address("203.0.113.12"), 8080, 20),
                ),
                health=HealthCheck(HealthKind.HTTP, 1000, 500, 2, 3, None, "/healthz"),
            ),
        ),
        controller=Controller(1000, WeightMode.ADAPTIVE),
    )


def test_config_defaults_of_a_service() -> None:
    gateway = parse_config(service_case("", "").text)
    assert gateway.services == (
        Service(
            name="www",
            address=IPv4Address("198.51.100.10"),
            ports=(80,),
            protocol=Protocol.TCP,
            scheduler=Scheduler.LEAST_CONNECTIONS,
            forwarding=Forwarding.NAT,
            class_name=None,
            announce=True,
            unavailable=Unavailable.REJECT,
            backends=(Backend("s1", IPv4Address("203.0.113.11"), 80, 1),),
            health=None,
        ),
    )
    assert gateway.controller == Controller(1000, WeightMode.STATIC)


def test_config_defaults_of_a_health_check() -> None:
    gateway = parse_config(service_case("", "health: {type: tcp}").text)
    assert gateway.services[0].health == HealthCheck(HealthKind.TCP)


def test_config_health_timeout_follows_a_short_interval() -> None:
    gateway = parse_config(service_case("", "health: {type: tcp, interval: 300ms}").text)
    assert gateway.services[0].health == HealthCheck(HealthKind.TCP, 300, 300)


def test_config_every_key_of_a_health_check() -> None:
    line = (
        "health: {type: http, path: /up?full=1, host: www.example.org, expect: 200-204, "
        "port: 9000, interval: 5s, timeout: 2s, rise: 1, fall: 10}"
    )
    assert parse_config(service_case("", line).text).services[0].health == HealthCheck(
        HealthKind.HTTP, 5000, 2000, 1, 10, 9000, "/up?full=1", "www.example.org", (200, 204)
    )


def test_config_single_status_is_a_range_of_one() -> None:
    health = parse_config(service_case("", "health: {type: http, expect: 204}").text).services[0]
    assert health.health is not None
    assert health.health.expect == (204, 204)


def test_config_port_list_keeps_its_order() -> None:
    lines = "port: [443, 80]\nbackends: {s1: {address: 203.0.113.11, port: 8080}}"
    assert parse_config(service_case("", lines).text).services[0].ports == (443, 80)


def test_config_same_port_over_both_protocols() -> None:
    text = service_case("", "port: 53").text + (
        "  dns: {address: 198.51.100.10, port: 53, protocol: udp, "
        "backends: {s1: {address: 203.0.113.11}}}\n"
    )
    assert [s.protocol for s in parse_config(text).services] == [Protocol.TCP, Protocol.UDP]


def test_config_ipv6_in_any_spelling() -> None:
    lines = "address: 2001:DB8:0:0::10\nbackends: {s1: {address: '2001:db8:1::1'}}"
    service = parse_config(service_case("", lines).text).services[0]
    assert service.address == IPv6Address("2001:db8::10")
    assert service.backends[0].address == IPv6Address("2001:db8:1::1")


def test_config_every_option_of_fq_codel() -> None:
    leaf = (
        "{kind: fq_codel, limit: 1000, target: 2.5ms, interval: 50ms, flows: 128, quantum: 300b, "
        "memory_limit: 4mb, ecn: false}"
    )
    gateway = parse_config(class_case("", f"{{rate: 1mbit, leaf: {leaf}}}").text)
    assert gateway.classes[0].leaf == Leaf(
        LeafKind.FQ_CODEL, 1000, 2500, 50_000, 128, 300, 4 * 2**20, False
    )


@pytest.mark.parametrize("written", ["fifo", "{kind: fifo}"])
def test_config_leaf_is_a_word_or_a_mapping(written: str) -> None:
    gateway = parse_config(class_case("", f"{{rate: 1mbit, leaf: {written}}}").text)
    assert gateway.classes[0].leaf == Leaf(LeafKind.FIFO)


def test_config_child_is_where_its_parent_is() -> None:
    text = INTERFACES + (
        "version: 1\nclasses:\n  rest: {rate: 1mbit}\n  up: {rate: 2mbit, interfaces: [wan]}\n"
        "  child: {parent: up, rate: 1mbit}\n  leaf: {parent: child, rate: 1mbit}\n"
        "default_class: rest\n"
    )
    where = {entry.name: entry.interfaces for entry in parse_config(text).classes}
    assert where == {"rest": BOTH, "up": ("wan",), "child": ("wan",), "leaf": ("wan",)}


def test_config_rates_that_fill_the_interface_exactly_are_accepted() -> None:
    text = INTERFACES + (
        "version: 1\nclasses:\n  a: {rate: 600mbit, ceil: 1gbit}\n  b: {rate: 400mbit}\n"
        "  c: {rate: 600mbit, ceil: 1gbit, parent: a}\ndefault_class: b\n"
    )
    assert len(parse_config(text).classes) == 3


def test_config_seven_levels_are_accepted() -> None:
    lines = ["version: 1", "classes:", "  c1: {rate: 1mbit}"]
    lines += [f"  c{n}: {{rate: 1mbit, parent: c{n - 1}}}" for n in range(2, 8)]
    text = INTERFACES + "\n".join([*lines, "default_class: c7"]) + "\n"
    assert len(parse_config(text).classes) == 7


def test_config_bandwidth_without_classes_makes_one_class_of_the_largest() -> None:
    """The largest, so that no interface is throttled: the tree builder clips it to each."""
    gateway = parse_config(
        "version: 1\ninterfaces:\n  wan: {device: eth0, role: client, bandwidth: 100mbit}\n"
        "  lan: {device: eth1, role: backend, bandwidth: 1gbit}\n"
        "  out: {device: eth2, role: client}\n"
    )
    assert gateway.default_class == IMPLICIT_CLASS
    assert gateway.classes == (TrafficClass(IMPLICIT_CLASS, None, 10**9, 10**9, 0, Leaf(), BOTH),)


def test_config_without_bandwidth_shapes_nothing() -> None:
    gateway = parse_config("version: 1\ninterfaces: {wan: {device: eth0, role: client}}\n")
    assert not gateway.shaped
    assert gateway.default_class is None


def test_config_aliases_are_values_of_their_own() -> None:
    text = service_case("", "backends: &farm {s1: {address: 203.0.113.11, port: 8080}}").text + (
        "  two: {address: 198.51.100.11, port: 80, backends: *farm}\n"
    )
    one, two = parse_config(text).services
    assert one.backends == two.backends


def test_config_warns_of_a_class_that_nothing_uses() -> None:
    text = INTERFACES + (
        "version: 1\nclasses:\n  rest: {rate: 1mbit}\n  idle: {rate: 1mbit}\ndefault_class: rest\n"
    )
    warnings = parse_with_warnings(text).warnings
    assert [warning.render("gw.yaml") for warning in warnings] == [
        "gw.yaml:7:3: no service uses class 'idle'"
    ]


def test_config_warns_of_a_service_that_takes_no_flow() -> None:
    text = service_case("", "backends: {s1: {address: 203.0.113.11, weight: 0}}").text
    assert [warning.render("gw.yaml") for warning in parse_with_warnings(text).warnings] == [
        "gw.yaml:9:5: every backend of service 'www' has weight 0: no new flow is accepted"
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_config_example_is_valid_and_gives_no_warning(path: Path) -> None:
    assert load_config(path).services
    assert parse_with_warnings(path.read_text()).warnings == ()


def test_config_of_the_readme_is_valid() -> None:
    files = re.findall(r"```yaml\n(version:.*?)```", README.read_text(), re.DOTALL)
    assert files
    for text in files:
        assert parse_config(text, str(README)).services


def test_config_examples_exist() -> None:
    assert {path.name for path in EXAMPLES} >= {"first.yaml", "ipv6.yaml", "dns.yaml"}


def test_config_error_is_a_usage_error_that_shows_every_line() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config("version: 3\ninterfaces: {}\n", "gw.yaml")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "gw.yaml:1:10: version 3 is not known: this is version 1\n"
        "gw.yaml:2:13: the gateway has no interfaces"
    )


def test_config_error_lines_under_another_name() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("", "gw.yaml")
    assert caught.value.lines("<stdin>") == (
        "<stdin>:1:1: the file is empty (begin with 'version: 1')",
    )


def test_config_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:1:1: cannot read the file: No such file or directory"


def test_config_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the file: Is a directory"):
        load_config(tmp_path)


def test_config_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "gw.yaml"
    path.write_bytes("version: 1\n# ä ".encode() + b"\xff\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:2:5: byte 0xff is not UTF-8"


def test_config_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "gw.yaml"
    path.write_bytes(b"#" * (16 * 2**20 + 1))
    with pytest.raises(ConfigError, match="1:1: the file is larger than 16 MiB"):
        load_config(path)
