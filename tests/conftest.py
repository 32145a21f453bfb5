"""Fixtures for every test: instances and namespaces with random names, taken down afterwards.

A test marked `netns` or `bpf` is skipped, with the reason, where the process is not root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shaper.instance import Instance

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: namespaces and BPF programs")
    for item in items:
        if item.get_closest_marker("netns") or item.get_closest_marker("bpf"):
            item.add_marker(skip)


@pytest.fixture
def project_root() -> Path:
    return ROOT


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An instance of its own; its pins, state, socket and lock are removed afterwards."""
    made = Instance(f"test-{secrets.token_hex(4)}")
    yield made
    for folder in (made.pins, made.state):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other instances live there, or nothing ever did
            folder.parent.rmdir()
    for file in (made.socket, made.lock):
        file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace. Commands enter it by nsenter, which keeps bpffs in sight."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def run(
        self, *command: str | Path, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and captures what it prints.

        Raises:
            AssertionError: it failed, with its standard error (unless `check` is off).
        """
        result = subprocess.run(
            ["nsenter", f"--net={self.path}", *map(str, command)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or result.returncode == 0, f"{command}: {result.stderr}{result.stdout}"
        return result


@pytest.fixture
def make_netns() -> Iterator[Callable[[], Namespace]]:
    """Makes namespaces with random names; each has `lo` up and forwarding off.

    The kernel hands the first namespace's forwarding settings on to new ones
    (net.core.devconf_inherit_init_net), so they are set explicitly.
    """
    made: list[Namespace] = []

    def make() -> Namespace:
        namespace = Namespace(f"shtest{secrets.token_hex(4)}")
        subprocess.run(["ip", "netns", "add", namespace.name], check=True)
        made.append(namespace)
        namespace.run("ip", "link", "set", "lo", "up")
        for knob in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            namespace.run("sysctl", "-qw", f"{knob}=0")
        return namespace

    yield make
    for namespace in made:
        subprocess.run(["ip", "netns", "delete", namespace.name], check=True)


@pytest.fixture
def netns(make_netns: Callable[[], Namespace]) -> Namespace:
    return make_netns()
