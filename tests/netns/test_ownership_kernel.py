"""What is whose: other owners' things stay, ours are found again whatever was lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shaper.instance import Instance
from tests.conftest import Namespace
from tests.netns.bare import CONFIG, Shaper

pytestmark = [pytest.mark.netns, pytest.mark.bpf]

SHAPER = (sys.executable, "-m", "shaper", "--instance")


def xdp_of(gateway: Namespace, device: str = "wan0") -> dict[str, Any]:
    (link,) = json.loads(gateway.run("ip", "-json", "link", "show", "dev", device).stdout)
    attached: dict[str, Any] = link.get("xdp", {})
    return attached


def is_clean(gateway: Namespace) -> bool:
    """No queue, filter, XDP program or service address of ours on either device."""
    shown = gateway.run("tc", "qdisc", "show").stdout + gateway.run("ip", "address", "show").stdout
    return not any(word in shown for word in ("htb", "clsact", "198.51.100.10", "xdp"))


def test_ip_netns_exec_is_refused_and_changes_nothing(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    shaper("apply", config)
    for verb in (["down"], ["status"], ["apply", str(config)]):
        command = ["ip", "netns", "exec", gateway.name, *SHAPER, instance.name, *verb]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert "nsenter" in result.stderr
    assert xdp_of(gateway)
    shaper("down")
    assert is_clean(gateway)


@pytest.mark.parametrize("then", ["apply", "down"])
def test_lost_pins_are_no_reason_to_leave_or_refuse_anything(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance, then: str
) -> None:
    shaper("apply", config)
    before = xdp_of(gateway)["prog"]["id"]
    shutil.rmtree(instance.pins)
    if then == "apply":
        shaper("apply", config)
        assert xdp_of(gateway)["prog"]["id"] != before
        assert shaper("plan", config, "--exit-code") == ""
    shaper("down")
    assert is_clean(gateway)


def test_one_lost_map_makes_the_programs_stale(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    shaper("apply", config)
    before = xdp_of(gateway)["prog"]["id"]
    (instance.pins / "maps/service_map").unlink()
    shaper("apply", config)
    assert xdp_of(gateway)["prog"]["id"] != before
    assert shaper("plan", config, "--exit-code") == ""
    shaper("down")


def test_a_lost_state_file_leaves_queues_and_programs_recognisable(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    shaper("apply", config)
    shutil.rmtree(instance.state)
    shaper("down")
    shown = gateway.run("tc", "qdisc", "show").stdout
    assert "htb" not in shown
    assert not xdp_of(gateway)
    assert not instance.pins.exists()


def test_a_second_instance_in_the_namespace_is_refused(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    shaper("apply", config)
    second = Instance(f"{instance.name}-b")
    other = gateway.run(*SHAPER, second.name, "apply", config, check=False)
    second.lock.unlink()
    assert other.returncode == 1
    assert f"instance {instance.name} is applied in this network namespace" in other.stderr
    assert shaper("plan", config, "--exit-code") == ""
    shaper("down")


def test_a_namespace_made_anew_is_not_the_old_one(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    """Its inode is usually the same; the addresses that its admin gave must stay."""
    shaper("apply", config)
    subprocess.run(["ip", "netns", "delete", gateway.name], check=True)
    subprocess.run(["ip", "netns", "add", gateway.name], check=True)
    gateway.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
    gateway.run("ip", "address", "add", "198.51.100.10/32", "dev", "wan0")
    shaper("down")
    assert "198.51.100.10" in gateway.run("ip", "address", "show", "dev", "wan0").stdout
    assert not instance.pins.exists()


def test_status_answers_only_where_the_instance_is(
    shaper: Shaper, config: Path, instance: Instance, make_netns: Callable[[], Namespace]
) -> None:
    shaper("apply", config)
    result = make_netns().run(*SHAPER, instance.name, "status", check=False)
    assert result.returncode == 1
    assert "another network namespace" in result.stderr
    shaper("down")


def test_an_ingress_qdisc_is_refused_before_anything_changes(
    shaper: Shaper, config: Path, gateway: Namespace
) -> None:
    gateway.run("tc", "qdisc", "add", "dev", "wan0", "ingress")
    message = shaper("apply", config, code=1)
    assert "wan0 has an ingress qdisc" in message
    assert "htb" not in gateway.run("tc", "qdisc", "show").stdout


def test_a_device_without_ethernet_is_refused_before_anything_changes(
    shaper: Shaper, config: Path, gateway: Namespace
) -> None:
    gateway.run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
    config.write_text(CONFIG.replace("device: wan0", "device: tun0"))
    assert "tun0 has no Ethernet header" in shaper("apply", config, code=1)
    assert "htb" not in gateway.run("tc", "qdisc", "show").stdout


def test_xdp_is_generic_where_the_driver_refuses(
    shaper: Shaper, config: Path, gateway: Namespace
) -> None:
    """veth takes native XDP only up to a page."""
    for device in ("wan0", "wan1"):
        gateway.run("ip", "link", "set", device, "mtu", "9000")
    shaper("apply", config)
    modes = {
        row["name"]: row["xdp"] for row in json.loads(shaper("status", "--json"))["interfaces"]
    }
    assert modes == {"wan": "generic", "lan": "off"}
    config.write_text(CONFIG.replace("scheduler: round-robin", "scheduler: source-hash"))
    shaper("apply", config)  # other programs: replaced in the same mode
    shaper("down")
    assert is_clean(gateway)


def test_down_goes_on_after_somebody_took_things_away(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    shaper("apply", config)
    gateway.run("ip", "address", "del", "198.51.100.10/32", "dev", "wan0")
    gateway.run("ip", "address", "add", "198.51.100.10/25", "dev", "wan0")
    gateway.run("tc", "qdisc", "del", "dev", "lan0", "root")
    gateway.run("tc", "qdisc", "del", "dev", "lan0", "clsact")
    shaper("down")
    assert "198.51.100.10/25" in gateway.run("ip", "address", "show", "dev", "wan0").stdout
    assert not instance.state.exists()
    assert not xdp_of(gateway)


@pytest.mark.parametrize("then", ["down", "apply"])
def test_a_renamed_device_keeps_its_past(
    shaper: Shaper, config: Path, gateway: Namespace, then: str
) -> None:
    shaper("apply", config)
    for command in (("down",), ("name", "uplink"), ("up",)):
        gateway.run("ip", "link", "set", "wan0" if command != ("up",) else "uplink", *command)
    if then == "apply":
        config.write_text(CONFIG.replace("device: wan0", "device: uplink"))
        shaper("apply", config)
    shaper("down")
    assert is_clean(gateway)
    value = gateway.run("cat", "/proc/sys/net/ipv4/conf/uplink/forwarding").stdout
    assert value == "0\n"


def test_apply_without_an_agent_does_not_raise_the_dead(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    """An agent took s1 down and was stopped: the same file again changes nothing."""
    health = "    health: {type: tcp}\n"
    config.write_text(CONFIG.replace("  www6:", f"{health}  www6:"))
    shaper("apply", config)
    program = (
        "import sys; from pathlib import Path\n"
        "from shaper.agent.engine import Engine; from shaper.config import load_config\n"
        "from shaper.instance import Instance; from shaper.model import BackendRuntime\n"
        "Engine(Instance(sys.argv[1])).steer(load_config(Path(sys.argv[2])),\n"
        "    {('www', 's1'): BackendRuntime(up=False)})\n"
    )
    gateway.run(sys.executable, "-c", program, instance.name, config)
    assert shaper("plan", config, "--exit-code") == ""
    shaper("apply", config)
    states = [
        row["state"] for row in json.loads(shaper("status", "--json"))["services"][0]["backends"]
    ]
    assert states == ["down", "up"]
    shaper("down")


def test_an_applied_text_of_another_version_can_be_replaced(
    shaper: Shaper, config: Path, instance: Instance
) -> None:
    shaper("apply", config)
    file = instance.state / "state.json"
    state = json.loads(file.read_text())
    state["text"] = state["text"].replace("version: 1", "version: 1\nbygone: true")
    file.write_text(json.dumps(state))
    message = shaper("status", code=1)
    assert "does not accept what is applied" in message
    assert "apply a file" in message
    shaper("apply", config)
    assert shaper("plan", config, "--exit-code") == ""
    shaper("down")
