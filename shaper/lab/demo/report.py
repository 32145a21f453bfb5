"""Rows of asked and measured, and the tables that show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was asked for. `ok` None: shown, but nothing was promised."""

    subject: str
    part: str
    asked: str
    measured: str
    ok: bool | None


def share_rows(
    subject: str,
    weights: Mapping[str, int],
    answered: Mapping[str, int],
    *,
    percent: float | None = None,
    points: float | None = None,
) -> list[Row]:
    """A row per backend: its share of what was answered.

    Args:
        percent: allowed deviation relative to the asked share.
        points: allowed deviation in percentage points.
    """
    total = sum(answered.values())
    rows = []
    for backend, weight in weights.items():
        asked = 100 * weight / sum(weights.values())
        measured = 100 * answered.get(backend, 0) / total if total else 0.0
        limit = points if points is not None else asked * (percent or 0.0) / 100
        rows.append(
            Row(
                subject,
                f"{backend}, weight {weight}",
                f"{asked:.1f} % ± {limit:.1f}",
                f"{measured:.2f} %",
                total > 0 and abs(measured - asked) <= limit + 1e-9,
            )
        )
    return rows


def none_failed_row(subject: str, errors: Sequence[str], part: str = "answered") -> Row:
    """Every request answered. `errors` has an entry per request, empty where all went well."""
    sent = len(errors)
    failures = Counter(error for error in errors if error)
    kinds = "".join(f", {count} × {error}" for error, count in failures.items())
    measured = f"{sent - failures.total()} of {sent}{kinds}"
    return Row(subject, part, f"{sent} of {sent}", measured, sent > 0 and not failures)


def rate_row(subject: str, part: str, asked_bps: float, measured_bps: float, percent: float) -> Row:
    """Within `percent` of `asked_bps`, both ways: a shaper that gives more is wrong, too."""
    return Row(
        subject,
        part,
        f"{asked_bps / 1e6:.2f} mbit/s ± {percent:g} %",
        f"{measured_bps / 1e6:.2f} mbit/s",
        abs(measured_bps - asked_bps) <= asked_bps * percent / 100,
    )


def limit_row(
    subject: str, part: str, limit: float, measured: float, unit: str, *, promised: bool = True
) -> Row:
    """At most `limit`."""
    asked = f"≤ {limit:g} {unit}" if promised else "no promise"
    ok = measured <= limit if promised else None
    return Row(subject, part, asked, f"{measured:.1f} {unit}", ok)


def failed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.ok is False]


def table(title: str, subject: str, rows: Sequence[Row]) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in (subject, "what", "asked", "measured", ""):
        shown.add_column(heading, justify="right" if heading in ("asked", "measured") else "left")
    previous = ""
    for row in rows:
        if previous and row.subject != previous:
            shown.add_section()
        verdict = {True: "[green]ok[/]", False: "[bold red]missed[/]", None: "–"}[row.ok]
        name = row.subject if row.subject != previous else ""
        shown.add_row(name, row.part, row.asked, row.measured, verdict)
        previous = row.subject
    return shown
