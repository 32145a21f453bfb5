"""Plain values to the models of `schema`, with every mistake as a `Problem` of our own wording.

pydantic reports all wrong values of one pass, but gives no model then. So each wrong value is
replaced by `UNKNOWN` (an unknown key is taken out) and the rest is validated again: the result is
a model in which everything that could be read is there, and the cross checks work on that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shaper.config.parsers import FieldError, show
from shaper.config.problems import Problem, nearest
from shaper.config.reader import Document, Loc
from shaper.config.schema import GatewaySpec, Spec
from shaper.config.unknown import UNKNOWN

_KEY: Final = "[key]"
"""pydantic's last location element for a mapping's key."""
_SHAPES: Final = {"dict_type": "a mapping", "model_type": "a mapping", "list_type": "a list"}
_MAX_PASSES: Final = 16


@dataclass(frozen=True, slots=True)
class Validated:
    """`spec` is None only where `problems` is not empty. `broken`: what is UNKNOWN or left out."""

    spec: GatewaySpec | None
    problems: tuple[Problem, ...]
    broken: frozenset[Loc]


def validate(document: Document) -> Validated:
    """Every schema problem of the document, and the models of what is right in it."""
    values = copy.deepcopy(document.root)
    broken = set(_unknown_locations(values, ()))
    problems: list[Problem] = []
    for _ in range(_MAX_PASSES):
        try:
            spec = GatewaySpec.model_validate(values)
        except ValidationError as failure:
            for error in failure.errors(include_url=False):
                loc = _location(error)
                if not any(loc[:length] in broken for length in range(len(loc) + 1)):
                    problems.append(_problem(document, error, loc))
                broken.add(loc)
                _repair(values, error, loc)
        else:
            return Validated(spec, tuple(problems), frozenset(broken))
    return Validated(None, tuple(problems), frozenset(broken))


def _unknown_locations(value: Any, loc: Loc) -> Iterator[Loc]:
    """What the reader itself found unusable."""
    if value is UNKNOWN:
        yield loc
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _unknown_locations(entry, (*loc, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _unknown_locations(entry, (*loc, index))


def _location(error: ErrorDetails) -> Loc:
    loc: Loc = tuple(error["loc"])
    return loc[:-1] if loc[-1:] == (_KEY,) else loc


def _repair(values: Any, error: ErrorDetails, loc: Loc) -> None:
    """Puts UNKNOWN where the wrong value is, or takes the wrong key out.

    A validator may have put a mapping or a list around a word (`leaf: fifo`), so the location can
    go deeper than the file does.
    """
    wrong_key = error["type"] == "extra_forbidden" or error["loc"][-1:] == (_KEY,)
    container = values
    for depth, part in enumerate(loc, start=1):
        if isinstance(container, dict) and part not in container and depth < len(loc):
            return  # taken out already, because its key was wrong as well
        if depth < len(loc) and isinstance(container[part], (dict, list)):
            container = container[part]
            continue
        if wrong_key:
            container.pop(part, None)
        else:
            container[part] = UNKNOWN
        return


def _problem(document: Document, error: ErrorDetails, loc: Loc) -> Problem:
    kind = error["type"]
    if kind == "missing":
        return Problem.at(document.key_position(loc[:-1]), f"missing key {loc[-1]!r}")
    if kind == "extra_forbidden":
        hint = nearest(str(loc[-1]), _known_keys(loc[:-1]))
        return Problem.at(document.key_position(loc), f"unknown key {loc[-1]!r}", hint)
    where = document.value_position(loc)
    if error["loc"][-1:] == (_KEY,):
        where = document.key_position(loc)
    if kind in _SHAPES:
        what = "this list item" if isinstance(loc[-1], int) else repr(loc[-1])
        return Problem.at(where, f"{what} must be {_SHAPES[kind]}, not {show(error['input'])}")
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, FieldError):
        return Problem.at(where, reason.message, reason.hint)
    raise AssertionError(f"pydantic reported {kind}, which no type of the schema should cause")


def _known_keys(loc: Loc) -> Mapping[str, Any]:
    """The keys of the mapping at `loc`, found by walking the models along the location."""
    spec: type[Spec] = GatewaySpec
    inside_container = False
    for part in loc:
        if inside_container:
            inside_container = False
            continue
        annotation = _fields(spec)[str(part)]
        inner = _spec_in(annotation)
        if inner is None:
            raise AssertionError(f"{loc} leads to no mapping of the schema")
        spec = inner
        inside_container = _is_container(annotation)
    return _fields(spec)


def _fields(spec: type[Spec]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in spec.model_fields.items()}


def _spec_in(annotation: Any) -> type[Spec] | None:
    """The one model inside an annotation such as `dict[Key, ClassSpec]`, else None."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    return next((spec for spec in map(_spec_in, get_args(annotation)) if spec), None)


def _is_container(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return origin in (dict, list) or any(map(_is_container, get_args(annotation)))
