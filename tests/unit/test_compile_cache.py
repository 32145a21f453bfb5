"""The cache of compiled objects, and what happens where none can be made. Needs no compiler."""

from __future__ import annotations

import base64
import errno
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from shaper.errors import KernelError
from shaper.kernel import compile as compile_module
from shaper.kernel.compile import (
    MapSpec,
    ProgramObject,
    ProgramSpec,
    compile_object,
    object_digest,
    stored_object,
)

CODE = base64.b64encode(bytes(16)).decode()
MAP = MapSpec(2, 4, 8, 16, 0, '"unsigned int"', '"unsigned long long"')


@pytest.fixture(autouse=True)
def no_bcc_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    bcc = ModuleType("bcc")
    bcc.__version__ = "0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bcc", bcc)
    monkeypatch.setattr(compile_module, "kernel_headers", lambda _: None)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "one.c").write_text("int one;\n")
    return tmp_path


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were compiled, one a compilation."""
    made: list[str] = []

    def fake(_text: str, digest: str, *_: object) -> str:
        made.append(digest)
        return json.dumps(asdict(made_object(digest)))

    monkeypatch.setattr(compile_module, "_compile", fake)
    return made


def made_object(digest: str) -> ProgramObject:
    return ProgramObject(digest, {"a_map": MAP}, {"one": ProgramSpec(CODE, ((0, "a_map"),))})


def get(sources: Path, *defines: str, cache: Path | None = None) -> ProgramObject:
    return compile_object(
        defines,
        sources=("one.c",),
        programs=("one",),
        folder=sources,
        cache=cache or sources / "cache",
    )


def only_file(sources: Path) -> Path:
    (path,) = (sources / "cache" / "objects").iterdir()
    return path


def test_the_same_object_is_compiled_once(sources: Path, compilations: list[str]) -> None:
    first = get(sources, "A", "B")
    assert get(sources, "B", "A") == first == made_object(first.digest)
    assert compilations == [first.digest]
    get(sources, "A")
    (sources / "one.c").write_text("int two;\n")
    get(sources, "A", "B")
    assert len(set(compilations)) == 3


def test_a_stored_object_is_found_by_its_digest(sources: Path, compilations: list[str]) -> None:
    """Also after an upgrade, when the sources give another digest."""
    old = get(sources)
    (sources / "one.c").write_text("int two;\n")
    assert stored_object(old.digest, cache=sources / "cache") == old
    assert stored_object("0" * 16, cache=sources / "cache") is None
    assert compilations == [old.digest]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda _: "null",
        lambda _: "[]",
        lambda _: "{}",
        lambda text: text.replace('"key_size"', '"key_sise"'),
        lambda text: text.replace('"maps": {', '"maps": [], "other": {', 1),
        lambda text: text.replace(CODE, CODE[:-1]),
        lambda text: text.replace('"digest": "', '"digest": "f'),
        lambda text: text + "\x00",
    ],
)
def test_a_damaged_object_is_compiled_again(
    sources: Path, compilations: list[str], damage: object
) -> None:
    good = get(sources)
    path = only_file(sources)
    text = path.read_text()
    assert callable(damage)
    path.write_text(damage(text))
    assert path.read_text() != text
    assert stored_object(good.digest, cache=sources / "cache") is None
    assert get(sources) == good
    assert compilations == [good.digest] * 2
    assert path.read_text() == text


def test_bytes_that_are_no_text_are_damage_too(sources: Path, compilations: list[str]) -> None:
    good = get(sources)
    only_file(sources).write_bytes(b"\xff\xfe\x00")
    assert get(sources) == good
    assert len(compilations) == 2


@pytest.mark.usefixtures("compilations")
def test_an_object_is_on_disk_before_it_gets_its_name(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[bool] = []
    digest = object_digest('#line 1 "bpf/one.c"\nint one;\n', (), ("one",))
    target = sources / "cache" / "objects" / f"{digest}.json"
    monkeypatch.setattr(os, "fsync", lambda _: named.append(target.exists()))
    get(sources)
    assert named == [False]
    assert only_file(sources) == target


@pytest.mark.usefixtures("compilations")
def test_a_full_disk_is_named_and_leaves_nothing(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KernelError, match=r"cache cannot be used: No space left on device"):
        get(sources)
    assert list((sources / "cache" / "objects").iterdir()) == []


@pytest.mark.usefixtures("compilations")
def test_a_cache_that_cannot_be_made_is_named(sources: Path) -> None:
    with pytest.raises(KernelError, match=r"one\.c/cache cannot be used: Not a directory"):
        get(sources, cache=sources / "one.c" / "cache")


@pytest.mark.usefixtures("compilations")
def test_a_missing_bcc_tells_how_to_get_it(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(KernelError, match="Python binding cannot be used") as refused:
        get(sources)
    assert "scripts/setup" in refused.value.hint


def test_a_worker_that_takes_too_long_is_ended(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_module, "_TIME_LIMIT_S", 0.001)
    with pytest.raises(KernelError, match=r"did not compile the programs in 0\.001 s"):
        get(sources)


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ("echo no room for it >&2; exit 1", "bcc cannot compile the programs", "no room for it"),
        ("kill -SEGV $$", "bcc cannot compile the programs (signal 11)", ""),
    ],
)
def test_a_worker_that_fails_is_reported(
    sources: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str, hint: str
) -> None:
    python = sources / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(KernelError) as refused:
        get(sources)
    assert (refused.value.message, refused.value.hint) == (message, hint)
    assert not (sources / "cache" / "objects").exists()


def test_a_worker_that_cannot_start_is_reported(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(sources / "nowhere"))
    with pytest.raises(KernelError, match="nowhere cannot be started: No such file"):
        get(sources)
