"""Loads a compiled object: maps are taken over from their pins or made, programs loaded and pinned.

    /sys/fs/bpf/shaper/INSTANCE/maps/NAME
    /sys/fs/bpf/shaper/INSTANCE/programs/DIGEST/NAME

A map whose declaration did not change is taken over with its content, so new programs know every
flow. The digest in the path tells which object is loaded; programs of another digest are removed
once the new ones are attached.

A program keeps the maps that it was loaded with. Where the pin of one was removed meanwhile, a map
made in its place is another map, of which the program knows nothing. Such a set of programs is
stale: it shows under the name DIGEST-stale, hence is replaced like the set of another digest.
"""

from __future__ import annotations

import base64
import ctypes
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shaper.errors import KernelError
from shaper.kernel import libbpf
from shaper.kernel.compile import (
    KERNEL_NAMES,
    PROGRAMS,
    MapSpec,
    ProgramObject,
    ProgramSpec,
    decode_type,
)

_STALE = "-stale"
_BPFFS_MAGIC = 0xCAFE4A11
BPFFS = Path("/sys/fs/bpf")


@dataclass(slots=True)
class BpfMap:
    """An open map with the types bcc derived for it."""

    name: str
    fd: int
    spec: MapSpec
    key_type: Any
    value_type: Any

    @classmethod
    def from_spec(cls, name: str, fd: int, spec: MapSpec) -> BpfMap:
        return cls(name, fd, spec, decode_type(spec.key_type), decode_type(spec.value_type))


@dataclass(slots=True)
class Loaded:
    """Open maps and programs of one object. Closing it leaves pins and attachments alone."""

    digest: str
    maps: dict[str, BpfMap] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        close_maps(self.maps)
        for fd in self.programs.values():
            os.close(fd)
        self.programs.clear()

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _PinnedSet:
    """A folder of pinned programs. `name`: its digest, marked where it is stale."""

    name: str
    folder: Path
    programs: dict[str, int]  # name -> kernel id


def load(compiled: ProgramObject, pins: Path | None) -> Loaded:
    """Loads everything in `compiled`; what is already pinned is opened instead.

    Args:
        pins: the instance's folder in bpffs; None loads private copies (tests).
    Raises:
        KernelError: the kernel refused a map or a program, or bpffs cannot be used.
    """
    if pins is not None:
        ensure_bpffs()
        (pins / "maps").mkdir(parents=True, exist_ok=True)
    loaded = Loaded(compiled.digest)
    try:
        for name, spec in compiled.maps.items():
            loaded.maps[name] = _open_map(name, spec, pins / "maps" / name if pins else None)
        if pins is not None:
            remove_programs(pins, f"{compiled.digest}{_STALE}")
            (pins / "programs" / compiled.digest).mkdir(parents=True, exist_ok=True)
        for name, program in compiled.programs.items():
            path = pins / "programs" / compiled.digest / name if pins else None
            loaded.programs[name] = _open_program(name, program, loaded.maps, path)
    except BaseException:
        loaded.close()
        raise
    return loaded


def open_loaded(compiled: ProgramObject, pins: Path) -> Loaded:
    """Opens what `load` pinned; never makes anything.

    Raises:
        KernelError: something is missing, or the programs do not run on the pinned maps.
    """
    if compiled.digest not in complete_digests(pins):
        raise _not_loaded()
    loaded = Loaded(compiled.digest, open_maps(compiled.maps, pins))
    try:
        for name in compiled.programs:
            fd = libbpf.pinned(pins / "programs" / compiled.digest / name)
            if fd is None:
                raise _not_loaded()
            loaded.programs[name] = fd
        if loaded.maps.keys() != compiled.maps.keys():
            raise _not_loaded()
    except BaseException:
        loaded.close()
        raise
    return loaded


def _not_loaded() -> KernelError:
    return KernelError("the data plane of this instance is not loaded", "apply again")


def open_maps(specs: Mapping[str, MapSpec], pins: Path) -> dict[str, BpfMap]:
    """Those of the instance's maps that are pinned; perhaps none. The caller closes them.

    Raises:
        KernelError: a map has another layout than its declaration.
    """
    maps: dict[str, BpfMap] = {}
    try:
        for name, spec in specs.items():
            opened = _pinned_map(name, spec, pins / "maps" / name)
            if opened is not None:
                maps[name] = opened
    except BaseException:
        close_maps(maps)
        raise
    return maps


def close_maps(maps: dict[str, BpfMap]) -> None:
    for bpf_map in maps.values():
        os.close(bpf_map.fd)
    maps.clear()


def pinned_programs(pins: Path) -> dict[int, str]:
    """Kernel id -> "DIGEST/NAME" of every program the instance has pinned."""
    return {
        program_id: f"{pinned.name}/{name}"
        for pinned in _pinned_sets(pins)
        for name, program_id in pinned.programs.items()
    }


def pinned_digests(pins: Path) -> tuple[str, ...]:
    """Digests of the objects whose programs are pinned completely or in part."""
    return tuple(sorted(pinned.name for pinned in _pinned_sets(pins)))


def complete_digests(pins: Path) -> frozenset[str]:
    """Digests whose programs are all pinned, and all run on the maps that are pinned now."""
    return frozenset(
        pinned.name
        for pinned in _pinned_sets(pins)
        if pinned.programs.keys() == PROGRAMS.keys() and not pinned.name.endswith(_STALE)
    )


def remove_programs(pins: Path, digest: str) -> None:
    """Unpins a set by the name that `pinned_digests` gives it."""
    for pinned in list(_pinned_sets(pins)):
        if pinned.name == digest:
            shutil.rmtree(pinned.folder)


def _pinned_sets(pins: Path) -> Iterator[_PinnedSet]:
    folder = pins / "programs"
    if not folder.is_dir():
        return
    maps = _pinned_map_ids(pins)
    for entry in sorted(folder.iterdir()):
        found: dict[str, int] = {}
        stale = False
        for path in entry.iterdir():
            fd = libbpf.pinned(path)
            if fd is None:
                continue
            try:
                info = libbpf.program_info(fd)
            finally:
                os.close(fd)
            found[path.name] = info.program_id
            stale = stale or not info.map_ids <= maps
        yield _PinnedSet(f"{entry.name}{_STALE}" if stale else entry.name, entry, found)


def _pinned_map_ids(pins: Path) -> frozenset[int]:
    ids = set()
    folder = pins / "maps"
    for path in folder.iterdir() if folder.is_dir() else ():
        fd = libbpf.pinned(path)
        if fd is not None:
            ids.add(libbpf.map_info(fd).map_id)
            os.close(fd)
    return frozenset(ids)


def remove_pins(pins: Path) -> None:
    """Everything of the instance; the kernel frees each object with its last user."""
    if pins.is_dir():
        shutil.rmtree(pins)
    parent = pins.parent
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()


def require_bpffs_visible() -> None:
    """Raises KernelError under `ip netns exec`, whose mount namespace hides bpffs: pins could
    neither be seen, nor would new ones outlive the process."""
    if not _is_bpffs(BPFFS) and _inside_ip_netns_exec():
        raise KernelError(
            "bpffs is not visible in this mount namespace",
            "`ip netns exec` hides it: use `nsenter --net=/run/netns/NAME shaper …` instead",
        )


def ensure_bpffs() -> None:
    """Mounts bpffs where it is not mounted yet. Raises KernelError as `require_bpffs_visible`."""
    require_bpffs_visible()
    if _is_bpffs(BPFFS):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    BPFFS.mkdir(parents=True, exist_ok=True)
    if libc.mount(b"bpf", str(BPFFS).encode(), b"bpf", 0, None) < 0:
        raise KernelError(f"mounting bpffs at {BPFFS}: {os.strerror(ctypes.get_errno())}")


def _inside_ip_netns_exec() -> bool:
    """`ip netns exec NAME` mounts a sysfs whose source is called NAME over /sys."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target, kind = line.split()[:3]
        if target == "/sys" and kind == "sysfs" and (Path("/run/netns") / source).exists():
            return True
    return False


def _is_bpffs(path: Path) -> bool:
    class StatFs(ctypes.Structure):
        _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_char * 256)]

    result = StatFs()
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.statfs(str(path).encode(), ctypes.byref(result))
    return not failed and bool(result.f_type == _BPFFS_MAGIC)


def _pinned_map(name: str, spec: MapSpec, path: Path) -> BpfMap | None:
    fd = libbpf.pinned(path)
    if fd is None:
        return None
    info = libbpf.map_info(fd)
    have = (info.map_type, info.key_size, info.value_size, info.max_entries, info.flags)
    declared = (spec.map_type, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    if have == declared:
        return BpfMap.from_spec(name, fd, spec)
    os.close(fd)
    raise KernelError(
        f"the pinned map {path} has another layout than this version of shaper",
        "run `shaper down` and apply again; flows are lost once",
    )


def _open_map(name: str, spec: MapSpec, path: Path | None) -> BpfMap:
    if path is not None:
        pinned = _pinned_map(name, spec, path)
        if pinned is not None:
            return pinned
    fd = libbpf.map_create(
        spec.map_type, name, spec.key_size, spec.value_size, spec.max_entries, spec.flags
    )
    if path is not None:
        libbpf.pin(fd, path)
    return BpfMap.from_spec(name, fd, spec)


def _open_program(
    name: str, program: ProgramSpec, maps: dict[str, BpfMap], path: Path | None
) -> int:
    fd = libbpf.pinned(path) if path else None
    if fd is not None:
        return fd
    code = bytearray(base64.b64decode(program.instructions))
    for index, map_name in program.maps:
        struct.pack_into("<i", code, index * 8 + 4, maps[map_name].fd)
    fd = libbpf.program_load(PROGRAMS[name], KERNEL_NAMES[name], bytes(code))
    if path is not None:
        libbpf.pin(fd, path)
    return fd
