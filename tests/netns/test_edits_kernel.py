"""Edits of a configuration on a real kernel, and what they must not do to anybody else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from shaper.instance import Instance
from tests.conftest import Namespace
from tests.netns.bare import CONFIG, Shaper
from tests.waiting import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.bpf]

INTERFACES = """\
version: 1
interfaces:
  wan: {device: wan0, role: client, bandwidth: 100mbit}
  lan: {device: lan0, role: backend, bandwidth: 100mbit}
"""

EDITED = f"""{INTERFACES}\
classes:
  web: {{rate: 40mbit, ceil: 100mbit, priority: 2}}
  rest: {{rate: 10mbit, ceil: 80mbit, priority: 6}}
default_class: web
services:
  www:
    address: 198.51.100.10
    port: [80, 81]
    protocol: tcp
    scheduler: round-robin
    class: rest
    backends:
      s1: {{address: 203.0.113.11, port: 8080, weight: 3}}
      s2: {{address: 203.0.113.12, port: 8081}}
"""
"""The IPv6 service and its class left, `bulk` has a new name, the default class is another one and
lost its child, and a backend has another port: all against `CONFIG`."""

ONE_SIDED = f"""{INTERFACES}\
classes:
  web: {{rate: 40mbit, interfaces: [wan]}}
  bulk: {{rate: 10mbit}}
default_class: bulk
services:
  www:
    address: 198.51.100.10
    port: 80
    protocol: tcp
    scheduler: round-robin
    class: web
    backends:
      s1: {{address: 203.0.113.11, port: 8080}}
"""

SEND = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, int(sys.argv[1], 16))
    for _ in range(20):
        sender.sendto(bytes(100), ("203.0.113.77", 9))
"""

ANNOUNCE = """\
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether
from scapy.sendrecv import sendp
frame = Ether(src="02:00:00:00:00:99", dst="33:33:00:00:00:01")
router = IPv6(src="fe80::99", dst="ff02::1", hlim=255)
sendp(frame / router / ICMPv6ND_RA(routerlifetime=1800), iface="lan1", verbose=False)
"""


def setting(gateway: Namespace, name: str) -> str:
    return gateway.run("sysctl", "-n", name).stdout.strip()


@pytest.mark.timeout(300)
def test_whatever_is_killed_anywhere_is_repaired_or_removed(
    gateway: Namespace, instance: Instance, tmp_path: Path, project_root: Path
) -> None:
    gateway.run("sysctl", "-qw", "net.ipv6.conf.lan0.forwarding=1")
    gateway.run("sysctl", "-qw", "net.ipv6.conf.wan0.accept_ra=0")
    gateway.run("tc", "qdisc", "add", "dev", "lan0", "clsact")
    files = (tmp_path / "first.yaml", tmp_path / "edited.yaml")
    for file, text in zip(files, (CONFIG, EDITED), strict=True):
        file.write_text(text)
    result = gateway.run(
        "env",
        f"PYTHONPATH={project_root}",
        sys.executable,
        project_root / "tests/netns/interruptions.py",
        instance.name,
        *files,
        timeout_s=280,
    )
    report = json.loads(result.stdout)
    assert report["failures"] == []
    assert report["second_apply_steps"] == 0
    assert report["apply_steps"] > 25
    assert report["edit_steps"] > 25
    assert report["down_steps"] >= 10


def test_packets_of_a_class_of_the_other_device_are_shaped_after_the_default_is_renamed(
    gateway: Namespace, shaper: Shaper, tmp_path: Path
) -> None:
    """HTB's default class is fixed: were it left at the old one's minor, they would be "direct"."""
    file = tmp_path / "gateway.yaml"
    file.write_text(ONE_SIDED)
    shaper("apply", file)
    file.write_text(ONE_SIDED.replace("bulk", "rest"))
    assert "the packets queued there are lost" in shaper("plan", file)
    shaper("apply", file)
    classes = {
        (row["name"], row["interface"]): row
        for row in json.loads(shaper("status", "--json"))["classes"]
    }
    assert ("web", "lan") not in classes
    hardware = "02:00:00:00:00:77"
    gateway.run("ip", "neighbour", "add", "203.0.113.77", "lladdr", hardware, "dev", "lan0")
    major, minor = (int(part, 16) for part in classes["web", "wan"]["handle"].split(":"))
    gateway.run(sys.executable, "-c", SEND, f"{major << 16 | minor:x}")

    def packets() -> int:
        rows = json.loads(shaper("status", "--json"))["classes"]
        return sum(
            row["packets"] for row in rows if (row["name"], row["interface"]) == ("rest", "lan")
        )

    wait_until(lambda: packets() >= 20, timeout_s=10, what="20 packets")
    shown = gateway.run("tc", "-statistics", "-details", "qdisc", "show", "dev", "lan0").stdout
    assert re.findall(r"direct_packets_stat (\d+)", shown) == ["0"]
    shaper("down")


def test_forwarding_of_others_survives_that_the_last_ipv6_service_leaves(
    gateway: Namespace, shaper: Shaper, tmp_path: Path
) -> None:
    """Giving `all` back writes every device's, so theirs are put right after it."""
    gateway.run("sysctl", "-qw", "net.ipv6.conf.lan0.forwarding=1")
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    shaper("apply", file)
    assert setting(gateway, "net.ipv6.conf.all.forwarding") == "1"
    file.write_text(EDITED)
    shaper("apply", file)
    forwarding = {
        device: setting(gateway, f"net.ipv6.conf.{device}.forwarding")
        for device in ("all", "lan0", "wan0")
    }
    assert forwarding == {"all": "0", "lan0": "1", "wan0": "0"}
    shaper("down")


def test_the_gateways_own_announced_route_survives(
    gateway: Namespace, shaper: Shaper, tmp_path: Path
) -> None:
    """rt6_purge_dflt_routers() takes them from devices whose accept_ra is 1."""

    def announced() -> str:
        return gateway.run("ip", "-6", "route", "show", "default", "proto", "ra").stdout

    def announce() -> bool:
        gateway.run(sys.executable, "-c", ANNOUNCE)
        return "fe80::99 dev lan0" in announced()

    assert setting(gateway, "net.ipv6.conf.lan0.accept_ra") == "1"
    wait_until(announce, what="the announced route", timeout_s=20)
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    shaper("apply", file)
    assert setting(gateway, "net.ipv6.conf.lan0.accept_ra") == "2"
    assert "fe80::99 dev lan0" in announced()
    shaper("down")
    assert setting(gateway, "net.ipv6.conf.lan0.accept_ra") == "1"
    assert "fe80::99 dev lan0" in announced()
