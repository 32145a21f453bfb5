"""The agent's process: lock, signals, API, the service manager.

SIGHUP reads the file again, SIGTERM and SIGINT stop the agent. Stopping leaves the data plane
forwarding with the health and the weights it had; only the socket goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from shaper.agent.agent import Agent
from shaper.agent.events import LOGGER, EventKind
from shaper.agent.lock import instance_lock
from shaper.api.server import serve_api
from shaper.config import parse_with_warnings, read_text
from shaper.instance import Instance


def run_agent(instance: Instance, file: Path) -> int:
    """Runs until it is told to stop.

    Raises:
        ShaperError: the file is bad, the kernel refused it, or another agent holds the instance.
    """
    from shaper.agent.engine import Engine as KernelEngine

    _log_to_stderr()
    with instance_lock(instance):
        asyncio.run(
            serve(instance, file, lambda: Agent(KernelEngine(instance), parse_with_warnings))
        )
    return 0


async def serve(instance: Instance, file: Path, make_agent: Callable[[], Agent]) -> None:
    """Starts the agent on the running loop and returns once a signal stopped it.

    Raises:
        ShaperError: it could not start.
    """
    agent = make_agent()
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(partial(_report_defect, agent))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    try:
        await agent.start(read_text(file), str(file))
        await _run_until(stop, agent, partial(_reload, agent, file, reload), instance)
    finally:
        agent.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _run_until(
    stop: asyncio.Event, agent: Agent, reload: Callable[[], Awaitable[None]], instance: Instance
) -> None:
    forever = agent.supervisor.forever
    tasks = [
        asyncio.create_task(agent.run()),
        asyncio.create_task(forever("reloading", reload)),
        asyncio.create_task(forever("the API", lambda: serve_api(agent, instance))),
    ]
    agent.events.add(EventKind.AGENT, f"instance {instance.name} is running")
    notify_manager("READY=1")
    await stop.wait()
    notify_manager("STOPPING=1")
    agent.events.add(EventKind.AGENT, "stopping; the data plane goes on forwarding")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _reload(agent: Agent, file: Path, wanted: asyncio.Event) -> None:
    await wanted.wait()
    wanted.clear()
    await agent.reload(file)


def _report_defect(agent: Agent, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no task caught, such as a defect in a health check."""
    error = context.get("exception")
    detail = f": {type(error).__name__}: {error}" if error is not None else ""
    agent.events.add(EventKind.ERROR, f"{context['message']}{detail}")


def notify_manager(state: str) -> None:
    """Tells systemd (sd_notify(3)); nothing where it did not ask for it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
