"""Finds kernel headers for bcc, on any kernel.

bcc looks in `/lib/modules/$(uname -r)/{build,source}`. A kernel without a headers package of its
own has neither, and Debian splits the tree over two packages (`linux-headers-V-amd64` has the
generated half, `-common` the rest). The programs use UAPI types only, so any installed headers
serve: the two halves are merged as a tree of symbolic links, to which BCC_KERNEL_SOURCE points.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from shaper.errors import KernelError

MODULES = Path("/lib/modules")
SOURCES = Path("/usr/src")


def kernel_headers(cache: Path) -> Path | None:
    """The tree to give to bcc as BCC_KERNEL_SOURCE; None where bcc finds the running kernel's own.

    Args:
        cache: folder in which a merged tree is made (once) when Debian's halves must be joined.
    Raises:
        KernelError: no usable headers are installed.
    """
    running = MODULES / os.uname().release
    if (running / "build").is_dir() and (running / "source").is_dir():
        return None
    if (running / "build" / "include/linux/kconfig.h").is_file():
        return None
    halves = _installed_halves()
    if halves is None:
        raise KernelError(
            "no kernel headers are installed, and bcc needs some to compile the programs",
            "install the package linux-headers-amd64 (any version serves)",
        )
    return _merged(halves, cache)


def _installed_halves() -> tuple[Path, Path] | None:
    """(generated half, common half) of the newest installed Debian headers."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", path.name))

    for common in sorted(SOURCES.glob("linux-headers-*-common"), key=version, reverse=True):
        prefix = common.name.removesuffix("common")
        for generated in sorted(SOURCES.glob(f"{prefix}*")):
            if generated != common and (generated / "include/generated/autoconf.h").is_file():
                return generated, common
    return None


def _merged(halves: tuple[Path, Path], cache: Path) -> Path:
    target = cache / f"headers-{halves[0].name}"
    if target.is_dir():
        return target
    scratch = cache / f".headers-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    _union(scratch, halves)
    try:
        scratch.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(scratch)
    return target


def _union(target: Path, folders: Iterable[Path]) -> None:
    """A folder of links to the entries of `folders`; folders that several have are merged."""
    target.mkdir(parents=True)
    entries: dict[str, list[Path]] = {}
    for folder in folders:
        for entry in folder.iterdir():
            entries.setdefault(entry.name, []).append(entry)
    for name, paths in entries.items():
        if len(paths) > 1 and all(path.is_dir() for path in paths):
            _union(target / name, paths)
        else:
            (target / name).symlink_to(paths[0])
