"""Single values and keys that are wrong: one exact sentence each, at one exact place."""

from __future__ import annotations

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

RATE = "is not a rate such as 500kbit, 10mbit or 1.5gbit"
TIME = "is not a time such as 500ms, 10s or 5m"
PORT = "is not a port (1 to 65535, a range 8000-8010, or any)"
NAME_RULE = "(up to 32 letters, digits, '_', '-' and '.', starting with a letter or digit)"
UNICAST = "(use a unicast address that can be routed)"

KEYS = [
    Case(
        "no version",
        "▶interfaces: {wan: {device: eth0, role: client}}\n",
        ("missing key 'version'",),
    ),
    Case("no interfaces", "▶version: 1\n", ("missing key 'interfaces'",)),
    case("top level key", "▶servcies: {}\n", "unknown key 'servcies' (did you mean 'services'?)"),
    case("key that is nothing like one", "▶qqq: 1\n", "unknown key 'qqq'"),
    case(
        "interface key",
        "interfaces:\n  wan: {device: eth0, role: client, ▶bandwith: 1gbit}\n",
        "unknown key 'bandwith' (did you mean 'bandwidth'?)",
    ),
    class_case(
        "class key", "{rate: 1mbit, ▶prio: 1}", "unknown key 'prio' (did you mean 'priority'?)"
    ),
    class_case(
        "leaf key",
        "{rate: 1mbit, leaf: {kind: fq_codel, ▶targt: 5ms}}",
        "unknown key 'targt' (did you mean 'target'?)",
    ),
    service_case(
        "service key",
        "▶schedular: maglev",
        "unknown key 'schedular' (did you mean 'scheduler'?)",
    ),
    backend_case(
        "backend key",
        "{address: 203.0.113.11, ▶wieght: 1}",
        "unknown key 'wieght' (did you mean 'weight'?)",
    ),
    service_case(
        "health key",
        "health: {type: tcp, ▶intervall: 1s}",
        "unknown key 'intervall' (did you mean 'interval'?)",
    ),
    case(
        "controller key",
        "controller: {▶weight: static}\n",
        "unknown key 'weight' (did you mean 'weights'?)",
    ),
    case(
        "merge key",
        "classes:\n  a: &a {rate: 1mbit}\n  b: {▶<<: *a, rate: 2mbit}\ndefault_class: a\n",
        "unknown key '<<'",
    ),
    case(
        "interface without device", "interfaces:\n  ▶wan: {role: client}\n", "missing key 'device'"
    ),
    case(
        "class without rate",
        "classes:\n  ▶bulk: {priority: 1}\ndefault_class: bulk\n",
        "missing key 'rate'",
    ),
    case(
        "service without anything",
        "services:\n  ▶www: {}\n",
        "missing key 'address'",
        "missing key 'backends'",
        "missing key 'port'",
    ),
    service_case("health without type", "▶health: {interval: 1s}", "missing key 'type'"),
    case(
        "name with a slash",
        "services:\n  ▶a/b: {address: 198.51.100.10, port: 80, "
        "backends: {s1: {address: 203.0.113.11}}}\n",
        f"'a/b' is not a name {NAME_RULE}",
    ),
]

SHAPES = [
    case(
        "interfaces is a word", "interfaces: ▶eth0\n", "'interfaces' must be a mapping, not 'eth0'"
    ),
    case("interface is a number", "interfaces:\n  wan: ▶5\n", "'wan' must be a mapping, not 5"),
    case("services is a list", "services: ▶[]\n", "'services' must be a mapping, not a list"),
    case(
        "controller is a word", "controller: ▶fast\n", "'controller' must be a mapping, not 'fast'"
    ),
    case("classes without value", "▶classes:\n", "'classes' has no value"),
    class_case("rate without value", "{▶rate: }", "'rate' has no value"),
    class_case(
        "interfaces of a class is a word",
        "{rate: 1mbit, interfaces: ▶wan}",
        "'interfaces' must be a list, not 'wan'",
    ),
    class_case(
        "empty list item",
        "{rate: 1mbit, interfaces: [wan, lan, ▶~]}",
        "this list item has no value",
    ),
    service_case("address is a mapping", "address: ▶{a: b}", "a mapping is not an IP address"),
    service_case("health is a word", "health: ▶http", "'health' must be a mapping, not 'http'"),
    service_case("no port in the list", "port: ▶[]", "the list of ports is empty"),
    class_case(
        "leaf is a list", "{rate: 1mbit, leaf: ▶[]}", "'leaf' must be a mapping, not a list"
    ),
]

RATES_AND_TIMES = [
    class_case("rate without unit", "{rate: ▶10}", f"10 {RATE} (the unit is missing)"),
    class_case("rate with a bad unit", "{rate: ▶10mb}", f"'10mb' {RATE}"),
    class_case(
        "rate in bps",
        "{rate: ▶10Mbps}",
        f"'10Mbps' {RATE} (bps is bytes per second in tc and bits elsewhere: write bit)",
    ),
    class_case("rate is a boolean", "{rate: ▶true}", f"true {RATE}"),
    class_case("rate of zero", "{rate: ▶0mbit}", "rate '0mbit' is out of range (1kbit to 10tbit)"),
    class_case("negative ceil", "{rate: 1mbit, ceil: ▶-1mbit}", f"'-1mbit' {RATE}"),
    case(
        "bandwidth too large",
        "interfaces:\n  wan: {device: eth0, role: client, bandwidth: ▶11tbit}\n",
        "rate '11tbit' is out of range (1kbit to 10tbit)",
    ),
    service_case(
        "interval without unit",
        "health: {type: tcp, interval: ▶1}",
        f"1 {TIME} (the unit is missing)",
    ),
    service_case(
        "interval too short",
        "health: {type: tcp, interval: ▶1ms}",
        "time '1ms' is out of range (10ms to 3600s)",
    ),
    service_case(
        "interval in fractions",
        "health: {type: tcp, interval: ▶100.5ms}",
        "time '100.5ms' is not a whole number of milliseconds",
    ),
    case(
        "controller interval too long",
        "controller: {interval: ▶2h}\n",
        "time '2h' is out of range (100ms to 60s)",
    ),
    class_case(
        "memory limit without unit",
        "{rate: 1mbit, leaf: {kind: fq_codel, memory_limit: ▶32}}",
        "32 is not a size such as 64kb or 32mb (the unit is missing)",
    ),
    class_case(
        "memory limit too large",
        "{rate: 1mbit, leaf: {kind: fq_codel, memory_limit: ▶4gb}}",
        "size '4gb' is out of range (1b to less than 4gb)",
    ),
]

NUMBERS = [
    Case(
        "version 2",
        "version: ▶2\ninterfaces: {wan: {device: eth0, role: client}}\n",
        ("version 2 is not known: this is version 1",),
    ),
    Case(
        "version 1.0",
        "version: ▶1.0\ninterfaces: {wan: {device: eth0, role: client}}\n",
        ("version 1.0 is not known: this is version 1",),
    ),
    class_case("priority 8", "{rate: 1mbit, priority: ▶8}", "8 is not a priority (0 to 7)"),
    class_case(
        "priority is text", "{rate: 1mbit, priority: ▶'1'}", "'1' is not a priority (0 to 7)"
    ),
    class_case(
        "priority is true", "{rate: 1mbit, priority: ▶true}", "true is not a priority (0 to 7)"
    ),
    backend_case(
        "weight 1001", "{address: 203.0.113.11, weight: ▶1001}", "1001 is not a weight (0 to 1000)"
    ),
    backend_case(
        "weight 1.5", "{address: 203.0.113.11, weight: ▶1.5}", "1.5 is not a weight (0 to 1000)"
    ),
    backend_case(
        "backend port 0", "{address: 203.0.113.11, port: ▶0}", "0 is not a port (1 to 65535)"
    ),
    service_case("port 65536", "port: ▶65536", f"65536 {PORT}"),
    service_case("port with leading zero", "port: ▶010", f"'010' {PORT}"),
    service_case("sexagesimal port", "port: ▶50:61", f"'50:61' {PORT}"),
    service_case(
        "port in a list",
        "port: [80, ▶http]\nbackends: {s1: {address: 203.0.113.11, port: 1}}",
        f"'http' {PORT}",
    ),
    service_case("port range backwards", "port: ▶90-80", f"'90-80' {PORT}"),
    service_case(
        "rise 0", "health: {type: tcp, rise: ▶0}", "0 is not a number of checks (1 to 100)"
    ),
    service_case(
        "fall 0", "health: {type: tcp, fall: ▶0}", "0 is not a number of checks (1 to 100)"
    ),
    service_case(
        "expect 99",
        "health: {type: http, expect: ▶99}",
        "99 is not an HTTP status or a range such as 200-399",
    ),
    class_case(
        "limit 0",
        "{rate: 1mbit, leaf: {kind: fifo, limit: ▶0}}",
        "0 is not a number of packets (1 to 1000000)",
    ),
    class_case(
        "ecn: on",
        "{rate: 1mbit, leaf: {kind: fq_codel, ecn: ▶on}}",
        "'on' is not true or false (YAML 1.2 reads on as text)",
    ),
]

WORDS = [
    case(
        "role",
        "interfaces:\n  wan: {device: eth0, role: ▶clint}\n",
        "'clint' is not a role: use client, backend, both (did you mean 'client'?)",
    ),
    service_case(
        "scheduler",
        "scheduler: ▶least-conections",
        "'least-conections' is not a scheduler: use round-robin, least-connections, "
        "response-time, least-bandwidth, maglev, source-hash, power-of-two, best-fit "
        "(did you mean 'least-connections'?)",
    ),
    service_case(
        "forwarding",
        "forwarding: ▶tunnel",
        "'tunnel' is not a forwarding: use nat, masquerade, dsr, ipip",
    ),
    service_case("protocol", "protocol: ▶TCP", "'TCP' is not a protocol of services: use tcp, udp"),
    service_case("path", "path: ▶short", "'short' is not a path: use auto, shaped, direct"),
    service_case(
        "unavailable",
        "unavailable: ▶rejct",
        "'rejct' is not an answer to 'unavailable': use reject, drop, queue "
        "(did you mean 'reject'?)",
    ),
    service_case(
        "announce",
        "announce: ▶no",
        "'no' is not an answer to 'announce': use auto, none (did you mean 'none'?)",
    ),
    service_case(
        "affinity",
        "affinity: ▶source",
        "'source' is not an affinity: use none, or a mapping "
        "(such as {source_prefix: 32, timeout: 10m})",
    ),
    service_case(
        "health type",
        "health: {type: ▶https}",
        "'https' is not a type of check: use tcp, http (did you mean 'http'?)",
    ),
    case(
        "weights",
        "controller: {weights: ▶dynamic}\n",
        "'dynamic' is not a kind of weights: use static, adaptive",
    ),
    class_case(
        "leaf",
        "{rate: 1mbit, leaf: ▶fqcodel}",
        "'fqcodel' is not a leaf: use auto, fq_codel, fifo, cake, fq, sfq "
        "(did you mean 'fq_codel'?)",
    ),
    class_case(
        "leaf kind",
        "{rate: 1mbit, leaf: {kind: ▶pfifo}}",
        "'pfifo' is not a leaf: use auto, fq_codel, fifo, cake, fq, sfq (did you mean 'fifo'?)",
    ),
    service_case(
        "class is a boolean",
        "class: ▶true",
        'a name is needed here, and true is a boolean (write "true", with quotes, if it is one)',
    ),
    service_case(
        "class is a number",
        "class: ▶7",
        'a name is needed here, and 7 is a number (write "7", with quotes, if it is one)',
    ),
    service_case("class is a list", "class: ▶[web]", "a name is needed here, not a list"),
    service_case(
        "http path",
        "health: {type: http, path: ▶healthz}",
        "'healthz' is not a path such as /healthz",
    ),
    service_case("http host", "health: {type: http, host: ▶a b}", "'a b' is not a host name"),
    case(
        "device too long",
        "interfaces:\n  wan: {device: ▶enp130s0f0np0123, role: client}\n",
        "'enp130s0f0np0123' is not a device name (Linux allows at most 15 bytes)",
    ),
    case(
        "device with a slash",
        "interfaces:\n  wan: {device: ▶eth/0, role: client}\n",
        "'eth/0' is not a device name",
    ),
    case("subscribers file", "subscribers: {file: ▶3}\n", "3 is not a file name"),
]

ADDRESSES = [
    service_case("no address", "address: ▶example.org", "'example.org' is not an IP address"),
    service_case(
        "octet too large", "address: ▶198.51.100.256", "'198.51.100.256' is not an IP address"
    ),
    service_case(
        "with prefix",
        "address: ▶198.51.100.10/32",
        "'198.51.100.10/32' is not an IP address (an address, without the prefix length)",
    ),
    service_case("multicast", "address: ▶224.0.0.1", f"224.0.0.1 is a multicast address {UNICAST}"),
    service_case(
        "unspecified", "address: ▶0.0.0.0", f"0.0.0.0 is the unspecified address {UNICAST}"
    ),
    service_case("loopback", "address: ▶127.0.0.1", f"127.0.0.1 is a loopback address {UNICAST}"),
    service_case(
        "broadcast",
        "address: ▶255.255.255.255",
        f"255.255.255.255 is the broadcast address {UNICAST}",
    ),
    backend_case(
        "link-local", "{address: ▶169.254.1.1}", f"169.254.1.1 is a link-local address {UNICAST}"
    ),
    service_case("IPv6 loopback", "address: ▶::1", f"::1 is a loopback address {UNICAST}"),
    service_case(
        "IPv4-mapped",
        "address: ▶::ffff:198.51.100.10",
        f"::ffff:198.51.100.10 is an IPv4-mapped address {UNICAST}",
    ),
    service_case(
        "zone",
        "address: ▶2001:db8::1%eth0",
        f"2001:db8::1%eth0 is an address with a zone {UNICAST}",
    ),
]

LATER = [
    class_case(
        "DSCP name",
        "{rate: 1mbit, match: [{dscp: ▶af44}]}",
        "'af44' is not a DSCP (0 to 63, or a name such as ef, cs1, af41) (did you mean 'af43'?)",
    ),
    class_case("match port", "{rate: 1mbit, match: [{protocol: udp, port: ▶0}]}", f"0 {PORT}"),
    class_case(
        "match protocol",
        "{rate: 1mbit, match: [{protocol: ▶igmp}]}",
        "'igmp' is not a protocol: use tcp, udp, sctp, icmp, icmpv6 (did you mean 'icmp'?)",
    ),
    class_case(
        "match source",
        "{rate: 1mbit, match: [{source: ▶192.0.2.1/24}]}",
        "192.0.2.1/24 has bits behind its prefix (write 192.0.2.0/24)",
    ),
    class_case(
        "match destination",
        "{rate: 1mbit, match: [{destination: ▶here}]}",
        "'here' is not a prefix such as 192.0.2.0/24",
    ),
    class_case(
        "match mark",
        "{rate: 1mbit, match: [{mark: ▶0xgg}]}",
        "'0xgg' is not a mark (0 to 0xffffffff)",
    ),
    class_case("empty match", "{rate: 1mbit, match: [▶{}]}", "a match rule without conditions"),
    class_case(
        "match is a mapping",
        "{rate: 1mbit, match: ▶{dscp: ef}}",
        "'match' must be a list, not a mapping",
    ),
    class_case(
        "match rule is a word",
        "{rate: 1mbit, match: [▶ef]}",
        "this list item must be a mapping, not 'ef'",
    ),
    class_case(
        "elastic target",
        "{rate: 1mbit, elastic: {min: 1mbit, max: 2mbit, target: ▶0.8}}",
        "0.8 is not a percentage (1% to 100%)",
    ),
    backend_case(
        "max_connections",
        "{address: 203.0.113.11, max_connections: ▶0}",
        "0 is not a number of connections (1 to 2147483647)",
    ),
    service_case(
        "affinity prefix",
        "affinity: {source_prefix: ▶129}",
        "129 is not a prefix length (1 to 128)",
    ),
]


@parametrize(KEYS)
def test_config_key_is_reported_where_it_stands(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(SHAPES)
def test_config_value_of_the_wrong_shape(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(RATES_AND_TIMES)
def test_config_rate_time_or_size(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(NUMBERS)
def test_config_number(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(WORDS)
def test_config_word(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(ADDRESSES)
def test_config_address(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(LATER)
def test_config_value_is_validated_although_not_supported_yet(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)
