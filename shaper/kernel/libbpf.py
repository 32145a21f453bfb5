"""The bpf(2) calls that are needed, through libbpf by ctypes (bcc 0.26 wraps neither pinning by
path without a table, nor BPF_PROG_TEST_RUN).

Every function raises `KernelError` with the call and errno in it; those where a missing element is
an answer return None or False instead. Keys and values are bytes or ctypes structures.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from shaper.errors import KernelError

BPF_ANY = 0
_PROGRAM_MAPS_MAX = 64
"""MAX_USED_MAPS of include/linux/bpf_verifier.h: no program refers to more maps."""


class ProgramType(IntEnum):
    SCHED_CLS = 3
    XDP = 6


class _MapCreateOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    ]


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
    ]


class _TestRunOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class _MapInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("rest", ctypes.c_uint8 * 256),
    ]


class _ProgInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("rest", ctypes.c_uint8 * 256),
    ]


class _BatchOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map (struct bpf_map_info)."""

    map_type: int
    map_id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says of a program (struct bpf_prog_info), and the ids of its maps."""

    program_id: int
    name: str
    map_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class TestRun:
    """Outcome of BPF_PROG_TEST_RUN: the verdict, the packet and the context afterwards."""

    __test__ = False  # not a pytest class

    verdict: int
    data: bytes
    context: bytes
    duration_ns: int


@cache
def _lib() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError(f"libbpf cannot be loaded: {error}", "run scripts/setup") from error


def _check(result: int, what: str, hint: str = "") -> int:
    if result < 0:
        code = -result if result != -1 else ctypes.get_errno() or errno.EPERM
        if not hint and code == errno.EPERM:
            hint = "this needs root (CAP_BPF and CAP_NET_ADMIN)"
        raise KernelError(f"{what}: {os.strerror(code)}", hint, code)
    return result


def map_create(
    map_type: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int = 0
) -> int:
    """A new map's file descriptor."""
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
    fd = _lib().bpf_map_create(
        map_type, name.encode()[:15], key_size, value_size, max_entries, ctypes.byref(opts)
    )
    return _check(fd, f"creating the BPF map {name}")


def program_load(kind: ProgramType, name: str, instructions: bytes) -> int:
    """A loaded program's file descriptor. The verifier's last words are part of the error."""
    lib = _lib()
    code = ctypes.create_string_buffer(instructions, len(instructions))
    opts = _ProgLoadOpts(sz=ctypes.sizeof(_ProgLoadOpts))
    count = ctypes.c_size_t(len(instructions) // 8)
    args = (int(kind), name.encode()[:15], b"GPL", code, count)
    fd = lib.bpf_prog_load(*args, ctypes.byref(opts))
    if fd >= 0:
        return int(fd)
    log = ctypes.create_string_buffer(1 << 24)
    opts.log_level, opts.log_size, opts.log_buf = 1, len(log), ctypes.addressof(log)
    fd = lib.bpf_prog_load(*args, ctypes.byref(opts))
    tail = "\n".join(log.value.decode(errors="replace").splitlines()[-25:])
    return _check(fd, f"loading the BPF program {name}", tail)


def pin(fd: int, path: Path) -> None:
    _check(_lib().bpf_obj_pin(fd, str(path).encode()), f"pinning {path}")


def pinned(path: Path) -> int | None:
    """A file descriptor of the object pinned at `path`, or None where there is no such pin."""
    fd = _lib().bpf_obj_get(str(path).encode())
    if fd < 0 and ctypes.get_errno() == errno.ENOENT:
        return None
    return _check(fd, f"opening the pin {path}")


def map_info(fd: int) -> MapInfo:
    info = _MapInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _check(
        _lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)),
        "reading map info",
    )
    return MapInfo(
        info.type, info.id, info.key_size, info.value_size, info.max_entries, info.map_flags
    )


def program_info(fd: int) -> ProgramInfo:
    maps = (ctypes.c_uint32 * _PROGRAM_MAPS_MAX)()
    info = _ProgInfo(nr_map_ids=len(maps), map_ids=ctypes.addressof(maps))
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _check(
        _lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)),
        "reading program info",
    )
    return ProgramInfo(info.id, info.name.decode(), frozenset(maps[: info.nr_map_ids]))


def program_name(program_id: int) -> str:
    """The name of any loaded program; empty where there is none with this id any more."""
    fd = _lib().bpf_prog_get_fd_by_id(ctypes.c_uint32(program_id))
    if fd < 0:
        return ""
    try:
        return program_info(fd).name
    finally:
        os.close(fd)


def map_lookup(fd: int, key: Any, value: Any) -> bool:
    """Fills the ctypes object `value`; False where the key is missing.

    A per-CPU map's value is an array with one element per possible CPU, each 8-byte aligned.
    """
    result = _lib().bpf_map_lookup_elem(fd, ctypes.byref(key), ctypes.byref(value))
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return False
    _check(result, "reading a BPF map")
    return True


def map_update(fd: int, key: Any, value: Any, flags: int = BPF_ANY) -> None:
    _check(
        _lib().bpf_map_update_elem(
            fd, ctypes.byref(key), ctypes.byref(value), ctypes.c_uint64(flags)
        ),
        "writing a BPF map",
    )


def map_delete(fd: int, key: Any) -> bool:
    """False where the key was not there."""
    result = _lib().bpf_map_delete_elem(fd, ctypes.byref(key))
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return False
    _check(result, "deleting from a BPF map")
    return True


def map_next_key(fd: int, key: Any | None, following: Any) -> bool:
    """Fills `following` with the key after `key` (None: the first); False at the end."""
    previous = ctypes.byref(key) if key is not None else None
    result = _lib().bpf_map_get_next_key(fd, previous, ctypes.byref(following))
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return False
    _check(result, "walking a BPF map")
    return True


def map_update_batch(fd: int, keys: Any, values: Any, count: int) -> None:
    """Writes `count` elements from two buffers (ctypes arrays)."""
    number = ctypes.c_uint32(count)
    opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
    _check(
        _lib().bpf_map_update_batch(
            fd, ctypes.byref(keys), ctypes.byref(values), ctypes.byref(number), ctypes.byref(opts)
        ),
        "writing a BPF map in a batch",
    )


def map_lookup_batch(
    fd: int, cursor: Any, first: bool, keys: Any, values: Any, count: int
) -> tuple[int, bool]:
    """Reads up to `count` elements into two buffers.

    Args:
        cursor: a ctypes buffer of at least the key size (and 4 bytes) that carries the position.
        first: start anew; otherwise go on where `cursor` stands.
    Returns:
        how many were read, and whether more may follow.
    """
    number = ctypes.c_uint32(count)
    opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
    result = _lib().bpf_map_lookup_batch(
        fd,
        None if first else ctypes.byref(cursor),
        ctypes.byref(cursor),
        ctypes.byref(keys),
        ctypes.byref(values),
        ctypes.byref(number),
        ctypes.byref(opts),
    )
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return number.value, False
    _check(result, "reading a BPF map in a batch")
    return number.value, True


def program_test_run(
    fd: int, data: bytes, *, context: bytes = b"", context_size: int = 0, repeat: int = 1
) -> TestRun:
    """Runs a loaded program on one packet (BPF_PROG_TEST_RUN).

    Args:
        data: the frame, from its Ethernet header on (at least 14 bytes).
        context: struct xdp_md or __sk_buff to start from; empty for none.
        context_size: bytes of context wanted back; 0 for none.
    """
    frame = ctypes.create_string_buffer(data, len(data))
    out = ctypes.create_string_buffer(len(data) + 512)
    opts = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.addressof(frame),
        data_size_in=len(data),
        data_out=ctypes.addressof(out),
        data_size_out=len(out),
        repeat=repeat,
    )
    context_in = ctypes.create_string_buffer(context, len(context)) if context else None
    context_out = ctypes.create_string_buffer(context_size) if context_size else None
    if context_in is not None:
        opts.ctx_in, opts.ctx_size_in = ctypes.addressof(context_in), len(context)
    if context_out is not None:
        opts.ctx_out, opts.ctx_size_out = ctypes.addressof(context_out), context_size
    _check(_lib().bpf_prog_test_run_opts(fd, ctypes.byref(opts)), "BPF_PROG_TEST_RUN")
    return TestRun(
        verdict=opts.retval,
        data=out.raw[: opts.data_size_out],
        context=context_out.raw[: opts.ctx_size_out] if context_out is not None else b"",
        duration_ns=opts.duration,
    )
