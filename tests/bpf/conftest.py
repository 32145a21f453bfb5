"""Programs are compiled and loaded once per session; every test begins with empty maps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shaper.kernel.compile import ProgramObject, compile_object
from tests.dataplane import DataPlane

FEATURES = (
    "WITH_IPV6",
    "WITH_ROUND_ROBIN",
    "WITH_LEAST_CONNECTIONS",
    "WITH_MAGLEV",
    "WITH_SOURCE_HASH",
)


@pytest.fixture(scope="session")
def compiled() -> ProgramObject:
    """All features, without fetching atomics: loads on every kernel that is supported."""
    return compile_object(FEATURES)


@pytest.fixture(scope="session")
def loaded_plane(compiled: ProgramObject) -> Iterator[DataPlane]:
    plane = DataPlane.of(compiled)
    yield plane
    plane.loaded.close()


@pytest.fixture
def plane(loaded_plane: DataPlane) -> DataPlane:
    """The loaded programs with empty maps."""
    loaded_plane.reset()
    return loaded_plane
