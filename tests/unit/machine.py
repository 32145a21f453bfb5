"""A machine in memory for the planner's tests: it executes operations and refuses what the kernel
refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from shaper.model import (
    Address,
    Backend,
    Forwarding,
    Gateway,
    Interface,
    Leaf,
    Protocol,
    Role,
    Scheduler,
    Service,
    TrafficClass,
    Unavailable,
)
from shaper.reconcile import operations as ops
from shaper.reconcile.desired import Environment
from shaper.reconcile.entries import BackendEntry, ServiceEntry, ServiceKey, Tables
from shaper.reconcile.plan import Actual, DeviceState
from shaper.shaping.operations import TcOperation
from shaper.shaping.tree import MAJOR
from tests.fakes import FakeTrafficControl

ENVIRONMENT = Environment(
    mtu={"eth0": 1500, "eth1": 1500}, leaf_kinds=frozenset({"fq_codel"}), atomic_fetch=True
)
LINKS = (*ENVIRONMENT.mtu, "eth2.7")
"""Every device of the machine; the last one is none of the gateway's interfaces."""


def gateway(
    *,
    classes: tuple[TrafficClass, ...] | None = None,
    services: tuple[Service, ...] | None = None,
    default_class: str | None = "bulk",
) -> Gateway:
    """Two devices, two classes, one service, unless told otherwise."""
    return Gateway(
        interfaces=(
            Interface("wan", "eth0", Role.CLIENT, 10**9),
            Interface("lan", "eth1", Role.BACKEND, 10**9),
        ),
        classes=(traffic_class("web"), traffic_class("bulk")) if classes is None else classes,
        default_class=default_class,
        services=(service(),) if services is None else services,
    )


def traffic_class(name: str, parent: str | None = None, rate_bps: int = 10**8) -> TrafficClass:
    return TrafficClass(name, parent, rate_bps, 10**9, 2, Leaf(), ("wan", "lan"))


def service(
    name: str = "www",
    address: str = "198.51.100.10",
    backends: int = 2,
    class_name: str | None = "web",
    scheduler: Scheduler = Scheduler.ROUND_ROBIN,
    ports: tuple[int, ...] = (80,),
) -> Service:
    version6 = ip_address(address).version == 6
    prefix = "2001:db8:1::" if version6 else "203.0.113."
    return Service(
        name=name,
        address=ip_address(address),
        ports=ports,
        protocol=Protocol.TCP,
        scheduler=scheduler,
        forwarding=Forwarding.NAT,
        class_name=class_name,
        announce=True,
        unavailable=Unavailable.REJECT,
        backends=tuple(
            Backend(f"s{number}", ip_address(f"{prefix}{number}"), 8080, 1)
            for number in range(1, backends + 1)
        ),
        health=None,
    )


@dataclass
class Machine:
    """Kernel state that a plan can change."""

    sysctls: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, set[Address]] = field(default_factory=dict)
    clsact: set[str] = field(default_factory=set)
    classifiers: dict[str, str] = field(default_factory=dict)
    xdp: dict[str, str] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)
    services: dict[ServiceKey, ServiceEntry] = field(default_factory=dict)
    backends: dict[int, BackendEntry] = field(default_factory=dict)
    classes: dict[int, int] = field(default_factory=dict)
    default_class: int = 0
    tc: FakeTrafficControl = field(default_factory=FakeTrafficControl)
    announced_routes: set[str] = field(default_factory=lambda: set(LINKS))
    """Devices with a default route that a router announced."""

    def __post_init__(self) -> None:
        for device in ENVIRONMENT.mtu:
            self.addresses.setdefault(device, set())
        for device in ("all", "default", *LINKS):
            self.sysctls.setdefault(f"net.ipv4.conf.{device}.forwarding", "0")
            self.sysctls.setdefault(f"net.ipv6.conf.{device}.forwarding", "0")
            self.sysctls.setdefault(f"net.ipv6.conf.{device}.accept_ra", "1")

    def actual(self) -> Actual:
        return Actual(
            devices={
                device: DeviceState(
                    tree=self.tc.observe(device).tree,
                    has_clsact=device in self.clsact,
                    classifier=self.classifiers.get(device),
                    xdp=self.xdp.get(device),
                    addresses=frozenset(self.addresses[device]),
                )
                for device in ENVIRONMENT.mtu
            },
            digests=tuple(sorted(self.digests)),
            complete=frozenset(self.digests),
            pins=bool(self.digests),
            sysctls=dict(self.sysctls),
            tables=Tables(
                dict(self.services), dict(self.backends), dict(self.classes), self.default_class
            ),
        )

    def execute(self, operation: ops.Operation) -> None:
        if isinstance(operation, TcOperation):
            self.tc.execute(operation)
            self.tc.executed.clear()  # only the state is compared
        elif not (self._device(operation) or self._table(operation)):
            raise AssertionError(f"unknown operation {operation}")

    def _device(self, operation: ops.Operation) -> bool:
        match operation:
            case ops.LoadPrograms(digest):
                self.digests.add(digest)
            case ops.RemovePrograms(digest):
                in_use = [*self.classifiers.values(), *self.xdp.values()]
                assert not any(program.startswith(f"{digest}/") for program in in_use)
                self.digests.remove(digest)
            case ops.RemovePins():
                assert not self.xdp
                assert not self.classifiers
                self.digests.clear()
                self._clear_tables()
            case ops.SetSysctl(name, value):
                self._set_sysctl(name, value)
            case ops.AddAddress(device, address):
                assert address not in self.addresses[device]
                self.addresses[device].add(address)
            case ops.RemoveAddress(device, address):
                self.addresses[device].remove(address)
            case ops.AddClsact(device):
                assert device not in self.clsact
                self.clsact.add(device)
            case ops.RemoveClsact(device):
                assert device not in self.classifiers
                self.clsact.remove(device)
            case ops.AttachClassifier(device, program, digest):
                assert device in self.clsact
                assert digest in self.digests
                self.classifiers[device] = f"{digest}/{program}"
            case ops.DetachClassifier(device):
                del self.classifiers[device]
            case ops.AttachXdp(device, digest):
                assert digest in self.digests
                self.xdp[device] = f"{digest}/xdp_balance"
            case ops.DetachXdp(device):
                del self.xdp[device]
            case _:
                return False
        return True

    def _table(self, operation: ops.Operation) -> bool:
        assert self.digests, "tables need loaded programs"
        match operation:
            case ops.PutBackend(entry):
                self.backends[entry.index] = entry
            case ops.PutService(service_entry):
                assert set(service_entry.schedule.backends) <= self.backends.keys()
                self.services[service_entry.key] = service_entry
            case ops.RemoveService(key):
                del self.services[key]
            case ops.PutServiceClass(service_id, classid):
                self._require_class(classid)
                self.classes[service_id] = classid
            case ops.PutDefaultClass(classid):
                self._require_class(classid)
                self.default_class = classid
            case _:
                return False
        return True

    def assert_nothing_leaves_unshaped(self) -> None:
        """HTB sends out directly what belongs to no class, unless its default class exists."""
        for device in ENVIRONMENT.mtu:
            tree = self.tc.observe(device).tree
            leaves = {leaf.class_minor for leaf in tree.leaves} if tree else set()
            assert tree is None or tree.default_minor in leaves

    def _require_class(self, classid: int) -> None:
        """A map must never point at a class that no device has."""
        if not classid:
            return
        assert classid >> 16 == MAJOR
        trees = [self.tc.observe(device).tree for device in ENVIRONMENT.mtu]
        minors = {spec.minor for tree in trees if tree for spec in tree.classes}
        assert classid & 0xFFFF in minors

    def _set_sysctl(self, name: str, value: str) -> None:
        """As addrconf_fixup_forwarding() and devinet_sysctl_forward() do."""
        assert name in self.sysctls
        self.sysctls[name] = value
        head, everything, key = name.partition(".all.")
        if everything:
            for other in self.sysctls:
                if other.startswith(f"{head}.") and other.endswith(f".{key}"):
                    self.sysctls[other] = value
        if name.startswith("net.ipv6") and name.endswith(".forwarding") and value == "1":
            self.announced_routes = {
                device
                for device in self.announced_routes
                if self.sysctls[f"net.ipv6.conf.{device}.accept_ra"] == "2"
            }

    def _clear_tables(self) -> None:
        self.services.clear()
        self.backends.clear()
        self.classes.clear()
        self.default_class = 0
