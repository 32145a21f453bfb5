"""Loads a compiled object: maps are taken over from their pins or made, programs loaded and pinned.

    /sys/fs/bpf/shaper/INSTANCE/maps/NAME
    /sys/fs/bpf/shaper/INSTANCE/programs/DIGEST/NAME

A map whose declaration did not change is taken over with its content, so new programs know every
flow. The digest in the path tells which object is loaded; programs of another digest are removed
once the new ones are attached.
"""

from __future__ import annotations

import base64
import ctypes
import os
import shutil
import struct
from collections.abc import Mapping
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
        (pins / "programs" / compiled.digest).mkdir(parents=True, exist_ok=True)
    loaded = Loaded(compiled.digest)
    try:
        for name, spec in compiled.maps.items():
            loaded.maps[name] = _open_map(name, spec, pins / "maps" / name if pins else None)
        for name, program in compiled.programs.items():
            path = pins / "programs" / compiled.digest / name if pins else None
            loaded.programs[name] = _open_program(name, program, loaded.maps, path)
    except BaseException:
        loaded.close()
        raise
    return loaded


def open_maps(specs: Mapping[str, MapSpec], pins: Path) -> dict[str, BpfMap] | None:
    """The instance's maps where all are pinned, else None. The caller closes them."""
    maps: dict[str, BpfMap] = {}
    for name, spec in specs.items():
        opened = _pinned_map(name, spec, pins / "maps" / name)
        if opened is None:
            close_maps(maps)
            return None
        maps[name] = opened
    return maps


def close_maps(maps: dict[str, BpfMap]) -> None:
    for bpf_map in maps.values():
        os.close(bpf_map.fd)
    maps.clear()


def pinned_programs(pins: Path) -> dict[int, str]:
    """Kernel id -> "DIGEST/NAME" of every program the instance has pinned."""
    programs = {}
    for digest in pinned_digests(pins):
        for path in (pins / "programs" / digest).iterdir():
            fd = libbpf.pinned(path)
            if fd is not None:
                programs[libbpf.program_id(fd)] = f"{digest}/{path.name}"
                os.close(fd)
    return programs


def pinned_digests(pins: Path) -> tuple[str, ...]:
    """Digests of the objects whose programs are pinned completely or in part."""
    folder = pins / "programs"
    return tuple(sorted(entry.name for entry in folder.iterdir())) if folder.is_dir() else ()


def remove_programs(pins: Path, digest: str) -> None:
    folder = pins / "programs" / digest
    if folder.is_dir():
        shutil.rmtree(folder)


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
