"""The lab: namespaces, cables, servers; taken down whatever happens.

Checksums: `ethtool -K net0 tx off` on clients and backends, because packets of a local stack cross
veth with partial checksums, which no wire would carry. Segmentation offload goes with it: every
packet is at most MTU-sized when it leaves its sender, as on a wire. A plain lab carries
2 gbit/s that way instead of 13 (seen on two cores), far above every rate that is shaped here.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from shaper.instance import Instance
from shaper.lab import ownership
from shaper.lab.gateway import LabGateway
from shaper.lab.namespace import Namespace, ip_batch
from shaper.lab.plan import (
    BACKENDS4,
    BACKENDS6,
    CLIENTS4,
    CLIENTS6,
    HOST_DEVICE,
    HostPlan,
    LabPlan,
    LabSpec,
    cable_commands,
    gateway_commands,
    host_commands,
    plan_lab,
    switch_commands,
)
from shaper.lab.servers import Server, echo_server, iperf_server, nginx_server

_SYSCTLS: Final[dict[str, int | str]] = {
    # A new namespace inherits these from the first one: a lab must not depend on its host.
    "net.ipv4.ip_forward": 0,
    "net.ipv4.conf.all.forwarding": 0,
    "net.ipv4.conf.default.forwarding": 0,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.ip_local_port_range": "10000 65000",
}
_SYSCTLS6: Final[dict[str, int | str]] = {
    "net.ipv6.conf.all.forwarding": 0,
    "net.ipv6.conf.default.forwarding": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.accept_ra": 0,
}


@dataclass(frozen=True, slots=True)
class Client:
    """A client's namespace; `sources` and `sources6` are its addresses, as text."""

    name: str
    namespace: Namespace
    sources: tuple[str, ...]
    sources6: tuple[str, ...]

    def sources_for(self, address: str) -> tuple[str, ...]:
        """The source addresses of the same family as `address`."""
        return self.sources6 if ":" in address else self.sources


@dataclass(frozen=True, slots=True)
class LabBackend:
    """A backend's namespace with its servers; `address6` is empty in a lab without IPv6."""

    name: str
    namespace: Namespace
    address: str
    address6: str
    http: Server
    iperf: Server
    echo: Server

    @property
    def servers(self) -> tuple[Server, ...]:
        return (self.http, self.iperf, self.echo)


class Lab:
    """`with Lab(LabSpec(backends=4)) as lab:` gives a lab in which every server listens.

    The gateway forwards nothing until `shaper` (or the caller) switches forwarding on. Ends cleanly
    after an exception, SIGINT and SIGTERM; what a SIGKILL leaves is removed by the next lab.

    Raises:
        LabError: a program is missing, or the kernel refused a namespace or a device.
    """

    gateway: LabGateway
    clients: tuple[Client, ...]
    backends: dict[str, LabBackend]
    switch: Namespace
    folder: Path
    instance: Instance

    def __init__(self, spec: LabSpec | None = None) -> None:
        self.spec = spec or LabSpec()
        self._stack = ExitStack()

    @property
    def client(self) -> Client:
        return self.clients[0]

    def backend(self, name: str) -> LabBackend:
        return self.backends[name]

    def write_config(self, text: str, name: str = "gateway.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def __enter__(self) -> Self:
        ownership.reap()
        with ExitStack() as stack:
            stack.enter_context(_Signals())
            token, self.folder = ownership.claim()
            self.instance = ownership.lab_instance(token)
            stack.callback(ownership.release, token)
            self._build(plan_lab(self.spec), token, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _build(self, plan: LabPlan, token: str, stack: ExitStack) -> None:
        roles = ["switch", "gateway", *(host.name for host in (*plan.clients, *plan.backends))]
        names = {role: ownership.namespace_name(token, role) for role in roles}
        spaces = {role: Namespace(name) for role, name in names.items()}
        for space in spaces.values():
            stack.callback(space.stop_processes)
        ip_batch([f"netns add {name}" for name in names.values()])
        for space in spaces.values():  # before there are devices: they start with the defaults
            space.sysctl(_SYSCTLS | (_SYSCTLS6 if Path("/proc/sys/net/ipv6").is_dir() else {}))
        ip_batch(cable_commands(plan, names))
        self.switch = spaces["switch"]
        self.switch.ip(switch_commands(plan))
        spaces["gateway"].ip(gateway_commands(plan))
        for hosts, networks in (
            (plan.clients, (CLIENTS4, CLIENTS6)),
            (plan.backends, (BACKENDS4, BACKENDS6)),
        ):
            for host in hosts:
                spaces[host.name].run(["ethtool", "-K", HOST_DEVICE, "tx", "off"])
                spaces[host.name].ip(host_commands(host, networks, ipv6=plan.ipv6))
        self.gateway = LabGateway(spaces["gateway"], self.instance, self.folder)
        self.clients = tuple(self._client(host, spaces[host.name]) for host in plan.clients)
        self.backends = {
            host.name: self._backend(host, spaces[host.name]) for host in plan.backends
        }
        self._start_servers()

    def _client(self, host: HostPlan, space: Namespace) -> Client:
        sources, sources6 = (
            tuple(map(str, addresses)) for addresses in (host.addresses4, host.addresses6)
        )
        return Client(host.name, space, sources, sources6)

    def _backend(self, host: HostPlan, space: Namespace) -> LabBackend:
        folder = self.folder / host.name
        folder.mkdir()
        return LabBackend(
            name=host.name,
            namespace=space,
            address=str(host.addresses4[0]),
            address6=str(host.addresses6[0]) if host.addresses6 else "",
            http=nginx_server(space, host.name, folder, ipv6=bool(host.addresses6)),
            iperf=iperf_server(space, folder),
            echo=echo_server(space, host.name, folder),
        )

    def _start_servers(self) -> None:
        servers = [server for backend in self.backends.values() for server in backend.servers]
        for server in servers:
            server.start(wait=False)
        for server in servers:
            server.wait_ready()


class _Signals:
    """SIGINT and SIGTERM unwind the `with` block once; while it unwinds, further ones wait.

    Only the main thread may set handlers: elsewhere (and where the owner has its own for SIGTERM)
    nothing is changed.
    """

    def __enter__(self) -> None:
        self._saved = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self._saved[number] = signal.signal(number, self._unwind)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)

    def _unwind(self, number: int, _frame: FrameType | None) -> None:
        for handled in self._saved:
            signal.signal(handled, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)
