"""The helper that every timing test relies on."""

from __future__ import annotations

import pytest

from tests.waiting import wait_until


def test_wait_until_returns_the_answer() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), interval_s=0) == 7


def test_wait_until_names_what_never_came() -> None:
    with pytest.raises(AssertionError, match=r"the moon: not within 0\.01 s; last answer \[\]"):
        wait_until(list, timeout_s=0.01, interval_s=0.001, what="the moon")
