"""Apply and down on a real kernel: verified, minimal, reversible."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shaper.instance import Instance
from tests.conftest import Namespace
from tests.netns.bare import CONFIG, Shaper

pytestmark = [pytest.mark.netns, pytest.mark.bpf]


def test_a_change_touches_only_what_differs(shaper: Shaper, config: Path) -> None:
    shaper("apply", config)
    assert shaper("plan", config, "--exit-code") == ""
    config.write_text(CONFIG.replace("rate: 10mbit, ceil: 50mbit", "rate: 12mbit, ceil: 50mbit"))
    changes = shaper("plan", config).splitlines()
    assert [line.split(" (")[0] for line in changes if "change class" in line] == changes
    assert {line.split(":")[0] for line in changes} == {"wan0", "lan0"}
    rows = json.loads(shaper("plan", config, "--json"))["operations"]
    assert {row["operation"] for row in rows} == {"ChangeClass"}
    shaper("plan", config, "--exit-code", code=3)
    shaper("apply", config)
    assert shaper("plan", config, "--exit-code") == ""
    shaper("down")


def test_status_shows_the_contract(shaper: Shaper, config: Path, instance: Instance) -> None:
    shaper("apply", config)
    status = json.loads(shaper("status", "--json"))
    assert status["instance"] == instance.name
    assert status["generation"] == 1
    assert {row["xdp"] for row in status["interfaces"]} == {"native", "off"}
    www = status["services"][0]
    assert www["port"] == [80, 81]
    assert www["class"] == "web"
    assert [row["effective_weight"] for row in www["backends"]] == [3, 1]
    classes = {(row["name"], row["interface"]): row for row in status["classes"]}
    assert classes["api", "wan"]["parent"] == "web"
    assert classes["api", "lan"]["rate_bps"] == 10_000_000
    assert classes["bulk", "wan"]["handle"].startswith("5348:")
    assert "www" in shaper("status")
    shaper("down")


def test_down_twice_and_status_of_nothing(shaper: Shaper, config: Path) -> None:
    shaper("apply", config)
    shaper("down")
    shaper("down")
    assert "nothing is applied" in shaper("status", code=1)


def test_a_missing_device_changes_nothing(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    config.write_text(CONFIG.replace("wan0", "wan9"))
    assert "no device wan9" in shaper("apply", config, code=1)
    assert "htb" not in gateway.run("tc", "qdisc", "show").stdout
    assert not instance.state.exists()


def test_what_others_put_there_is_refused_and_stays(
    shaper: Shaper, config: Path, gateway: Namespace
) -> None:
    gateway.run("tc", "qdisc", "add", "dev", "wan0", "root", "handle", "1:", "htb")
    message = shaper("apply", config, code=1)
    assert "wan0" in message
    assert "tc qdisc del dev wan0 root" in message
    assert "htb 1:" in gateway.run("tc", "qdisc", "show", "dev", "wan0").stdout


def test_another_namespace_is_refused(
    shaper: Shaper, config: Path, instance: Instance, make_netns: Callable[[], Namespace]
) -> None:
    shaper("apply", config)
    elsewhere = make_netns()
    result = elsewhere.run(
        sys.executable, "-m", "shaper", "--instance", instance.name, "down", check=False
    )
    assert result.returncode == 1
    assert "another network namespace" in result.stderr
    shaper("down")


def test_broken_files_are_refused_at_their_place_and_change_nothing(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance, project_root: Path
) -> None:
    result = gateway.run(
        "env",
        f"PYTHONPATH={project_root}",
        sys.executable,
        project_root / "tests/netns/broken_files.py",
        instance.name,
        config,
        timeout_s=100,
    )
    report = json.loads(result.stdout)
    assert report["failures"] == []
    assert report["tried"] > 60
    assert shaper("plan", config, "--exit-code") == ""
    shaper("down")
