"""Labs for the tests here: one per module (a lab takes half a second), skipped without root."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shaper.lab.network import Lab
from shaper.lab.plan import LabSpec


@pytest.fixture(scope="module")
def lab_spec() -> LabSpec:
    """Modules that need another lab define a fixture of this name."""
    return LabSpec()


@pytest.fixture(scope="module")
def lab(lab_spec: LabSpec) -> Iterator[Lab]:
    if os.geteuid() != 0:  # module scope comes before the marks are looked at
        pytest.skip("needs root: network namespaces")
    with Lab(lab_spec) as built:
        yield built
