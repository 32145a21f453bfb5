"""Traffic through the balanced services of the demo, and what came of it.

Each service has a client of its own. A client port that has just talked to one service cannot reach
the same backend through another one: both flows would look the same behind the gateway. The shares
of one client that talks to several services at this pace would only be nearly exact.
"""

from __future__ import annotations

import time
from typing import Any

from shaper.lab.demo.config import (
    CHECKED,
    EQUAL,
    HASHED,
    HTTP_SERVICE_PORT,
    LEAST,
    WEIGHTED,
    WEIGHTED6,
    WEIGHTS,
)
from shaper.lab.demo.report import Row, limit_row, none_failed_row, share_rows
from shaper.lab.demo.settings import Settings
from shaper.lab.network import Lab
from shaper.lab.traffic import LoadResult, held_connections, http_load, start_load

_KILLED = "s2"
_CHECKED_SUBJECT = "round-robin, checked"
CLIENTS = 4
_HELD = 60  # a multiple of the sum of the weights
_RECOVERY_S = 30.0
_LOAD_BOUND_S = 90.0


def weighted_rows(lab: Lab, settings: Settings) -> list[Row]:
    """Round-robin gives exact shares, over IPv4 and over IPv6."""
    rows = []
    for label, address in (("IPv4", WEIGHTED), ("IPv6", WEIGHTED6)):
        subject = f"round-robin, {label}"
        result = http_load(lab.clients[0], address, HTTP_SERVICE_PORT, settings.requests)
        rows.append(_answered_row(subject, result))
        rows += share_rows(subject, WEIGHTS, result.answered, percent=settings.share_percent)
    return rows


def hashed_rows(lab: Lab, settings: Settings) -> list[Row]:
    result = http_load(lab.clients[1], HASHED, HTTP_SERVICE_PORT, 2 * settings.requests)
    return [
        _answered_row("maglev", result),
        *share_rows("maglev", WEIGHTS, result.answered, points=settings.maglev_points),
    ]


def least_rows(lab: Lab) -> list[Row]:
    """Connections that stay open: every new one goes where the fewest are, by weight."""
    subject = "least-connections"
    with held_connections(lab.clients[2], LEAST, HTTP_SERVICE_PORT, _HELD) as result:
        held = result.answered
    unit = _HELD // sum(WEIGHTS.values())
    rows = [_answered_row(subject, result)]
    for backend, weight in WEIGHTS.items():
        asked = unit * weight
        measured = held[backend]
        part = f"{backend}, weight {weight}"
        rows.append(Row(subject, part, f"{asked} open", f"{measured} open", asked == measured))
    return rows


def takeover_rows(lab: Lab, settings: Settings) -> list[Row]:
    """A backend is killed under load, and comes back."""
    running = start_load(
        lab.clients[3],
        CHECKED,
        HTTP_SERVICE_PORT,
        duration_s=_LOAD_BOUND_S,
        rate_per_s=settings.request_rate_per_s,
    )
    time.sleep(1.0)  # traffic before
    killed_ns = time.monotonic_ns()
    lab.backend(_KILLED).http.kill()
    time.sleep(settings.takeover_limit_ms / 1000 + 1.0)  # traffic without it
    lab.backend(_KILLED).http.start()
    lab.gateway.wait_status(_is_up, _RECOVERY_S, f"{_KILLED} to be up again")
    back_ns = time.monotonic_ns()
    time.sleep(2.0)  # traffic with it
    running.stop()
    return takeover_verdict(running.result(), settings, killed_ns, back_ns)


def takeover_verdict(
    result: LoadResult, settings: Settings, killed_ns: int, back_ns: int
) -> list[Row]:
    """Requests may fail while the checks find out, and at no other time. Some must: else nothing
    went to the killed backend, and a takeover in time means nothing."""
    limit_ns = killed_ns + settings.takeover_limit_ms * 1_000_000
    before = [sample for sample in result.samples if sample.ended_ns < killed_ns]
    others = [*before, *(sample for sample in result.samples if sample.started_ns > limit_ns)]
    reached = sum(sample.backend == _KILLED for sample in before)
    returned = result.started_between(back_ns, time.monotonic_ns())
    return [
        Row(_CHECKED_SUBJECT, f"{_KILLED} answered before", "≥ 1", str(reached), reached > 0),
        _last_failure_row(result, settings, killed_ns),
        none_failed_row(
            _CHECKED_SUBJECT,
            [sample.error for sample in others],
            part="answered before and after that",
        ),
        *share_rows(f"the same, {_KILLED} back", EQUAL, returned.answered, points=1.0),
    ]


def _last_failure_row(result: LoadResult, settings: Settings, killed_ns: int) -> Row:
    part = f"{_KILLED} killed: last new flow to it after"
    limit_ms = settings.takeover_limit_ms
    if not result.failures:
        return Row(_CHECKED_SUBJECT, part, f"≤ {limit_ms} ms", "none met it", ok=False)
    last_ns = max(sample.started_ns for sample in result.failures)
    return limit_row(_CHECKED_SUBJECT, part, limit_ms, (last_ns - killed_ns) / 1e6, "ms")


def _is_up(status: dict[str, Any]) -> bool:
    services = {service["name"]: service for service in status["services"]}
    backends = {backend["name"]: backend for backend in services["checked"]["backends"]}
    return bool(backends[_KILLED]["state"] == "up")


def _answered_row(subject: str, result: LoadResult) -> Row:
    return none_failed_row(subject, [sample.error for sample in result.samples])
