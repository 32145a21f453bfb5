"""YAML itself: what is no YAML, and what YAML has that a configuration has not."""

from __future__ import annotations

import pytest

from shaper.config.problems import Position
from shaper.config.reader import MAX_DEPTH, FileError, read_document
from shaper.config.unknown import UNKNOWN
from tests.unit.config_cases import INTERFACES, Case, case, expected, found, parametrize

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
)

NOT_YAML = [
    Case("empty", "▶", ("the file is empty (begin with 'version: 1')",)),
    Case("comments only", "▶# nothing\n", ("the file is empty (begin with 'version: 1')",)),
    Case(
        "a list",
        "# a list\n▶- version: 1\n",
        ("the file must hold a mapping such as 'version: 1'",),
    ),
    Case("a word", "▶version\n", ("the file must hold a mapping such as 'version: 1'",)),
    Case(
        "two documents",
        "version: 1\n▶---\nversion: 1\n",
        ("a second document starts here: one file, one gateway",),
    ),
    Case("tab", "interfaces:\n▶\twan: 1\n", ("a tab cannot indent YAML (use spaces)",)),
    Case(
        "NUL",
        "version: 1\nname: a▶\0b\n",
        ("character U+0000 cannot stand in YAML (is this a text file?)",),
    ),
    Case(
        "escape character",
        "version: ▶\x1b[1m\n",
        ("character U+001B cannot stand in YAML (is this a text file?)",),
    ),
    Case(
        "lone surrogate",
        "version: ▶\ud800\n",
        ("character U+D800 cannot stand in YAML (is this a text file?)",),
    ),
    Case(
        "open flow mapping",
        "version: {a: 1▶\n",
        ("not YAML: expected ',' or '}', but got '<stream end>'",),
    ),
    Case("open quote", "version: 'a▶\n", ("not YAML: found unexpected end of stream",)),
    Case("two colons", "version: 1▶: 2\n", ("not YAML: mapping values are not allowed here",)),
    Case(
        "bad indentation",
        "a:\n  b: 1\n ▶c: 2\n",
        ("not YAML: expected <block end>, but found '<block mapping start>'",),
    ),
    Case(
        "too deep",
        "a: " + "[" * MAX_DEPTH + "▶[" + "]" * (MAX_DEPTH + 1),
        (f"nested more than {MAX_DEPTH} levels deep",),
    ),
    Case(
        "very deep",
        "a: " + "[" * MAX_DEPTH + "▶[" + "[" * 100_000,
        (f"nested more than {MAX_DEPTH} levels deep",),
    ),
]

NOT_HERE = [
    case(
        "key twice",
        "classes: {}\nservices: {}\n▶classes: {}\n",
        "key 'classes' stands here twice (first in line 5)",
    ),
    case(
        "key three times",
        "services: {}\n▶services: {}\n▶services: {}\n",
        "key 'services' stands here twice (first in line 5)",
        "key 'services' stands here twice (first in line 5)",
    ),
    case(
        "device twice in one mapping",
        "interfaces:\n  wan: {device: eth0, role: client, ▶device: eth1}\n",
        "key 'device' stands here twice (first in line 3)",
    ),
    case("key that is a list", "▶[a, b]: 1\n", "a key must be a single word"),
    case(
        "unknown anchor",
        "controller: {weights: ▶*nobody}\n",
        "no anchor '&nobody' stands before this alias",
    ),
    case("alias of itself", "services: &s {www: ▶*s}\n", "no anchor '&s' stands before this alias"),
    case(
        "tag of Python",
        "controller: ▶!!python/object:os.system {a: [b]}\n",
        "the tag 'tag:yaml.org,2002:python/object:os.system' has no meaning here",
    ),
    case("own tag", "default_class: ▶!secret bulk\n", "the tag '!secret' has no meaning here"),
    case(
        "problem seen through an alias",
        "services:\n"
        "  a: {address: 198.51.100.10, port: 80, backends: &b {s1: {address: ▶203.0.113}}}\n"
        "  b: {address: 198.51.100.11, port: 80, backends: ▶*b}\n",
        "'203.0.113' is not an IP address",
        "'203.0.113' is not an IP address",
    ),
]


@parametrize(NOT_YAML)
def test_reader_refuses_with_one_problem(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


@parametrize(NOT_HERE)
def test_reader_reports_at_the_node(wrong: Case) -> None:
    assert found(wrong) == expected(wrong)


def test_reader_bounds_what_aliases_expand_to() -> None:
    with pytest.raises(FileError) as caught:
        read_document(LAUGHS)
    assert caught.value.problem.message == "the file holds more than 200,000 values"
    assert caught.value.problem.line == 6


def test_reader_positions_of_keys_and_values() -> None:
    document = read_document("a: 1\nlist:\n  - x\n  - {k: 'v'}\n")
    assert document.keys[("list",)] == Position(2, 1)
    assert document.values[("list", 0)] == Position(3, 5)
    assert document.keys[("list", 1, "k")] == Position(4, 6)
    assert document.values[("list", 1, "k")] == Position(4, 9)


def test_reader_positions_count_characters_not_bytes() -> None:
    document = read_document("ä: {ö: 1}\n")
    assert document.values[("ä", "ö")] == Position(1, 8)


def test_reader_falls_back_to_the_nearest_place_around() -> None:
    document = read_document("leaf: fifo\n")
    assert document.value_position(("leaf", "kind")) == Position(1, 7)
    assert document.key_position(("leaf", "kind")) == Position(1, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("010", "010"),
        ("0x10", "0x10"),
        ("5060:61", "5060:61"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("-7", -7),
        ("1.5", 1.5),
        ("1.5e3", 1500.0),
        (".inf", ".inf"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("1.5gbit", "1.5gbit"),
    ],
)
def test_reader_reads_plain_words_by_yaml_1_2(text: str, value: object) -> None:
    read = read_document(f"key: {text}\n").root["key"]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_reader_refuses_null(text: str) -> None:
    document = read_document(f"a: 1\nkey: {text}\n")
    assert document.root["key"] is UNKNOWN
    assert [(p.line, p.column, p.message) for p in document.problems] == [
        (2, 1, "'key' has no value")
    ]


def test_reader_ignores_a_byte_order_mark() -> None:
    assert read_document("\ufeffversion: 1\n").values[("version",)] == Position(1, 10)


def test_reader_takes_keys_as_text() -> None:
    """A backend may be called 1 or on; names are text wherever they stand as a key."""
    assert read_document(f"{INTERFACES}1: 2\non: 3\n").root.keys() >= {"1", "on"}
