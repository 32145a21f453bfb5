"""C to a loadable object, by bcc, once per source and feature set.

bcc compiles, relocates and describes the types; what it produced is kept as a file, because the
same source on the same bcc always gives the same instructions. A reload, a restart and a reboot
then need no compiler. The file holds maps by name; `loader` puts the descriptors in.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import struct
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shaper.errors import KernelError
from shaper.kernel.headers import kernel_headers
from shaper.kernel.libbpf import ProgramType
from shaper.kernel.source import assemble

CACHE: Final = Path("/var/cache/shaper")

PROGRAMS: Final = {
    "xdp_balance": ProgramType.XDP,
    "classify_client": ProgramType.SCHED_CLS,
    "classify_backend": ProgramType.SCHED_CLS,
    "flow_sweep": ProgramType.XDP,
}
"""Entry points and their types; the names are those of the functions in bpf/."""

KERNEL_NAMES: Final = {
    "xdp_balance": "shaper_balance",
    "classify_client": "shaper_client",
    "classify_backend": "shaper_backend",
    "flow_sweep": "shaper_sweep",
}
"""What `bpftool prog` shows (15 characters at most): recognisable as ours."""

_SOURCES: Final = ("balance.c", "classify.c", "sweep.c")
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1


@dataclass(frozen=True, slots=True)
class MapSpec:
    """One map as the source declares it. The descriptions are bcc's JSON for its ctypes types."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: str
    value_type: str


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """Instructions (base64) whose map references stand in `maps`: (instruction index, map)."""

    instructions: str
    maps: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class ProgramObject:
    """A compiled feature set. `digest` names source, features and compiler."""

    digest: str
    maps: dict[str, MapSpec]
    programs: dict[str, ProgramSpec]


def compile_object(
    defines: tuple[str, ...],
    *,
    sources: tuple[str, ...] = _SOURCES,
    programs: tuple[str, ...] = tuple(PROGRAMS),
    folder: Path | None = None,
    cache: Path = CACHE,
) -> ProgramObject:
    """The object for a set of preprocessor symbols, from the cache or compiled now.

    Args:
        defines: symbols such as `WITH_IPV6`; their order does not matter.
        sources, programs, folder: other files and entry points (tests and benchmarks).
    Raises:
        KernelError: no headers, or the compiler's messages.
    """
    text = assemble(*sources, folder=folder)
    digest = object_digest(text, defines, programs)
    stored = stored_object(digest, cache=cache)
    if stored is not None:
        return stored
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    compiled = _compile(text, digest, defines, programs, cache)
    _write(_path(cache, digest), json.dumps(asdict(compiled)))
    return compiled


def stored_object(digest: str, *, cache: Path = CACHE) -> ProgramObject | None:
    """What `compile_object` kept under this digest; None where it is not there or is damaged.

    An upgrade brings other sources, hence another digest: what is loaded still is this one.
    """
    try:
        return _decode(_path(cache, digest).read_text(), digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _path(cache: Path, digest: str) -> Path:
    return cache / "objects" / f"{digest}.json"


def object_digest(text: str, defines: tuple[str, ...], programs: tuple[str, ...]) -> str:
    parts = [text, *sorted(defines), *programs, _bcc_version()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _bcc_version() -> str:
    import bcc

    return str(bcc.__version__)


def _compile(
    text: str, digest: str, defines: tuple[str, ...], programs: tuple[str, ...], cache: Path
) -> ProgramObject:
    headers = kernel_headers(cache)
    if headers is not None:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    import bcc

    flags = ["-O2", "-Wall", "-Werror", "-Wno-unused-function", *(f"-D{name}" for name in defines)]
    failure: Exception | None = None
    with _CapturedStderr() as messages:
        try:
            module = bcc.BPF(text=text.encode(), cflags=flags)
        except Exception as error:  # noqa: BLE001 (bcc raises the bare class)
            failure = error
    if failure is not None:
        raise KernelError(f"bcc cannot compile the programs: {failure}", messages.text().strip())
    maps = _map_specs(module)
    by_fd = {module[name.encode()].map_fd: name for name in maps}
    specs = {name: _program_spec(module.dump_func(name.encode()), by_fd) for name in programs}
    module.cleanup()
    return ProgramObject(digest, maps, specs)


def _map_specs(module: Any) -> dict[str, MapSpec]:
    from bcc.libbcc import lib

    # bcc's binding leaves these two undeclared: ctypes would cut the module's address to 32 bits,
    # which goes well on the main thread of a non-PIE python only (its heap lies below 4 GiB).
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    specs = {}
    for number in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, number)
        key_type = lib.bpf_table_key_desc(module.module, name).decode()
        value_type = lib.bpf_table_leaf_desc(module.module, name).decode()
        specs[name.decode()] = MapSpec(
            map_type=lib.bpf_table_type_id(module.module, number),
            key_size=ctypes.sizeof(decode_type(key_type)),
            value_size=ctypes.sizeof(decode_type(value_type)),
            max_entries=lib.bpf_table_max_entries_id(module.module, number),
            flags=lib.bpf_table_flags_id(module.module, number),
            key_type=key_type,
            value_type=value_type,
        )
    return specs


def decode_type(description: str) -> Any:
    """The ctypes type behind bcc's JSON description of a key or value."""
    import bcc

    return bcc.BPF._decode_table_type(json.loads(description))


def _program_spec(instructions: bytes, by_fd: dict[int, str]) -> ProgramSpec:
    code = bytearray(instructions)
    maps = []
    index = 0
    while index < len(code) // 8:
        opcode, registers, _, immediate = struct.unpack_from("<BBhi", code, index * 8)
        if opcode == _LD_IMM64:
            if registers >> 4 == _PSEUDO_MAP_FD:
                maps.append((index, by_fd[immediate]))
                struct.pack_into("<i", code, index * 8 + 4, 0)
            index += 1  # its second half
        index += 1
    return ProgramSpec(base64.b64encode(bytes(code)).decode(), tuple(maps))


def _write(path: Path, text: str) -> None:
    """Atomically, so that a killed process leaves no half object."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def _decode(text: str, digest: str) -> ProgramObject:
    """Raises ValueError, KeyError, TypeError or AttributeError for what was never written so."""
    data = json.loads(text)
    if data["digest"] != digest:
        raise ValueError(f"the object of {data['digest']} stands in the place of {digest}")
    return ProgramObject(
        digest=data["digest"],
        maps={name: MapSpec(**spec) for name, spec in data["maps"].items()},
        programs={
            name: ProgramSpec(
                spec["instructions"], tuple((index, of) for index, of in spec["maps"])
            )
            for name, spec in data["programs"].items()
        },
    )


class _CapturedStderr:
    """clang writes its messages to descriptor 2: they belong into the error message."""

    def __enter__(self) -> _CapturedStderr:
        sys.stderr.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._file.seek(0)
        self._text = self._file.read().decode(errors="replace")
        self._file.close()

    def text(self) -> str:
        return self._text
