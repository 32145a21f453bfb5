"""What is pinned: opened without making anything, and recognised where it belongs to other maps."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shaper.errors import KernelError
from shaper.kernel import libbpf, loader
from shaper.kernel.compile import PROGRAMS, ProgramObject

pytestmark = pytest.mark.bpf


@pytest.fixture
def pins() -> Iterator[Path]:
    """The folder of an instance that does not exist yet."""
    loader.ensure_bpffs()
    folder = loader.BPFFS / "shaper" / f"test-{secrets.token_hex(4)}"
    yield folder
    loader.remove_pins(folder)


def load(compiled: ProgramObject, pins: Path) -> None:
    loader.load(compiled, pins).close()


def map_ids(loaded: loader.Loaded) -> dict[str, int]:
    return {name: libbpf.map_info(entry.fd).map_id for name, entry in loaded.maps.items()}


def open_descriptors() -> set[str]:
    """Of this process, by what they refer to; another thread's may come and go."""
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.add(f"{entry.name} {os.readlink(entry)}")  # noqa: PTH115
        except FileNotFoundError:
            continue
    return {link for link in links if "bpf" in link}


def test_open_loaded_refuses_and_makes_nothing(compiled: ProgramObject, pins: Path) -> None:
    with pytest.raises(KernelError, match="not loaded") as refused:
        loader.open_loaded(compiled, pins)
    assert refused.value.hint == "apply again"
    assert not pins.exists()


def test_open_loaded_opens_what_load_pinned(compiled: ProgramObject, pins: Path) -> None:
    with loader.load(compiled, pins) as made:
        with loader.open_loaded(compiled, pins) as opened:
            assert map_ids(opened) == map_ids(made)
            assert opened.programs.keys() == PROGRAMS.keys()
    assert loader.complete_digests(pins) == {compiled.digest}
    assert loader.pinned_digests(pins) == (compiled.digest,)


@pytest.mark.parametrize("lost", ["maps/service_map", "programs/{digest}/flow_sweep"])
def test_open_loaded_refuses_where_one_pin_is_lost(
    compiled: ProgramObject, pins: Path, lost: str
) -> None:
    load(compiled, pins)
    path = pins / lost.format(digest=compiled.digest)
    path.unlink()
    before = open_descriptors()
    with pytest.raises(KernelError, match="not loaded"):
        loader.open_loaded(compiled, pins)
    assert not path.exists()
    assert loader.complete_digests(pins) == frozenset()
    assert open_descriptors() == before


def test_programs_of_a_replaced_map_are_stale_until_they_are_loaded_again(
    compiled: ProgramObject, pins: Path
) -> None:
    """The new map is one that no loaded program reads: writes into it would be without effect."""
    load(compiled, pins)
    (pins / "maps" / "service_map").unlink()
    stale = f"{compiled.digest}-stale"
    assert loader.pinned_digests(pins) == (stale,)
    assert {path.partition("/")[0] for path in loader.pinned_programs(pins).values()} == {stale}

    with loader.load(compiled, pins) as loaded:
        ids = frozenset(map_ids(loaded).values())
        for fd in loaded.programs.values():
            assert libbpf.program_info(fd).map_ids <= ids
    assert loader.complete_digests(pins) == {compiled.digest}
    loader.open_loaded(compiled, pins).close()
    loader.remove_programs(pins, stale)
    assert loader.pinned_digests(pins) == (compiled.digest,)


def test_a_stale_set_can_be_removed_under_its_name(compiled: ProgramObject, pins: Path) -> None:
    load(compiled, pins)
    (pins / "maps" / "service_map").unlink()
    loader.remove_programs(pins, compiled.digest)
    assert loader.pinned_digests(pins) == (f"{compiled.digest}-stale",)
    loader.remove_programs(pins, f"{compiled.digest}-stale")
    assert loader.pinned_digests(pins) == ()


def test_loading_twice_keeps_programs_and_maps(compiled: ProgramObject, pins: Path) -> None:
    load(compiled, pins)
    before = loader.pinned_programs(pins)
    load(compiled, pins)
    assert loader.pinned_programs(pins) == before


def test_open_maps_opens_what_exists(compiled: ProgramObject, pins: Path) -> None:
    assert loader.open_maps(compiled.maps, pins) == {}
    load(compiled, pins)
    (pins / "maps" / "counter_map").unlink()
    maps = loader.open_maps(compiled.maps, pins)
    assert maps.keys() == compiled.maps.keys() - {"counter_map"}
    loader.close_maps(maps)


def test_a_map_of_another_layout_is_refused_and_none_stays_open(
    compiled: ProgramObject, pins: Path
) -> None:
    load(compiled, pins)
    other = replace(compiled.maps["slot_map"], max_entries=7)
    before = open_descriptors()
    with pytest.raises(KernelError, match="another layout"):
        loader.open_maps({**compiled.maps, "slot_map": other}, pins)
    assert open_descriptors() == before


def test_a_refused_call_tells_its_errno() -> None:
    with pytest.raises(KernelError) as refused:
        libbpf.map_update(-1, ctypes.c_uint32(), ctypes.c_uint32())
    assert refused.value.errno == 9  # EBADF
