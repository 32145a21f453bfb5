"""Pins that somebody removed: the next apply makes programs and maps belong together again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shaper.instance import Instance
from shaper.kernel import libbpf, loader
from tests.conftest import Namespace
from tests.netns.bare import Shaper

pytestmark = [pytest.mark.netns, pytest.mark.bpf]


def attached_program(gateway: Namespace, device: str) -> int:
    (link,) = json.loads(gateway.run("ip", "-json", "link", "show", "dev", device).stdout)
    return int(link["xdp"]["prog"]["id"])


def maps_of(program: Path) -> frozenset[int]:
    fd = libbpf.pinned(program)
    assert fd is not None
    try:
        return libbpf.program_info(fd).map_ids
    finally:
        os.close(fd)


def map_id(pin: Path) -> int:
    fd = libbpf.pinned(pin)
    assert fd is not None
    try:
        return libbpf.map_info(fd).map_id
    finally:
        os.close(fd)


@pytest.mark.parametrize("lost", ["service_map", "flow_map"])
def test_a_lost_map_is_made_again_with_programs_that_read_it(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance, lost: str
) -> None:
    shaper("apply", config)
    (digest,) = loader.pinned_digests(instance.pins)
    before = attached_program(gateway, "wan0")
    (instance.pins / "maps" / lost).unlink()
    assert "attach" in shaper("plan", config)

    shaper("apply", config)
    assert shaper("plan", config, "--exit-code") == ""
    assert loader.complete_digests(instance.pins) == {digest}
    after = attached_program(gateway, "wan0")
    assert after != before
    assert loader.pinned_programs(instance.pins)[after] == f"{digest}/xdp_balance"
    maps = {map_id(path) for path in (instance.pins / "maps").iterdir()}
    for path in (instance.pins / "programs" / digest).iterdir():
        assert maps_of(path) <= maps
    shaper("down")
    assert not instance.pins.exists()


def test_down_needs_no_complete_pins(
    shaper: Shaper, config: Path, gateway: Namespace, instance: Instance
) -> None:
    shaper("apply", config)
    (instance.pins / "maps" / "service_map").unlink()
    shaper("down")
    assert not instance.pins.exists()
    assert "xdp" not in gateway.run("ip", "link", "show", "dev", "wan0").stdout
