"""Labs for the tests here, one per module (a lab takes half a second), skipped without root; and a
bare gateway, made anew for each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shaper.instance import Instance
from shaper.lab.network import Lab
from shaper.lab.plan import LabSpec
from tests.conftest import Namespace
from tests.netns.bare import CONFIG, Shaper


@pytest.fixture(scope="module")
def lab_spec() -> LabSpec:
    """Modules that need another lab define a fixture of this name."""
    return LabSpec()


@pytest.fixture(scope="module")
def lab(lab_spec: LabSpec) -> Iterator[Lab]:
    if os.geteuid() != 0:  # module scope comes before the marks are looked at
        pytest.skip("needs root: network namespaces")
    with Lab(lab_spec) as built:
        yield built


@pytest.fixture
def gateway(make_netns: Callable[[], Namespace]) -> Namespace:
    """A namespace with the two devices, up, and things of other owners on them."""
    inside = make_netns()
    for device, peer, address in (
        ("wan0", "wan1", "198.51.100.1/24"),
        ("lan0", "lan1", "203.0.113.1/24"),
    ):
        inside.run("ip", "link", "add", device, "type", "veth", "peer", "name", peer)
        for name in (device, peer):
            inside.run("ip", "link", "set", name, "addrgenmode", "none")
            inside.run("ip", "link", "set", name, "up")
        inside.run("ip", "address", "add", address, "dev", device)
    return inside


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def shaper(gateway: Namespace, instance: Instance) -> Shaper:
    """Runs a verb in the gateway and returns its standard output."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        command = [sys.executable, "-m", "shaper", "--instance", instance.name, *arguments]
        result = gateway.run(*command, check=False)
        assert result.returncode == code, f"{arguments}: {result.stderr}{result.stdout}"
        assert "Traceback" not in result.stderr
        return result.stdout if code == 0 else result.stderr

    return run
