"""Kills an apply and a down at every operation, inside one network namespace, and reports.

Run as a program in the namespace of a gateway: `interruptions.py INSTANCE CONFIG`. Children are
forked, so each attempt costs no start-up. Prints one JSON object.
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


class Trial:
    """One instance and one configuration in this namespace."""

    def __init__(self, instance: Instance, file: Path) -> None:
        self.instance = instance
        self.gateway = load_config(file)
        self.text = file.read_text()
        self.pristine = snapshot.take()
        self.failures: list[str] = []

    def apply(self, on_step: Callable[[Operation], None] | None = None) -> int:
        return len(Engine(self.instance).apply(self.gateway, {}, self.text, on_step).operations)

    def down(self, on_step: Callable[[Operation], None] | None = None) -> int:
        return len(Engine(self.instance).down(on_step).operations)

    def expect_applied(self, when: str) -> None:
        left = Engine(self.instance).plan(self.gateway, {}).operations
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

    def kill_at(self, step: int, action: Callable[[Callable[[Operation], None]], int]) -> None:
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
    started = time.monotonic()
    apply_steps = trial.apply()
    apply_s = time.monotonic() - started
    again = trial.apply()
    down_steps = trial.down()
    trial.expect_pristine("after a plain down")
    for step in range(apply_steps):
        trial.kill_at(step, trial.apply)
        if step % 2:
            trial.down()
        else:
            trial.apply()
            trial.expect_applied(f"apply killed at {step}, applied again")
            trial.down()
        trial.expect_pristine(f"apply killed at {step}, then down")
    for step in range(down_steps):
        trial.apply()
        trial.kill_at(step, trial.down)
        trial.down()
        trial.expect_pristine(f"down killed at {step}, then down")
    chance = random.Random(1)
    for number in range(8):
        trial.kill_after(chance.uniform(0, apply_s), trial.apply)
        trial.apply()
        trial.expect_applied(f"random kill {number}")
        trial.down()
        trial.expect_pristine(f"random kill {number}, then down")
    return {
        "apply_steps": apply_steps,
        "second_apply_steps": again,
        "down_steps": down_steps,
        "failures": trial.failures,
    }


if __name__ == "__main__":
    print(json.dumps(interrupt_everywhere(Trial(Instance(sys.argv[1]), Path(sys.argv[2])))))
