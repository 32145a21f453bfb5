"""What the format has and this version does not build yet: valid, and refused at its place.

One line a thing. Whoever builds it deletes the line (and its part of the model, if any, appears in
`build`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from shaper.config.draft import Draft
from shaper.config.problems import Problem
from shaper.config.reader import Loc

Predicate = Callable[[Any], bool]


def _always(_: Any) -> bool:
    return True


def _words(*words: str) -> Predicate:
    return lambda value: value in words if isinstance(value, str) else False


def _is_affinity(value: Any) -> bool:
    return bool(value != "none")


def _is_range(value: Any) -> bool:
    return isinstance(value, str) and value != "any"


def _rejects_unannounced(service: Any) -> bool:
    """Rejecting is the stack's work, which answers only for an address that it has."""
    announce, unavailable = service.get("announce"), service.get("unavailable", "reject")
    return (announce, unavailable) == ("none", "reject")


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A place in the tree (`*` is any name or index), when it counts, and what to call it.

    `{value}` in `what` becomes the value; `key` puts the problem at that key (or at the key itself
    where the place is the key) instead of at the value.
    """

    place: str
    what: str
    when: Predicate = _always
    at_key: bool = False
    key: str = ""


TABLE: Final = (
    Unsupported("interfaces.*.role", "role '{value}'", _words("both")),
    Unsupported("classes.*.match", "'match'", at_key=True),
    Unsupported("classes.*.elastic", "'elastic'", at_key=True),
    Unsupported("classes.*.leaf", "leaf '{value}'", _words("cake", "fq", "sfq")),
    Unsupported("classes.*.leaf.kind", "leaf '{value}'", _words("cake", "fq", "sfq")),
    Unsupported(
        "services.*.scheduler",
        "scheduler '{value}'",
        _words("response-time", "least-bandwidth", "power-of-two", "best-fit"),
    ),
    Unsupported(
        "services.*.forwarding", "forwarding '{value}'", _words("masquerade", "dsr", "ipip")
    ),
    Unsupported("services.*.path", "path '{value}'", _words("direct")),
    Unsupported("services.*.affinity", "'affinity'", _is_affinity, at_key=True),
    Unsupported("services.*.unavailable", "unavailable '{value}'", _words("queue")),
    Unsupported(
        "services.*",
        "'announce: none' together with 'unavailable: reject'",
        _rejects_unannounced,
        key="announce",
    ),
    Unsupported("services.*.port", "port '{value}'", _words("any")),
    Unsupported("services.*.port", "port range '{value}'", _is_range),
    Unsupported("services.*.port.*", "port '{value}'", _words("any")),
    Unsupported("services.*.port.*", "port range '{value}'", _is_range),
    Unsupported("services.*.backends.*.bandwidth", "'bandwidth' of a backend", at_key=True),
    Unsupported("services.*.backends.*.max_connections", "'max_connections'", at_key=True),
    Unsupported("subscribers", "'subscribers'", at_key=True),
)


def not_supported(draft: Draft) -> Iterator[Problem]:
    """A problem for everything in the table that the file asks for and that is valid."""
    for row in TABLE:
        for loc, value in _places(draft.document.root, tuple(row.place.split(".")), ()):
            at = (*loc, row.key) if row.key else loc
            if draft.touches_broken(at) or not row.when(value):
                continue
            message = f"{row.what.format(value=value)} is not supported yet"
            yield draft.at_key(at, message) if row.at_key else draft.at_value(at, message)


def _places(value: Any, pattern: tuple[str, ...], loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Every location of the tree that the pattern matches, with its value."""
    if not pattern:
        yield loc, value
        return
    part, rest = pattern[0], pattern[1:]
    if isinstance(value, dict):
        for name in value if part == "*" else [part]:
            if name in value:
                yield from _places(value[name], rest, (*loc, name))
    elif isinstance(value, list) and part == "*":
        for index, entry in enumerate(value):
            yield from _places(entry, rest, (*loc, index))
