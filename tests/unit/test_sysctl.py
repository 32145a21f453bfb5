"""Names of sysctls and the files behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shaper.errors import KernelError
from shaper.kernel import sysctl

FORWARDING = "net.ipv6.conf.all.forwarding"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    for device in ("all", "eth0", "eth0.7"):
        for key, value in (("forwarding", "0"), ("accept_ra", "1"), ("mtu", "1500")):
            file = tmp_path / "net/ipv6/conf" / device / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
    return tmp_path


@pytest.mark.usefixtures("files")
def test_a_switch_brings_every_device_and_what_depends_on_it() -> None:
    devices = ("all", "eth0", "eth0.7")
    expected = {f"net.ipv6.conf.{device}.forwarding": "0" for device in devices}
    expected |= {f"net.ipv6.conf.{device}.accept_ra": "1" for device in devices}
    assert sysctl.read_family([FORWARDING]) == expected


@pytest.mark.usefixtures("files")
def test_a_device_name_with_a_dot_is_one_name() -> None:
    assert sysctl.read("net.ipv6.conf.eth0.7.mtu") == "1500"


def test_a_protocol_that_is_switched_off_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    assert sysctl.read_family([FORWARDING]) == {}


def test_writing_what_is_not_there_is_said(files: Path) -> None:
    sysctl.write("net.ipv6.conf.eth0.7.forwarding", "1")
    assert (files / "net/ipv6/conf/eth0.7/forwarding").read_text() == "1"
    with pytest.raises(KernelError, match=r"nope\.forwarding"):
        sysctl.write("net.ipv6.conf.nope.forwarding", "1")
