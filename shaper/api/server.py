"""Serves the API on the instance's Unix socket: root, and the group `shaper` where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn

from shaper.api.app import Controlled, create_app
from shaper.instance import Instance

GROUP: Final = "shaper"
_GRACE_S: Final = 2


class _Server(uvicorn.Server):
    """Signals belong to the agent."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_api(agent: Controlled, instance: Instance) -> None:
    """Serves until cancelled; the socket file is gone afterwards.

    The caller holds the instance's lock, so a socket that is there already is a dead one's.

    Raises:
        OSError: the socket cannot be made.
    """
    config = uvicorn.Config(
        create_app(agent),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    listener = listen(instance.socket)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.wait([serving])
        listener.close()
        instance.socket.unlink(missing_ok=True)


def listen(path: Path, group: str = GROUP) -> socket.socket:
    """A listening socket at `path`, closed to others from its first moment on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    listener.listen(64)
    listener.setblocking(False)
    return listener
