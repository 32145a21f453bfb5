"""What can be wrong with a configuration file: a sentence, a hint and a place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from shaper.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the file; both numbers count from 1, columns in characters."""

    line: int
    column: int

    @classmethod
    def after(cls, before: str) -> Position:
        """Of the character that follows the given beginning of a file."""
        lines = f"{before}.".splitlines()
        return cls(len(lines), len(lines[-1]))


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `hint` says what to do about it and may be empty. Problems sort by place."""

    line: int
    column: int
    message: str
    hint: str = ""

    @classmethod
    def at(cls, position: Position, message: str, hint: str = "") -> Problem:
        return cls(position.line, position.column, message, hint)

    def render(self, name: str) -> str:
        """`FILE:LINE:COLUMN: message (hint)`."""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{name}:{self.line}:{self.column}: {self.message}{hint}"


class ConfigError(UsageError):
    """A configuration file with at least one problem; `problems` holds all, sorted by place."""

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(self.lines()))

    def lines(self, name: str | None = None) -> tuple[str, ...]:
        """Every problem as `FILE:LINE:COLUMN: message (hint)`; `name` replaces the file's name."""
        shown = self.name if name is None else name
        return tuple(problem.render(shown) for problem in self.problems)


def nearest(word: str, known: Iterable[str]) -> str:
    """`"did you mean 'x'?"` for the most similar of the known words, else an empty hint."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""
