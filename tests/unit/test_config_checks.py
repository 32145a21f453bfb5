"""Values that are right alone and wrong together."""

from __future__ import annotations

import re
from pathlib import Path

from shaper.model import (
    MAX_BACKENDS,
    MAX_BACKENDS_PER_SERVICE,
    MAX_SERVICE_PORTS,
    MAX_SERVICES,
)
from tests.unit.config_cases import (
    INTERFACES,
    Case,
    backend_case,
    case,
    class_case,
    expected,
    found,
    parametrize,
    service_case,
)

GOOD_BACKENDS = "backends: {s1: {address: 203.0.113.11}}"


def tree_case(name: str, classes: str, *messages: str) -> Case:
    """The given classes, one a line; the default class is `rest`."""
    lines = "".join(f"  {line.strip()}\n" for line in classes.strip().splitlines())
    return case(name, f"classes:\n{lines}default_class: rest\n", *messages)


def two_services(name: str, first: str, second: str, *messages: str) -> Case:
    """Services `a` and `b`, each a flow mapping without its backends."""
    text = "services:\n"
    for key, body in (("a", first), ("b", second)):
        text += f"  {key}: {{{body}, backends: {{s1: {{address: 203.0.113.11, port: 80}}}}}}\n"
    return case(name, text, *messages)


DEEP = "\n".join(
    ["rest: {rate: 1mbit}", "c1: {rate: 1mbit}"]
    + [f"c{n}: {{rate: 1mbit, parent: c{n - 1}}}" for n in range(2, 8)]
    + ["c8: {rate: 1mbit, parent: ▶c7}", "c9: {rate: 1mbit, parent: c8}"]
)

INTERFACE_CASES = [
    case("no interface", "interfaces: ▶{}\n", "the gateway has no interfaces"),
    case(
        "device twice",
        "interfaces:\n  a: {device: eth0, role: client}\n  b: {device: ▶eth0, role: backend}\n",
        "device 'eth0' is already interface 'a'",
    ),
    case(
        "devices that stand for all in sysctls",
        "interfaces:\n  a: {device: ▶all, role: client}\n  b: {device: ▶default, role: backend}\n"
        "  c: {device: all0, role: backend}\n",
        "device 'all' cannot be used "
        "(its sysctls, net.ipv4.conf.all.*, are not those of one device)",
        "device 'default' cannot be used "
        "(its sysctls, net.ipv4.conf.default.*, are not those of one device)",
    ),
    case(
        "no client side",
        "interfaces: {lan: {device: eth1, role: backend}}\n"
        f"▶services: {{www: {{address: 198.51.100.10, port: 80, {GOOD_BACKENDS}}}}}\n",
        "services need an interface with role 'client', and there is none",
    ),
    case(
        "no backend side",
        "interfaces: {wan: {device: eth1, role: client}}\n"
        f"▶services: {{www: {{address: 198.51.100.10, port: 80, {GOOD_BACKENDS}}}}}\n",
        "services need an interface with role 'backend', and there is none",
    ),
]

CLASS_CASES = [
    case(
        "no bandwidth",
        "interfaces:\n  wan: {device: eth0, role: client}\n"
        "▶classes: {a: {rate: 1mbit}}\ndefault_class: a\n",
        "classes need an interface with a 'bandwidth', and there is none",
    ),
    case(
        "no default class",
        "▶classes:\n  a: {rate: 1mbit}\n",
        "missing key 'default_class' (the class of what no service claims)",
    ),
    case(
        "unknown default class",
        "classes:\n  bulk: {rate: 1mbit}\ndefault_class: ▶bluk\n",
        "unknown class 'bluk' (did you mean 'bulk'?)",
    ),
    case("default class without classes", "default_class: ▶bulk\n", "unknown class 'bulk'"),
    tree_case(
        "unknown parent",
        "rest: {rate: 1mbit, parent: ▶rst}",
        "unknown class 'rst' (did you mean 'rest'?)",
    ),
    service_case("unknown class of a service", "class: ▶web", "unknown class 'web'"),
    class_case(
        "unknown interface",
        "{rate: 1mbit, interfaces: [wan, lan, ▶wam]}",
        "unknown interface 'wam' (did you mean 'wan'?)",
    ),
    class_case(
        "interface twice",
        "{rate: 1mbit, interfaces: [wan, lan, ▶wan]}",
        "interface 'wan' stands here twice",
    ),
    class_case(
        "no interface",
        "{rate: 1mbit, interfaces: ▶[]}",
        "the list of interfaces is empty (leave the key out for all)",
    ),
    case(
        "interface without bandwidth",
        "interfaces:\n  wan: {device: eth0, role: client, bandwidth: 1gbit}\n"
        "  lan: {device: eth1, role: backend}\n"
        "classes:\n  a: {rate: 1mbit, interfaces: [wan, ▶lan]}\ndefault_class: a\n",
        "interface 'lan' has no 'bandwidth', so no class can be on it",
    ),
    case(
        "default class is not everywhere",
        "classes:\n  a: {rate: 1mbit, interfaces: [wan]}\ndefault_class: ▶a\n",
        "default class 'a' is not on interface 'lan' (every shaped interface needs it)",
    ),
    tree_case(
        "child where its parent is not",
        """rest: {rate: 1mbit}
        up: {rate: 10mbit, interfaces: [wan]}
        down: {rate: 1mbit, parent: up, interfaces: [wan, ▶lan]}""",
        "parent 'up' is not on interface 'lan'",
    ),
    tree_case(
        "own parent",
        "rest: {rate: 1mbit}\na: {rate: 1mbit, parent: ▶a}",
        "class 'a' is its own ancestor: a -> a",
    ),
    tree_case(
        "cycle of three",
        """rest: {rate: 1mbit}
        a: {rate: 1mbit, parent: ▶b}
        b: {rate: 1mbit, parent: c}
        c: {rate: 1mbit, parent: a}
        d: {rate: 1mbit, parent: a}""",
        "class 'a' is its own ancestor: a -> b -> c -> a",
    ),
    tree_case(
        "eight levels",
        DEEP,
        "class 'c8' is 8 levels deep (HTB has room for 7 below the interface)",
    ),
    class_case(
        "ceil below rate",
        "{rate: 200mbit, ceil: ▶100mbit}",
        "'ceil' (100mbit) is below 'rate' (200mbit)",
    ),
    tree_case(
        "ceil above parent",
        """rest: {rate: 1mbit}
        a: {rate: 100mbit, ceil: 200mbit}
        b: {rate: 100mbit, parent: a, ceil: ▶201mbit}""",
        "'ceil' (201mbit) is above the ceil of its parent 'a' (200mbit)",
    ),
    tree_case(
        "ceil above parent's rate, which is its ceil",
        """rest: {rate: 1mbit}
        a: {rate: 100mbit}
        b: {rate: 50mbit, parent: a, ceil: ▶150mbit}""",
        "'ceil' (150mbit) is above the ceil of its parent 'a' (100mbit)",
    ),
    class_case(
        "ceil above interface",
        "{rate: 1mbit, ceil: ▶2gbit}",
        "'ceil' (2gbit) is above the bandwidth of interface 'wan' (1gbit)",
    ),
    class_case(
        "rate above interface",
        "{rate: ▶2gbit}",
        "the rates of the top-level classes on interface 'wan' reach 2gbit, "
        "above its bandwidth (1gbit)",
    ),
    tree_case(
        "sum above interface",
        """rest: {rate: 500mbit}
        a: {rate: 400mbit}
        b: {rate: ▶200mbit}
        c: {rate: 1mbit}""",
        "the rates of the top-level classes on interface 'wan' reach 1.1gbit, "
        "above its bandwidth (1gbit)",
    ),
    case(
        "sum above the slower interface only",
        "interfaces:\n  wan: {device: eth0, role: client, bandwidth: 1gbit}\n"
        "  lan: {device: eth1, role: backend, bandwidth: 100mbit}\n"
        "classes:\n  a: {rate: 60mbit}\n  b: {rate: 60mbit, interfaces: [wan]}\n"
        "  c: {rate: ▶60mbit, interfaces: [lan]}\ndefault_class: a\n",
        "the rates of the top-level classes on interface 'lan' reach 120mbit, "
        "above its bandwidth (100mbit)",
    ),
    tree_case(
        "children above parent",
        """rest: {rate: 1mbit}
        p: {rate: 100mbit}
        a: {rate: 60mbit, parent: p}
        b: {rate: ▶60mbit, parent: p}""",
        "the rates of the children of 'p' reach 120mbit, above its rate (100mbit)",
    ),
    class_case(
        "option of another leaf",
        "{rate: 1mbit, leaf: {kind: fifo, ▶target: 5ms}}",
        "leaf 'fifo' has no option 'target' (it has limit)",
    ),
    class_case(
        "option that auto may not have",
        "{rate: 1mbit, leaf: {▶flows: 128}}",
        "leaf 'auto' has no option 'flows' (it has limit)",
    ),
    class_case(
        "elastic range backwards",
        "{rate: 1mbit, ▶elastic: {min: 2mbit, max: ▶1mbit}}",
        "'elastic' is not supported yet",
        "'max' (1mbit) is below 'min' (2mbit)",
    ),
]

SERVICE_CASES = [
    service_case("no backends", "backends: ▶{}", "service 'www' has no backends"),
    two_services(
        "VIP and port twice",
        "address: 198.51.100.10, port: 80",
        "address: 198.51.100.10, port: ▶80",
        "198.51.100.10 port 80/tcp already belongs to service 'a'",
    ),
    two_services(
        "VIP and port twice, in lists and spellings",
        "address: 198.51.100.10, protocol: tcp, port: [443, 80]",
        "address: '198.51.100.10', port: [8080, ▶80]",
        "198.51.100.10 port 80/tcp already belongs to service 'a'",
    ),
    two_services(
        "port in a range",
        "address: 198.51.100.10, port: ▶8000-8010",
        "address: 198.51.100.10, port: ▶8005",
        "port range '8000-8010' is not supported yet",
        "198.51.100.10 port 8005/tcp already belongs to service 'a'",
    ),
    two_services(
        "range over a port",
        "address: 198.51.100.10, port: 8005",
        "address: 198.51.100.10, port: ▶8000-8010",
        "198.51.100.10 port 8000-8010/tcp already belongs to service 'a'",
        "port range '8000-8010' is not supported yet",
    ),
    service_case(
        "port twice in a list",
        "port: [80, 443, ▶80]\nbackends: {s1: {address: 203.0.113.11, port: 80}}",
        "port 80 stands in this list twice",
    ),
    backend_case(
        "families mixed",
        "{address: ▶2001:db8::1}",
        "backend address 2001:db8::1 is IPv6, but the service's address 198.51.100.10 is IPv4",
    ),
    backend_case(
        "backend is the VIP",
        "{address: ▶198.51.100.10, port: 81}",
        "backend address 198.51.100.10 is the address of service 'www'",
    ),
    service_case(
        "backend twice",
        "backends: {s1: {address: 203.0.113.11, port: 80}, s2: {address: ▶203.0.113.11}}",
        "203.0.113.11 port 80 is already backend 's1'",
    ),
    service_case(
        "backend without a port under several",
        "port: [80, 443]\nbackends: {▶s1: {address: 203.0.113.11}}",
        "missing key 'port': service 'www' has several",
    ),
    service_case(
        "http key on a tcp check",
        "health: {type: tcp, ▶path: /healthz}",
        "'path' is for http checks, and this check is tcp",
    ),
    service_case(
        "timeout above interval",
        "health: {type: tcp, interval: 500ms, timeout: ▶1s}",
        "'timeout' (1s) is above 'interval' (500ms)",
    ),
    service_case(
        "timeout above the default interval",
        "health: {type: tcp, timeout: ▶3s}",
        "'timeout' (3s) is above 'interval' (2s)",
    ),
    service_case(
        "affinity prefix longer than the address",
        "▶affinity: {source_prefix: ▶64}",
        "'affinity' is not supported yet",
        "prefix length 64 is more than an IPv4 address has (32)",
    ),
]


def _many_backends(count: int, third_octet: int = 0) -> str:
    backends = (
        f"b{n}: {{address: 198.18.{third_octet + n // 250}.{n % 250}, port: 80}}"
        for n in range(count)
    )
    return "{" + ", ".join(backends) + "}"


LIMIT_CASES = [
    service_case(
        "257 backends",
        "backends: " + _many_backends(257).replace("b256:", "▶b256:"),
        "more than 256 backends in service 'www'",
    ),
    case(
        "513 services",
        "services:\n"
        + "".join(
            f"  {'▶' if n == 512 else ''}s{n}: {{address: 198.19.{n // 250}.{n % 250}, port: 80, "
            f"{GOOD_BACKENDS}}}\n"
            for n in range(513)
        ),
        "more than 512 services",
    ),
    case(
        "4097 backends",
        "services:\n"
        + "".join(
            f"  s{n}: {{address: 198.19.0.{n}, port: 80, backends: {_many_backends(250)}}}\n"
            for n in range(16)
        )
        + "  last: {address: 198.19.0.99, port: 80, backends: "
        + _many_backends(97).replace("b96:", "▶b96:")
        + "}\n",
        "more than 4096 backends in all services",
    ),
    case(
        "8193 ports",
        "services:\n  a: {address: 198.51.100.10, port: ["
        + ", ".join(map(str, range(1, 8193)))
        + "], backends: {s1: {address: 203.0.113.11, port: 80}}}\n"
        + f"  b: {{address: 198.51.100.10, port: ▶9000, {GOOD_BACKENDS}}}\n",
        "more than 8192 ports in all services",
    ),
]


@parametrize(INTERFACE_CASES)
def test_config_check_of_interfaces(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(CLASS_CASES)
def test_config_check_of_classes(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(SERVICE_CASES)
def test_config_check_of_services(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(LIMIT_CASES)
def test_config_limit_of_the_data_plane(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


def test_config_limits_are_those_of_the_data_plane() -> None:
    text = (Path(__file__).parents[2] / "bpf/shared.h").read_text()
    defined = dict(re.findall(r"^#define (MAX_\w+) (\d+)", text, re.MULTILINE))
    assert {
        "MAX_SERVICES": str(MAX_SERVICES),
        "MAX_SERVICE_KEYS": str(MAX_SERVICE_PORTS),
        "MAX_BACKENDS": str(MAX_BACKENDS),
        "MAX_BACKENDS_PER_SERVICE": str(MAX_BACKENDS_PER_SERVICE),
    }.items() <= defined.items()


EVERYTHING = case(
    "everything",
    INTERFACES.replace("bandwidth", "▶bandwith", 1)
    + """classes:
  web: {rate: ▶10, ceil: 500mbit, priority: ▶9}
  api: {parent: web, rate: 100mbit, ceil: ▶600mbit}
  bulk: {rate: 100mbit, ceil: ▶50mbit, leaf: ▶cake}
  odd: ▶5
  empty: {rate: 1mbit, ▶parent: }
default_class: ▶blk
services:
  www: {address: 198.51.100.10, port: 80, scheduler: ▶best-fit, class: odd, backends: {
    s1: {address: ▶2001:db8::1}, s2: {address: ▶203.0.113.300}}}
  two: {address: 198.51.100.10, port: ▶80, backends: ▶{}, ▶www: 1}
  ▶two: {}
  ▶end: {address: 198.51.100.11}
""",
    "unknown key 'bandwith' (did you mean 'bandwidth'?)",
    "10 is not a rate such as 500kbit, 10mbit or 1.5gbit (the unit is missing)",
    "9 is not a priority (0 to 7)",
    "'ceil' (600mbit) is above the ceil of its parent 'web' (500mbit)",
    "'ceil' (50mbit) is below 'rate' (100mbit)",
    "leaf 'cake' is not supported yet",
    "'odd' must be a mapping, not 5",
    "'parent' has no value",
    "unknown class 'blk' (did you mean 'bulk'?)",
    "scheduler 'best-fit' is not supported yet",
    "backend address 2001:db8::1 is IPv6, but the service's address 198.51.100.10 is IPv4",
    "'203.0.113.300' is not an IP address",
    "198.51.100.10 port 80/tcp already belongs to service 'www'",
    "service 'two' has no backends",
    "unknown key 'www'",
    "key 'two' stands here twice (first in line 15)",
    "missing key 'backends'",
    "missing key 'port'",
)


def test_config_problems_are_all_found_in_one_run() -> None:
    """A mistake hides no other one, whichever stage finds them."""
    assert found(EVERYTHING) == expected(EVERYTHING)
