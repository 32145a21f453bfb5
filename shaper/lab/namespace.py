"""One network namespace: running commands inside it.

`nsenter --net=` and not `ip netns exec`: the latter mounts a new /sys, in which bpffs is missing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from shaper.errors import ShaperError

NETNS: Final = Path("/run/netns")
COMMAND_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 3.0
_POLL_S: Final = 0.02


class LabError(ShaperError):
    """A lab could not be built, or something inside it did not start."""


def run_command(
    argv: Sequence[str], *, text_input: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S
) -> str:
    """Runs a command to its end and gives its standard output.

    Raises:
        LabError: the command is missing, failed or took longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            argv, input=text_input, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed", "run scripts/setup") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no end after {timeout_s:g} s") from error
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def ip_batch(lines: Sequence[str], *, namespace: str | None = None) -> None:
    """Many `ip` commands in one process; stops at the first that fails (LabError)."""
    where = ["-n", namespace] if namespace else []
    run_command(["ip", *where, "-batch", "-"], text_input="\n".join(lines) + "\n")


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Polls until `condition` holds. LabError(`what`) after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout_s:g} s")
        time.sleep(_POLL_S)


def stop_process(process: subprocess.Popen[str], timeout_s: float = _STOP_TIMEOUT_S) -> int:
    """SIGTERM, after `timeout_s` SIGKILL. Gives the return code; fine for one that has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_TIMEOUT_S)
    return process.returncode


class Namespace:
    """A named network namespace and the processes that were started in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[str]] = []

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside; nsenter executes it in its own process."""
        return ["nsenter", f"--net={NETNS / self.name}", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        text_input: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> str:
        """Like `run_command`, inside."""
        return run_command(self.enter(argv), text_input=text_input, timeout_s=timeout_s)

    def call(
        self, argv: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs to the end; the caller judges the return code."""
        return subprocess.run(
            self.enter(argv), capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = subprocess.DEVNULL,
        stderr: int | IO[str] | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Starts a process in a session of its own, so that a Ctrl-C reaches the lab's owner only.

        It is stopped with the namespace at the latest.
        """
        process = subprocess.Popen(
            self.enter(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def ip(self, lines: Sequence[str]) -> None:
        ip_batch(lines, namespace=self.name)

    def sysctl(self, values: dict[str, int | str]) -> None:
        self.run(["sysctl", "-q", "-w", *(f"{key}={value}" for key, value in values.items())])

    def contains(self, pid: int) -> bool:
        """Whether a process has entered: between fork and setns it has not."""
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == (NETNS / self.name).stat().st_ino
        except OSError:
            return False

    def stop_processes(self) -> None:
        """SIGTERM to all at once, then waits for each."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            stop_process(process)
        self._processes.clear()


def remove_namespaces(names: Sequence[str]) -> None:
    """Kills what still runs in the namespaces and removes them. Names that are gone are fine."""
    existing = [name for name in names if (NETNS / name).exists()]
    pids = [
        int(pid) for name in existing for pid in run_command(["ip", "netns", "pids", name]).split()
    ]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: not any(_runs(pid) for pid in pids), _STOP_TIMEOUT_S, "processes of a lab to end"
    )
    if existing:
        ip_batch([f"netns del {name}" for name in existing])


def _runs(pid: int) -> bool:
    """False for a zombie: its parent has not asked yet, but its sockets are closed."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
