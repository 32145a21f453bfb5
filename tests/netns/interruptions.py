"""Kills an apply, an edit and a down between operations, inside one network namespace, and reports.

Run as a program in the namespace of a gateway: `interruptions.py INSTANCE CONFIG EDITED`. Children
are forked, so each attempt costs no start-up. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shaper.agent.engine import Engine
from shaper.config import load_config
from shaper.instance import Instance
from shaper.reconcile.operations import Operation
from tests.netns import snapshot

StepHook = Callable[[Operation], None]


class Configuration:
    def __init__(self, file: Path) -> None:
        self.gateway = load_config(file)
        self.text = file.read_text()


class Trial:
    """One instance in this namespace, a configuration and an edit of it."""

    def __init__(self, instance: Instance, file: Path, edited: Path) -> None:
        self.instance = instance
        self.original, self.edited = Configuration(file), Configuration(edited)
        self.pristine = snapshot.take()
        self.failures: list[str] = []

    def apply(self, on_step: StepHook | None = None) -> int:
        return self._apply(self.original, on_step)

    def edit(self, on_step: StepHook | None = None) -> int:
        return self._apply(self.edited, on_step)

    def _apply(self, wanted: Configuration, on_step: StepHook | None) -> int:
        plan = Engine(self.instance).apply(wanted.gateway, {}, wanted.text, on_step)
        return len(plan.operations)

    def down(self, on_step: StepHook | None = None) -> int:
        return len(Engine(self.instance).down(on_step).operations)

    def expect_applied(self, when: str, wanted: Configuration | None = None) -> None:
        left = Engine(self.instance).plan((wanted or self.original).gateway, {}).operations
        if left:
            self.failures.append(f"{when}: still to do: {left[0].describe()}")

    def expect_pristine(self, when: str) -> None:
        now = snapshot.take()
        for part, before in self.pristine.items():
            if now[part] != before:
                self.failures.append(f"{when}: {part} differ: {_difference(before, now[part])}")
        for path in (self.instance.pins, self.instance.state):
            if path.exists():
                self.failures.append(f"{when}: {path} is left")

    def kill_at(self, step: int, action: Callable[[StepHook], int]) -> None:
        """Runs `action` in a child that dies right before its operation number `step`."""

        def count(_: Operation) -> None:
            nonlocal step
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            step -= 1

        child = os.fork()
        if child == 0:
            action(count)
            os._exit(0)
        os.waitpid(child, 0)

    def kill_after(self, seconds: float, action: Callable[[], int]) -> None:
        child = os.fork()
        if child == 0:
            action()
            os._exit(0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _difference(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return str({key: (before.get(key), now.get(key)) for key in keys[:3]})
    return f"{before} -> {now}"


def interrupt_everywhere(trial: Trial) -> dict[str, object]:
    """Half of what is stopped is repaired by the same verb first; all of it is taken down."""
    started = time.monotonic()
    apply_steps = trial.apply()
    apply_s = time.monotonic() - started
    again = trial.apply()
    edit_steps = trial.edit()
    edit_again = trial.edit()
    down_steps = trial.down()
    trial.expect_pristine("after a plain down")
    _interrupt_apply(trial, apply_steps)
    _interrupt_edit(trial, edit_steps)
    _interrupt_down(trial, down_steps)
    _interrupt_at_random(trial, apply_s)
    return {
        "apply_steps": apply_steps,
        "edit_steps": edit_steps,
        "down_steps": down_steps,
        "second_apply_steps": again + edit_again,
        "failures": trial.failures,
    }


def _interrupt_apply(trial: Trial, steps: int) -> None:
    for step in range(steps):
        trial.kill_at(step, trial.apply)
        if step % 4 == 0:
            trial.apply()
            trial.expect_applied(f"apply killed at {step}, applied again")
        trial.down()
        trial.expect_pristine(f"apply killed at {step}, then down")


def _interrupt_edit(trial: Trial, steps: int) -> None:
    for step in range(steps):
        trial.apply()
        trial.kill_at(step, trial.edit)
        if step % 2 == 0:
            trial.edit()
            trial.expect_applied(f"edit killed at {step}, applied again", trial.edited)
        trial.down()
        trial.expect_pristine(f"edit killed at {step}, then down")


def _interrupt_down(trial: Trial, steps: int) -> None:
    for step in range(steps):
        trial.apply()
        trial.kill_at(step, trial.down)
        trial.down()
        trial.expect_pristine(f"down killed at {step}, then down")


def _interrupt_at_random(trial: Trial, apply_s: float) -> None:
    """Also within an operation, and between storing and the first."""
    chance = random.Random(1)
    for number in range(5):
        trial.kill_after(chance.uniform(0, apply_s), trial.apply)
        trial.apply()
        trial.expect_applied(f"random kill {number}")
        trial.down()
        trial.expect_pristine(f"random kill {number}, then down")


if __name__ == "__main__":
    name, *files = sys.argv[1:]
    print(json.dumps(interrupt_everywhere(Trial(Instance(name), *map(Path, files)))))
