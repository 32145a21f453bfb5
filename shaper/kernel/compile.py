"""C to a loadable object, by bcc, once per source and feature set.

bcc compiles, relocates and describes the types; what it produced is kept as a file, because the
same source on the same bcc always gives the same instructions. A reload, a restart and a reboot
then need no compiler. The file holds maps by name; `loader` puts the descriptors in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    "reply_sweep": ProgramType.XDP,
    "active_correct": ProgramType.XDP,
}
"""Entry points and their types; the names are those of the functions in bpf/."""

KERNEL_NAMES: Final = {
    "xdp_balance": "shaper_balance",
    "classify_client": "shaper_client",
    "classify_backend": "shaper_backend",
    "flow_sweep": "shaper_sweep",
    "reply_sweep": "shaper_replies",
    "active_correct": "shaper_correct",
}
"""What `bpftool prog` shows (15 characters at most): recognisable as ours."""

_SOURCES: Final = ("balance.c", "classify.c", "sweep.c")
_SETUP: Final = "run scripts/setup, which installs python3-bpfcc"
_TIME_LIMIT_S: Final = 300
"""Compiling takes seconds; under emulation, minutes."""


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
        KernelError: no bcc, no headers, the cache cannot be written, or the compiler's messages.
    """
    text = assemble(*sources, folder=folder)
    digest = object_digest(text, defines, programs)
    stored = stored_object(digest, cache=cache)
    if stored is not None:
        return stored
    with _cache_in_use(cache):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        headers = kernel_headers(cache)
    encoded = _compile(text, digest, defines, programs, headers)
    compiled = _decode(encoded, digest)
    with _cache_in_use(cache):
        _write(_path(cache, digest), encoded)
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
    parts = [text, *sorted(defines), *programs, str(bcc_module().__version__)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def bcc_module() -> Any:
    """The module `bcc`. Raises KernelError where it, or the library behind it, is not installed."""
    try:
        import bcc
    except (ImportError, OSError) as error:
        raise KernelError(f"bcc's Python binding cannot be used: {error}", _SETUP) from error
    return bcc


def _compile(
    text: str,
    digest: str,
    defines: tuple[str, ...],
    programs: tuple[str, ...],
    headers: Path | None,
) -> str:
    """The object as JSON, from a `compile_worker`."""
    flags = ["-O2", "-Wall", "-Werror", "-Wno-unused-function", *(f"-D{name}" for name in defines)]
    request = {"text": text, "digest": digest, "flags": flags, "programs": programs}
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *_python_path()])}
    if headers is not None:
        environment["BCC_KERNEL_SOURCE"] = str(headers)
    try:
        worker = subprocess.run(
            [sys.executable, "-P", "-m", "shaper.kernel.compile_worker"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIME_LIMIT_S,
            env=environment,
            check=False,
        )
    except OSError as error:
        raise KernelError(f"{sys.executable} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"bcc did not compile the programs in {_TIME_LIMIT_S} s") from error
    if worker.returncode:
        how = f" (signal {-worker.returncode})" if worker.returncode < 0 else ""
        raise KernelError(f"bcc cannot compile the programs{how}", worker.stderr.strip())
    return worker.stdout


def _python_path() -> list[str]:
    given = os.environ.get("PYTHONPATH")
    return [given] if given else []


def decode_type(description: str) -> Any:
    """The ctypes type behind bcc's JSON description of a key or value."""
    return bcc_module().BPF._decode_table_type(json.loads(description))


@contextmanager
def _cache_in_use(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError(
            f"the cache folder {cache} cannot be used: {error.strerror}",
            "compiled programs are kept there: it must be writable, with some space left",
        ) from error


def _write(path: Path, text: str) -> None:
    """Atomically and on disk first, so that neither a killed process nor a power failure leaves
    half an object."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "w") as file:  # noqa: PTH123
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


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
                _instructions(spec["instructions"]),
                tuple((index, of) for index, of in spec["maps"]),
            )
            for name, spec in data["programs"].items()
        },
    )


def _instructions(encoded: str) -> str:
    base64.b64decode(encoded, validate=True)
    return encoded
