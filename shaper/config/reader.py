"""YAML text to plain values that know where they stand.

PyYAML serves as the parser only: its events carry positions, and everything above them is done
here, because PyYAML accepts duplicate keys silently and reads plain words by YAML 1.1, where
`on` is a boolean, `010` is eight and `5060:61` is 303661. Plain words are read by the core schema
of YAML 1.2 (null, true, false, decimal integers and floats; everything else is text), which
is what editors do as well.

Nesting and size are bounded while reading, so an alias bomb ends as a problem like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from shaper.config.problems import Position, Problem
from shaper.config.unknown import UNKNOWN

Loc = tuple[str | int, ...]
"""Where a value stands in the tree: mapping keys and list indices from the root."""

MAX_DEPTH: Final = 32
MAX_NODES: Final = 200_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR_TAG: Final = "tag:yaml.org,2002:str"
# What YAML 1.2 cannot hold in a stream: control characters, surrogates, non-characters.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = ("true", "True", "TRUE")
_FALSE: Final = ("false", "False", "FALSE")
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}\.[0-9]{0,30})(e[-+]?[0-9]{1,3})?", re.I | re.A
)


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file and the places of its keys and values.

    `problems` holds what was wrong with single nodes; such a node is `UNKNOWN` in `root`.
    """

    root: Any
    keys: dict[Loc, Position]
    values: dict[Loc, Position]
    problems: tuple[Problem, ...]

    def value_position(self, loc: Loc) -> Position:
        """Of the value at `loc`, or of the nearest value around it that the file holds."""
        while loc not in self.values and loc:
            loc = loc[:-1]
        return self.values[loc]

    def key_position(self, loc: Loc) -> Position:
        """Of the key that leads to `loc`; of the value where no key does (list items, the root)."""
        while loc and loc not in self.keys and loc not in self.values:
            loc = loc[:-1]
        return self.keys.get(loc) or self.value_position(loc)


class FileError(Exception):
    """The text is no configuration at all; nothing else can be said about it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Scalar:
    position: Position
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class _Unusable:
    position: Position
    message: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    position: Position
    items: list[_Node]


@dataclass(frozen=True, slots=True)
class _Mapping:
    position: Position
    entries: list[tuple[_Node, _Node]]


@dataclass(frozen=True, slots=True)
class _Alias:
    position: Position
    node: _Node


_Node = _Scalar | _Unusable | _Sequence | _Mapping | _Alias


def read_document(text: str) -> Document:
    """The one mapping that the text holds.

    Raises:
        FileError: not YAML, empty, no mapping, several documents, too deep, too large.
    """
    text = text.removeprefix("\ufeff")
    _refuse_control_characters(text)
    node = _Parser(text).document()
    if not isinstance(node, _Mapping):
        raise FileError(
            Problem.at(node.position, "the file must hold a mapping such as 'version: 1'")
        )
    return _Converter().document(node)


def _refuse_control_characters(text: str) -> None:
    match = _CONTROL.search(text)
    if match:
        position = Position.after(text[: match.start()])
        message = f"character U+{ord(match[0]):04X} cannot stand in YAML"
        raise FileError(Problem.at(position, message, "is this a text file?"))


class _Parser:
    """Events to nodes, in one pass; recursion is bounded by MAX_DEPTH."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.splitlines() or [""]
        self._anchors: dict[str, _Node] = {}
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_Loader))

    def document(self) -> _Node:
        try:
            node: _Node | None = None
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if node is not None:
                        position = self._position(event.start_mark)
                        raise FileError(
                            Problem.at(
                                position, "a second document starts here: one file, one gateway"
                            )
                        )
                    node = self._node(next(self._events), depth=0)
        except yaml.YAMLError as error:
            raise FileError(self._syntax_problem(error)) from None
        if node is None or (isinstance(node, _Scalar) and node.plain and not node.text):
            raise FileError(Problem(1, 1, "the file is empty", "begin with 'version: 1'"))
        return node

    def _node(self, event: Any, depth: int) -> _Node:
        position = self._position(event.start_mark)
        if depth > MAX_DEPTH:
            raise FileError(Problem.at(position, f"nested more than {MAX_DEPTH} levels deep"))
        if isinstance(event, yaml.AliasEvent):
            # An anchor becomes known when its node is complete, so no alias can hold itself.
            target = self._anchors.get(str(event.anchor))
            if target is None:
                return _Unusable(position, f"no anchor '&{event.anchor}' stands before this alias")
            return _Alias(position, target)
        node = self._tagged(event, position) or self._untagged(event, position, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _tagged(self, event: Any, position: Position) -> _Node | None:
        if event.tag in (None, "!") or (
            isinstance(event, yaml.ScalarEvent) and event.tag == _STR_TAG
        ):
            return None
        if not isinstance(event, yaml.ScalarEvent):
            self._skip()
        return _Unusable(position, f"the tag {event.tag!r} has no meaning here")

    def _skip(self) -> None:
        depth = 1
        while depth:
            event = next(self._events)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)

    def _untagged(self, event: Any, position: Position, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return _Scalar(position, event.value, plain=bool(event.implicit[0]))
        children: list[_Node] = []
        for child in self._events:
            if isinstance(child, yaml.CollectionEndEvent):
                break
            children.append(self._node(child, depth + 1))
        if isinstance(event, yaml.SequenceStartEvent):
            return _Sequence(position, children)
        return _Mapping(position, list(zip(children[::2], children[1::2], strict=True)))

    def _position(self, mark: Any) -> Position:
        """1-based, and inside the text: the parser puts what is missing behind the last line."""
        if mark.line >= len(self._lines):
            return Position(len(self._lines), len(self._lines[-1]) + 1)
        return Position(mark.line + 1, mark.column + 1)

    def _syntax_problem(self, error: yaml.YAMLError) -> Problem:
        """Worded by PyYAML's own parser, whichever found it: it reads the same everywhere."""
        try:
            for _ in yaml.parse(self._text, Loader=yaml.SafeLoader):
                pass
        except yaml.YAMLError as own:
            error = own
        mark = getattr(error, "problem_mark", None)
        position = self._position(mark) if mark else Position(1, 1)
        what = str(getattr(error, "problem", None) or error)
        if mark and mark.index < len(self._text) and self._text[mark.index] == "\t":
            return Problem.at(position, "a tab cannot indent YAML", "use spaces")
        return Problem.at(position, f"not YAML: {what}")


@dataclass(slots=True)
class _Converter:
    """Nodes to plain values. Every use of an alias is a value of its own, at the alias's place."""

    keys: dict[Loc, Position] = field(default_factory=dict)
    values: dict[Loc, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def document(self, node: _Mapping) -> Document:
        root = self._value(node, (), None)
        return Document(root, self.keys, self.values, tuple(self.problems))

    def _value(self, node: _Node, loc: Loc, use: Position | None) -> Any:
        """`use` is the place of the alias through which the node is seen, None for none."""
        position = use or node.position
        if len(self.values) >= MAX_NODES:
            raise FileError(Problem.at(position, f"the file holds more than {MAX_NODES:,} values"))
        if len(loc) > MAX_DEPTH:
            raise FileError(Problem.at(position, f"nested more than {MAX_DEPTH} levels deep"))
        self.values[loc] = position
        if isinstance(node, _Alias):
            return self._value(node.node, loc, position)
        if isinstance(node, _Sequence):
            return [self._value(item, (*loc, i), use) for i, item in enumerate(node.items)]
        if isinstance(node, _Mapping):
            return self._mapping(node, loc, use)
        if isinstance(node, _Unusable):
            self.problems.append(Problem.at(position, node.message))
            return UNKNOWN
        return self._scalar(node, loc)

    def _mapping(self, node: _Mapping, loc: Loc, use: Position | None) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in node.entries:
            position = use or key.position
            scalar = key.node if isinstance(key, _Alias) else key
            if not isinstance(scalar, _Scalar):
                self.problems.append(Problem.at(position, "a key must be a single word"))
            elif scalar.text in result:
                line = self.keys[(*loc, scalar.text)].line
                message = f"key {scalar.text!r} stands here twice"
                self.problems.append(Problem.at(position, message, f"first in line {line}"))
            else:
                inner = (*loc, scalar.text)
                self.keys[inner] = position
                result[scalar.text] = self._value(value, inner, use)
        return result

    def _scalar(self, node: _Scalar, loc: Loc) -> Any:
        text = node.text
        if not node.plain:
            return text
        if _NULL.fullmatch(text):
            what = f"{loc[-1]!r}" if isinstance(loc[-1], str) else "this list item"
            position = self.keys.get(loc) or self.values[loc]
            self.problems.append(Problem.at(position, f"{what} has no value"))
            return UNKNOWN
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text
