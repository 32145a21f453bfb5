"""Which process owns which lab, so that the leftovers of a killed one can be found and removed.

A lab is a folder `/run/shaper-lab/TOKEN` with a file `owner` (process id and its start time: a
process id alone may belong to somebody else by now), namespaces called `shaper-TOKEN-ROLE`, and
the shaper instance `lab-TOKEN`. The folder appears whole, by a rename, before the first namespace.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from shaper.instance import Instance
from shaper.lab.namespace import NETNS, remove_namespaces

LABS: Final = Path("/run/shaper-lab")


def namespace_name(token: str, role: str) -> str:
    return f"shaper-{token}-{role}"


def lab_instance(token: str) -> Instance:
    return Instance(f"lab-{token}")


def claim(labs: Path = LABS) -> tuple[str, Path]:
    """A new token and its folder, owned by this process."""
    token = secrets.token_hex(4)
    scratch = labs / f".{token}"
    scratch.mkdir(parents=True, mode=0o755)
    (scratch / "owner").write_text(f"{os.getpid()} {_start_time(os.getpid())}\n")
    folder = labs / token
    scratch.rename(folder)
    return token, folder


def release(token: str, labs: Path = LABS) -> None:
    """Removes everything that carries the token, whatever state it is in."""
    prefix = namespace_name(token, "")
    if NETNS.is_dir():
        remove_namespaces([path.name for path in NETNS.iterdir() if path.name.startswith(prefix)])
    instance = lab_instance(token)
    for folder in (instance.pins, instance.state):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (instance.socket, instance.lock):
        file.unlink(missing_ok=True)
    shutil.rmtree(labs / token, ignore_errors=True)


def reap(labs: Path = LABS) -> list[str]:
    """Removes the labs whose owner is dead. Gives their tokens."""
    if not labs.is_dir():
        return []
    dead = [
        folder.name
        for folder in labs.iterdir()
        if not folder.name.startswith(".") and not _owned(folder)
    ]
    for token in dead:
        release(token, labs)
    return dead


def _owned(folder: Path) -> bool:
    try:
        pid, start = (folder / "owner").read_text().split()
    except (OSError, ValueError):
        return folder.exists()  # being released right now: not ours to judge
    return _start_time(int(pid)) == start


def _start_time(pid: int) -> str:
    """Clock ticks since boot (field 22 of proc_pid_stat(5)); empty where no such process runs."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""
