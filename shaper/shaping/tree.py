"""The class tree of one device, as HTB will have it.

HTB's inner classes cannot hold packets, but a class of the configuration may have children *and*
be used directly. Such a class becomes two: an inner class, and below it, beside the children, a
direct leaf for its own packets.

The minor of a class is allocated by a key that says where in the tree the class stands and in
which role: `web` is a leaf, `web/` the inner class, `web/.` its direct leaf, `web/api` a child. So
a class that moves or changes its role is another class with another minor: it is made first, the
traffic then pointed at it, the old one retired. HTB could not change it in place anyway: the parent
is fixed, and an inner class takes no new priority or quantum. One tree shape serves every device,
because a service's packets carry one minor wherever they leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from shaper.model import Gateway, Interface, Leaf, TrafficClass
from shaper.shaping.htb import burst_bytes, quantum_bytes, whole_rate
from shaper.shaping.leaf import LeafOptions, LeafSpec, resolve_leaf

MAJOR: Final = 0x5348
"""Handle major of the root qdisc: the mark by which our own is recognised."""

ROOT_MINOR: Final = 1
MAX_CLASS_DEPTH: Final = 7
"""Levels of configured classes: TC_HTB_MAXDEPTH (8) less the root class."""

_MIN_DIRECT_BPS: Final = 8_000
_MIN_DIRECT_SHARE: Final = 100


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One HTB class. `parent_minor` 0: the root qdisc itself. `name` is the key, for people."""

    minor: int
    parent_minor: int
    rate_bps: int
    ceil_bps: int
    priority: int
    burst_bytes: int
    cburst_bytes: int
    quantum_bytes: int
    name: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TcTree:
    """Everything below the root qdisc of a device.

    `classes` has parents before children, first the root class. `default_minor` is where HTB puts
    packets of no class that the device has; it is fixed when the qdisc is made.
    """

    device: str
    default_minor: int
    classes: tuple[ClassSpec, ...]
    leaves: tuple[LeafSpec, ...]


def valid_minor(minor: int) -> bool:
    """Whether a class may have this minor.

    Its leaf's handle is `minor:0`, so the root's major and the one of clsact and TC_H_ROOT (0xffff)
    are out. Those below 0x10 are kept for classes of a fixed minor, as the root class is.
    """
    return 0x10 <= minor <= 0xFFEF and minor != MAJOR


def class_keys(gateway: Gateway) -> tuple[str, ...]:
    """Every key that needs a minor, in the order of the file."""
    keys: list[str] = []
    paths = _paths(gateway)
    inner = _inner_names(gateway)
    for item in gateway.classes:
        path = paths[item.name]
        keys += [f"{path}/", f"{path}/."] if item.name in inner else [path]
    return tuple(keys)


def class_key(gateway: Gateway, class_name: str) -> str:
    """Key of the HTB class that stands for the whole of a class, its children included."""
    path = _paths(gateway)[class_name]
    return f"{path}/" if class_name in _inner_names(gateway) else path


def target_minor(gateway: Gateway, class_name: str, minors: Mapping[str, int]) -> int:
    """Minor of the leaf class that packets of class `class_name` are sent to."""
    return minors[_target_key(gateway, class_name)]


def build_tree(
    gateway: Gateway,
    interface: Interface,
    minors: Mapping[str, int],
    mtu: int,
    leaf_kinds: frozenset[str],
) -> TcTree | None:
    """The tree of one interface; None where it sets no bandwidth.

    Rates and ceils are clipped to the interface's bandwidth. A class that is not on the interface,
    or whose parent is not, is left out. The default class is on every interface with a bandwidth:
    `shaper.config.checks.classes` sees to it.

    Args:
        minors: key -> minor, for every one of `class_keys`.
        mtu: of the device, in bytes.
        leaf_kinds: what the kernel has.
    Raises:
        KernelError: a leaf qdisc that is named explicitly and that the kernel lacks.
    """
    if interface.bandwidth_bps is None or gateway.default_class is None:
        return None
    return _Builder(
        gateway,
        interface,
        interface.bandwidth_bps,
        gateway.default_class,
        minors,
        mtu,
        leaf_kinds,
    ).build()


@dataclass(slots=True)
class _Builder:
    gateway: Gateway
    interface: Interface
    bandwidth_bps: int
    default_class: str
    minors: Mapping[str, int]
    mtu: int
    leaf_kinds: frozenset[str]
    _classes: list[ClassSpec] = field(default_factory=list)
    _leaves: list[LeafSpec] = field(default_factory=list)
    _inner: frozenset[str] = frozenset()

    def build(self) -> TcTree:
        self._inner = _inner_names(self.gateway)
        self._add_class(ROOT_MINOR, 0, self.bandwidth_bps, self.bandwidth_bps, 0, "root")
        for item in self._members(None):
            self._add(item, ROOT_MINOR, item.name)
        default_minor = target_minor(self.gateway, self.default_class, self.minors)
        return TcTree(
            self.interface.device, default_minor, tuple(self._classes), tuple(self._leaves)
        )

    def _members(self, parent: str | None) -> list[TrafficClass]:
        return [
            item
            for item in self.gateway.classes
            if item.parent == parent and self.interface.name in item.interfaces
        ]

    def _add(self, item: TrafficClass, parent_minor: int, path: str) -> None:
        rate, ceil = item.rate_bps, item.ceil_bps
        if item.name not in self._inner:
            self._add_leaf(path, parent_minor, rate, ceil, item.priority, item.leaf)
            return
        minor = self.minors[f"{path}/"]
        self._add_class(minor, parent_minor, rate, ceil, item.priority, f"{path}/")
        children = self._members(item.name)
        own = _remainder(rate, children)
        self._add_leaf(f"{path}/.", minor, own, ceil, item.priority, item.leaf)
        for child in children:
            self._add(child, minor, f"{path}/{child.name}")

    def _add_leaf(
        self, key: str, parent_minor: int, rate: int, ceil: int, priority: int, leaf: Leaf
    ) -> None:
        minor = self.minors[key]
        options: LeafOptions = resolve_leaf(leaf, self.mtu, self.leaf_kinds)
        self._add_class(minor, parent_minor, rate, ceil, priority, key)
        self._leaves.append(LeafSpec(minor, options, key))

    def _add_class(
        self, minor: int, parent_minor: int, rate: int, ceil: int, priority: int, name: str
    ) -> None:
        rate = whole_rate(min(rate, self.bandwidth_bps))
        ceil = whole_rate(min(ceil, self.bandwidth_bps))
        self._classes.append(
            ClassSpec(
                minor=minor,
                parent_minor=parent_minor,
                rate_bps=rate,
                ceil_bps=ceil,
                priority=priority,
                burst_bytes=burst_bytes(rate, self.mtu),
                cburst_bytes=burst_bytes(ceil, self.mtu),
                quantum_bytes=quantum_bytes(rate, self.mtu),
                name=name,
            )
        )


def _remainder(rate_bps: int, children: list[TrafficClass]) -> int:
    """What children leave of a rate; a hundredth at least, so that nothing starves."""
    left = rate_bps - sum(child.rate_bps for child in children)
    return min(rate_bps, max(left, rate_bps // _MIN_DIRECT_SHARE, _MIN_DIRECT_BPS))


def _target_key(gateway: Gateway, class_name: str) -> str:
    path = _paths(gateway)[class_name]
    return f"{path}/." if class_name in _inner_names(gateway) else path


def _inner_names(gateway: Gateway) -> frozenset[str]:
    return frozenset(item.parent for item in gateway.classes if item.parent is not None)


def _paths(gateway: Gateway) -> dict[str, str]:
    by_name = {item.name: item for item in gateway.classes}
    return {name: "/".join(_ancestry(by_name, name)) for name in by_name}


def _ancestry(by_name: Mapping[str, TrafficClass], name: str) -> Iterator[str]:
    """Names from the top-level class down to `name`."""
    parent = by_name[name].parent
    if parent is not None:
        yield from _ancestry(by_name, parent)
    yield name
