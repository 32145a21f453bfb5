"""A backend's servers: nginx, iperf3 and a UDP echo, each a foreground process whose id is kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from shaper.lab.load import BACKEND_HEADER
from shaper.lab.namespace import LabError, Namespace, stop_process, wait_until

HTTP_PORT: Final = 8080
IPERF_PORT: Final = 5201
ECHO_PORT: Final = 9000

LARGE_FILE_BYTES: Final = 1 << 30
"""`/large` of every backend: a sparse file, so it costs no memory."""

_START_TIMEOUT_S: Final = 20.0
_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp

_NGINX: Final = """\
daemon off;
master_process off;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    keepalive_timeout 120s;
    {temporary}
    server {{
        {listen}
        add_header {header} {name} always;
        location = /healthz {{ return 200 "ok\\n"; }}
        location = /large {{ alias {large}; }}
        location / {{ return 200 "{name}\\n"; }}
    }}
}}
"""
_NGINX_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Server:
    """One server program in a namespace: started, stopped, killed, started again."""

    def __init__(
        self, namespace: Namespace, argv: Sequence[str], log: Path, ready: Callable[[int], bool]
    ) -> None:
        self._namespace = namespace
        self._argv = tuple(argv)
        self._log = log
        self._ready = ready
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Starts it; with `wait` until it listens. LabError with its log when it does not."""
        with self._log.open("a") as log:
            self._process = self._namespace.popen(self._argv, stdout=log, stderr=log)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        process = self._process
        if process is None:
            raise LabError(f"{self._argv[0]} was not started")
        wait_until(
            lambda: self._ready(process.pid) or process.poll() is not None,
            _START_TIMEOUT_S,
            f"{self._argv[0]} in {self._namespace.name} to listen",
        )
        if process.poll() is not None:
            raise LabError(f"{' '.join(self._argv)} ended: {self._log.read_text()[-2000:].strip()}")

    def stop(self) -> None:
        if self._process is not None:
            stop_process(self._process)

    def kill(self) -> None:
        """SIGKILL, and waits until its sockets are closed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def nginx_server(namespace: Namespace, name: str, folder: Path, *, ipv6: bool) -> Server:
    """Answers `/` with the backend's name in the body and in a header, `/healthz`, `/large`."""
    large = folder / "large"
    with large.open("wb") as file:
        file.truncate(LARGE_FILE_BYTES)
    listen = f"listen {HTTP_PORT} backlog=4096;"
    if ipv6:
        listen += f" listen [::]:{HTTP_PORT} ipv6only=on backlog=4096;"
    config = folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            folder=folder,
            temporary=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _NGINX_TEMPORARY),
            listen=listen,
            header=BACKEND_HEADER,
            name=name,
            large=large,
        )
    )
    log = folder / "nginx.log"
    argv = ["nginx", "-p", str(folder), "-e", str(log), "-c", str(config)]
    return Server(namespace, argv, log, _listens(namespace, "tcp", HTTP_PORT))


def iperf_server(namespace: Namespace, folder: Path) -> Server:
    """iperf3 serves one test at a time; a second client is refused."""
    argv = ["iperf3", "--server", "--port", str(IPERF_PORT)]
    ready = _listens(namespace, "tcp", IPERF_PORT)
    return Server(namespace, argv, folder / "iperf3.log", ready)


def echo_server(namespace: Namespace, name: str, folder: Path) -> Server:
    argv = [sys.executable, "-m", "shaper.lab.echo", name, str(ECHO_PORT)]
    ready = _listens(namespace, "udp", ECHO_PORT)
    return Server(namespace, argv, folder / "echo.log", ready)


def _listens(namespace: Namespace, protocol: str, port: int) -> Callable[[int], bool]:
    """Asks /proc/PID/net, which shows the sockets of the namespace that the process is in."""

    def ready(pid: int) -> bool:
        if not namespace.contains(pid):
            return False
        tables = (Path(f"/proc/{pid}/net/{protocol}{family}") for family in ("", "6"))
        return any(_bound(table, port, protocol) for table in tables)

    return ready


def _bound(table: Path, port: int, protocol: str) -> bool:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return False
    for line in lines:
        _, local, _, state = line.split()[:4]
        if int(local.rpartition(":")[2], 16) == port and (protocol == "udp" or state == _LISTEN):
            return True
    return False
