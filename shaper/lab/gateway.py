"""The gateway of a lab, and `shaper` running on it as its users run it: the installed command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shaper.instance import Instance
from shaper.lab.namespace import LabError, Namespace, stop_process, wait_until
from shaper.lab.plan import LAN_DEVICE, WAN_DEVICE

SHAPER: Final = Path(sys.executable).with_name("shaper")
"""The command that the installation put beside the interpreter."""

_SYSCTLS_OF_INTEREST: Final = r"^net\.ipv4\.(ip_forward$|conf\.)|^net\.ipv6\.conf\..*forwarding"
_COMMAND_TIMEOUT_S: Final = 240.0  # one compilation takes 40 s and more on an emulated machine


@dataclass(frozen=True, slots=True)
class Agent:
    """A running `shaper agent`; its narration (stderr) goes to `log`."""

    process: subprocess.Popen[str]
    log: Path

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        return stop_process(self.process, timeout_s=10.0)


@dataclass(frozen=True, slots=True)
class LabGateway:
    namespace: Namespace
    instance: Instance
    folder: Path

    def shaper(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a verb on the gateway; the caller judges the exit code."""
        return self.namespace.call(self._command(*arguments), timeout_s=_COMMAND_TIMEOUT_S)

    def must_shaper(self, *arguments: str) -> str:
        """Runs a verb that has to succeed; its standard output. LabError otherwise."""
        done = self.shaper(*arguments)
        if done.returncode:
            raise LabError(f"shaper {' '.join(arguments)}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """`shaper status --json`."""
        document: dict[str, Any] = json.loads(self.must_shaper("status", "--json"))
        return document

    def wait_status(
        self, condition: Callable[[dict[str, Any]], bool], timeout_s: float, what: str
    ) -> None:
        """Asks for the status until `condition` holds; LabError(`what`) after `timeout_s`."""
        wait_until(lambda: condition(self.status()), timeout_s, what)

    def snapshot(self) -> dict[str, str]:
        """What `shaper down` has to give back: addresses, links, queues, filters, sysctls, pins."""
        run = self.namespace.run
        taken = {
            "addresses": run(["ip", "-o", "address"]),
            "links": run(["ip", "-o", "link"]),
            "queues": run(["tc", "qdisc", "show"]),
            "sysctls": run(["sysctl", "-a", "-r", _SYSCTLS_OF_INTEREST]),
            "pins": "\n".join(sorted(map(str, self.instance.pins.rglob("*")))),
        }
        for device in (WAN_DEVICE, LAN_DEVICE):
            taken[f"filters of {device}"] = run(["tc", "filter", "show", "dev", device, "egress"])
        return taken

    @contextmanager
    def agent(self, config: Path) -> Iterator[Agent]:
        """`shaper agent FILE` until the block ends; enters once its socket answers."""
        log = self.folder / "agent.log"
        with log.open("w") as narration:
            process = self.namespace.popen(
                self._command("agent", str(config)), stdout=narration, stderr=narration
            )
        try:
            wait_until(
                lambda: self.instance.socket.is_socket() or process.poll() is not None,
                _COMMAND_TIMEOUT_S,
                "the agent's socket",
            )
            if process.poll() is not None:
                raise LabError(f"shaper agent ended with {process.returncode}: {log.read_text()}")
            yield Agent(process, log)
        finally:
            stop_process(process, timeout_s=10.0)

    def set_forwarding(self, *, on: bool) -> None:
        """Plain routing, for tries without `shaper`."""
        self.namespace.sysctl(
            {"net.ipv4.ip_forward": int(on), "net.ipv6.conf.all.forwarding": int(on)}
        )

    def _command(self, *arguments: str) -> list[str]:
        return [str(SHAPER), "--instance", self.instance.name, *arguments]
