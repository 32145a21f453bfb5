"""The command line: a table of verbs, one place where errors become messages and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shaper.errors import ShaperError
from shaper.instance import Instance


@dataclass(frozen=True, slots=True)
class Verb:
    """`arguments` declares what follows the verb; `run` imports and calls it."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Instance], int]


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="configuration file (YAML)")


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--exit-code", action="store_true", help="exit 3 when there are changes")


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")


def _none(_: argparse.ArgumentParser) -> None:
    return


def _check(args: argparse.Namespace, _: Instance) -> int:
    from shaper.cli import check

    return check.run(args.file)


def _plan(args: argparse.Namespace, instance: Instance) -> int:
    from shaper.cli import plan

    return plan.run(instance, args.file, args.json, args.exit_code)


def _apply(args: argparse.Namespace, instance: Instance) -> int:
    from shaper.cli import apply

    return apply.run(instance, args.file)


def _agent(args: argparse.Namespace, instance: Instance) -> int:
    from shaper.cli import agent

    return agent.run(instance, args.file)


def _down(_: argparse.Namespace, instance: Instance) -> int:
    from shaper.cli import down

    return down.run(instance)


def _status(args: argparse.Namespace, instance: Instance) -> int:
    from shaper.cli import status

    return status.run(instance, args.json)


VERBS = (
    Verb("check", "validate a file: every problem with its line and column", _file, _check),
    Verb("plan", "what apply would change", _plan_arguments, _plan),
    Verb("apply", "make it so, read back and verify", _file, _apply),
    Verb("agent", "apply, then health checks, weights and the API", _file, _agent),
    Verb("down", "remove all that was made, and nothing else", _none, _down),
    Verb(
        "status", "services, backends and classes with their counters", _status_arguments, _status
    ),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shaper",
        description="Balance L4 flows in XDP and shape every class of traffic with tc.",
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--instance",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="which gateway on this host (default: default)",
    )
    parser.add_argument("--instance", default="default", metavar="NAME", help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        child = verbs.add_parser(verb.name, help=verb.help, parents=[shared])
        verb.arguments(child)
        child.set_defaults(run=verb.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb. Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 see `plan`."""
    args = _parser().parse_args(arguments)
    try:
        return int(args.run(args, Instance(args.instance)))
    except ShaperError as error:
        _report(error)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except OSError as error:
        hint = "run it as root" if isinstance(error, PermissionError) else ""
        _report(ShaperError(f"{error.filename or 'shaper'}: {error.strerror or error}", hint))
        return ShaperError.exit_code
    except KeyboardInterrupt:
        return 130


def _report(error: ShaperError) -> None:
    print(error, file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
