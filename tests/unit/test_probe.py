"""What the kernel lacks is told apart from what could not be asked."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from shaper.errors import KernelError
from shaper.kernel import libbpf, probe


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    probe.atomic_fetch.cache_clear()
    yield
    probe.atomic_fetch.cache_clear()


def refuse(monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    def load(*_: object) -> int:
        raise KernelError("loading the BPF program probe: refused", "", code)

    monkeypatch.setattr(libbpf, "program_load", load)


def test_atomic_fetch_lacks_where_the_verifier_knows_no_such_instruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse(monkeypatch, errno.EINVAL)
    assert not probe.atomic_fetch()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOMEM, None])
def test_atomic_fetch_reports_that_nothing_can_be_loaded(
    monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    refuse(monkeypatch, code)
    for _ in range(2):  # nor is the failure remembered as an answer
        with pytest.raises(KernelError, match="refused"):
            probe.atomic_fetch()
