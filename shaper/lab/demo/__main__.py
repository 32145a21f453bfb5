"""`python -m shaper.lab.demo`: what scripts/demo runs. Exit 0 only when every row holds."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax

from shaper.errors import ShaperError
from shaper.lab.demo import balance, shaping
from shaper.lab.demo.config import demo_config
from shaper.lab.demo.report import Row, failed, table
from shaper.lab.demo.settings import Settings, make_settings
from shaper.lab.network import Lab
from shaper.lab.plan import LabSpec

_DESCRIPTION: Final = (
    "A lab of network namespaces, the agent on its gateway, real traffic. Ends with what "
    "was asked and what was measured, and with exit code 1 where reality missed the request."
)

_Step = Callable[[], list[Row]]
_STEPS: Final = 11  # the lab, the agent, eight measurements, taking down
_FILE_WIDTH: Final = 120  # of the tables where standard output is no terminal


class Demo:
    """Runs the steps, shows progress on stderr and tables on stdout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._narration = Console(stderr=True)
        self._output = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)

    def run(self) -> int:
        """Gives the exit code."""
        with self._progress() as step:
            step(f"building a lab: {balance.CLIENTS} clients, a gateway, 4 backends")
            with Lab(LabSpec(backends=4, clients=balance.CLIENTS)) as lab:
                balanced, shaped = self._on_gateway(lab, step)
        self._output.print(table("Balance", "service", balanced))
        self._output.print(table("Shaping", "class", shaped))
        missed = failed([*balanced, *shaped])
        for row in missed:
            self._narration.print(
                f"[bold red]missed[/] {row.subject}: {row.part}:"
                f" asked {row.asked}, measured {row.measured}"
            )
        if not missed:
            self._narration.print(
                "[green]Everything was as asked, and everything is gone again.[/]"
            )
        return 1 if missed else 0

    def _on_gateway(self, lab: Lab, step: Callable[[str], None]) -> tuple[list[Row], list[Row]]:
        text = demo_config(lab, self._settings)
        path = lab.write_config(text)
        self._narration.print(Syntax(text, "yaml", background_color="default"))
        before = lab.gateway.snapshot()
        step("starting the agent on the gateway: shaper agent gateway.yaml")
        with lab.gateway.agent(path) as agent:
            for warning in lab.gateway.status()["warnings"]:
                self._narration.print(f"[yellow]warning:[/] {warning}")
            balanced = self._measure(step, self._balance_steps(lab))
            shaped = self._measure(step, self._shaping_steps(lab))
            code = agent.stop()
        step("taking it down: shaper down")
        lab.gateway.must_shaper("down")
        after = lab.gateway.snapshot()
        left = [what for what in before if before[what] != after[what]]
        stopped = f"exit {code}"
        shaped += [
            Row("gateway", "the agent stopped by SIGTERM", "exit 0", stopped, code == 0),
            Row(
                "gateway",
                "after shaper down",
                "as before",
                ", ".join(left) or "as before",
                not left,
            ),
        ]
        return balanced, shaped

    def _measure(self, step: Callable[[str], None], steps: dict[str, _Step]) -> list[Row]:
        rows = []
        for title, measure in steps.items():
            step(title)
            rows += measure()
        return rows

    def _balance_steps(self, lab: Lab) -> dict[str, _Step]:
        settings = self._settings
        return {
            "round-robin with weights 1 2 3 4": lambda: balance.weighted_rows(lab, settings),
            "maglev with the same weights": lambda: balance.hashed_rows(lab, settings),
            "least-connections, connections held": lambda: balance.least_rows(lab),
            "killing a backend under load": lambda: balance.takeover_rows(lab, settings),
        }

    def _shaping_steps(self, lab: Lab) -> dict[str, _Step]:
        settings = self._settings
        return {
            "two classes at their ceilings": lambda: shaping.rate_rows(lab, settings),
            "two classes that want the whole link": lambda: shaping.priority_rows(lab, settings),
            "traffic of no class": lambda: shaping.default_rows(lab),
            "a full default class": lambda: shaping.queue_rows(lab, settings),
        }

    @contextmanager
    def _progress(self) -> Iterator[Callable[[str], None]]:
        """A bar that names the running step; where stderr is no terminal, a line per step."""
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._narration, transient=True) as progress:
            task = progress.add_task("", total=_STEPS)
            done = 0

            def step(title: str) -> None:
                nonlocal done
                progress.update(task, description=title, completed=done)
                done += 1
                progress.console.print(f"[dim]{done:2}/{_STEPS}[/] {title}")

            yield step


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=_DESCRIPTION)
    parser.add_argument(
        "--leaf", choices=("auto", "fq_codel", "fifo"), default="auto", help="leaf of every class"
    )
    parser.add_argument(
        "--slow", action="store_true", help="an emulated machine: less traffic, lower rates"
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="PERCENT", help="of goodputs; default 3, slow 10"
    )
    options = parser.parse_args(argv)
    settings = make_settings(options.leaf, slow=options.slow, tolerance_percent=options.tolerance)
    try:
        if os.geteuid() != 0:
            raise ShaperError("the demo builds network namespaces", "run it as root: sudo …")
        return Demo(settings).run()
    except ShaperError as error:
        print(f"demo: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
