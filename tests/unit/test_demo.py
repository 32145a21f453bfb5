"""The demo's verdicts: what counts as asked, and what as missed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import pytest
from rich.console import Console

from shaper.lab.demo.balance import takeover_verdict
from shaper.lab.demo.report import (
    Row,
    failed,
    limit_row,
    none_failed_row,
    rate_row,
    share_rows,
    table,
)
from shaper.lab.demo.settings import make_settings
from shaper.lab.load import Sample
from shaper.lab.traffic import LoadResult

WEIGHTS = {"s1": 1, "s2": 3}


def test_shares_by_percent_are_relative_to_what_was_asked() -> None:
    exact = share_rows("web", WEIGHTS, {"s1": 250, "s2": 750}, percent=1.0)
    assert [(row.part, row.ok) for row in exact] == [("s1, weight 1", True), ("s2, weight 3", True)]
    off = share_rows("web", WEIGHTS, {"s1": 255, "s2": 745}, percent=1.0)
    assert [row.ok for row in off] == [False, True]  # 2 % of 25 %, 0.67 % of 75 %


def test_shares_by_points_are_absolute() -> None:
    rows = share_rows("web", WEIGHTS, {"s1": 269, "s2": 731}, points=2.0)
    assert [row.ok for row in rows] == [True, True]
    rows = share_rows("web", WEIGHTS, {"s1": 271, "s2": 729}, points=2.0)
    assert [row.ok for row in rows] == [False, False]


def test_shares_of_nothing_are_missed() -> None:
    assert [row.ok for row in share_rows("web", WEIGHTS, {}, points=100.0)] == [False, False]


@pytest.mark.parametrize(("measured", "ok"), [(9.6e6, False), (9.8e6, True), (10.4e6, False)])
def test_rate_is_held_to_both_sides(measured: float, ok: bool) -> None:
    assert rate_row("small", "goodput", 10e6, measured, 3.0).ok is ok


def test_one_failed_request_is_a_miss() -> None:
    assert none_failed_row("web", [""] * 100).ok is True
    row = none_failed_row("web", ["", "timeout", ""])
    assert (row.measured, row.ok) == ("2 of 3, 1 × timeout", False)
    assert none_failed_row("web", []).ok is False


def test_limit_without_a_promise_is_shown_but_never_missed() -> None:
    assert limit_row("rest", "ping", 15, 400.0, "ms").ok is False
    row = limit_row("rest", "ping", 15, 400.0, "ms", promised=False)
    assert (row.asked, row.ok) == ("no promise", None)
    assert failed([row]) == []


def test_table_says_what_was_missed() -> None:
    rows = [Row("web", "a", "1", "1", True), Row("web", "b", "2", "3", False)]
    output = io.StringIO()
    Console(file=output, width=100).print(table("Balance", "service", rows))
    lines = output.getvalue().splitlines()
    assert [line for line in lines if "missed" in line] == [line for line in lines if " b " in line]
    assert failed(rows) == [rows[1]]


def test_slow_settings_stay_within_what_emulation_carries() -> None:
    slow = make_settings("fq_codel", slow=True, tolerance_percent=None)
    assert slow.link_mbit <= 100
    assert slow.goodput_percent >= 10
    assert make_settings("auto", slow=True, tolerance_percent=25.0).goodput_percent == 25.0
    assert make_settings("auto", slow=False, tolerance_percent=None).takeover_limit_ms == 800


@pytest.mark.parametrize("slow", [False, True])
def test_tolerance_of_nothing_is_nothing(slow: bool) -> None:
    assert make_settings("auto", slow=slow, tolerance_percent=0.0).goodput_percent == 0.0


KILLED_MS, BACK_MS = 1000, 3000


def _takeover(answers: Mapping[str, Iterable[int]], refused_ms: range) -> list[bool | None]:
    """The verdicts on answers (backend -> when they started, in ms) and refused requests."""
    samples = [
        Sample(start * 1_000_000, 1_000_000, backend, "")
        for backend, starts in answers.items()
        for start in starts
    ] + [Sample(start * 1_000_000, 1_000, "", "Connection refused") for start in refused_ms]
    settings = make_settings("auto", slow=False, tolerance_percent=None)
    result = LoadResult(tuple(samples))
    rows = takeover_verdict(result, settings, KILLED_MS * 1_000_000, BACK_MS * 1_000_000)
    return [row.ok for row in rows]


def test_takeover_that_met_the_killed_backend_in_time_is_as_asked() -> None:
    all_along = range(0, 4000, 10)
    answers = dict.fromkeys(("s1", "s3", "s4"), all_along)
    s2 = [*range(0, 990, 10), *range(3000, 4000, 10)]
    verdicts = _takeover(answers | {"s2": s2}, range(1000, 1600, 10))
    assert verdicts == [True] * 7
    late = _takeover(answers | {"s2": s2}, range(1000, 1900, 10))
    assert late == [True, False, False, True, True, True, True]


def test_takeover_without_a_request_at_the_killed_backend_is_missed() -> None:
    answers = dict.fromkeys(("s1", "s3", "s4"), range(0, 4000, 10))
    verdicts = _takeover(answers | {"s2": range(3000, 4000, 10)}, range(0))
    assert verdicts[:3] == [False, False, True]
