"""Checks of the section `classes` and of `default_class`: the HTB tree and its sums.

HTB itself checks no sums: rates that exceed the parent's are granted and the parent's rate is then
exceeded (tc-htb(8)). So what cannot hold is refused here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from shaper.config.draft import Draft, ceil_bps
from shaper.config.problems import Problem, nearest
from shaper.config.schema import ClassSpec
from shaper.units import format_rate

MAX_CLASS_DEPTH: Final = 7
"""TC_HTB_MAXDEPTH is 8, and the interface's root class takes the first level."""


def classes_have_bandwidth(draft: Draft) -> Iterator[Problem]:
    if not draft.declared("classes") or draft.bandwidths_bps:
        return
    if not draft.declared("interfaces") or draft.touches_broken(("interfaces",)):
        return
    message = "classes need an interface with a 'bandwidth', and there is none"
    yield draft.at_key(("classes",), message)


def default_class_is_named(draft: Draft) -> Iterator[Problem]:
    if draft.declared("classes") and draft.raw("default_class") is None:
        yield draft.at_key(
            ("classes",), "missing key 'default_class'", "the class of what no service claims"
        )


def classes_exist(draft: Draft) -> Iterator[Problem]:
    """Whatever names a class names one that the file declares."""
    declared = draft.declared("classes")
    if ("classes",) in draft.broken:
        return
    references: list[tuple[tuple[str | int, ...], object]] = [
        (("default_class",), draft.spec.default_class)
    ]
    references += [
        (("classes", name, "parent"), c.parent) for name, c in draft.spec.classes.items()
    ]
    references += [
        (("services", name, "class"), s.class_) for name, s in draft.spec.services.items()
    ]
    for loc, name in references:
        if isinstance(name, str) and name not in declared:
            yield draft.at_value(loc, f"unknown class {name!r}", nearest(name, declared))


def default_class_is_everywhere(draft: Draft) -> Iterator[Problem]:
    name = draft.spec.default_class
    if not isinstance(name, str) or name not in draft.spec.classes:
        return
    if draft.touches_broken(("classes", name, "interfaces")):
        return
    for interface in draft.bandwidths_bps:
        if interface not in draft.interfaces_of(name):
            message = f"default class {name!r} is not on interface {interface!r}"
            yield draft.at_value(("default_class",), message, "every shaped interface needs it")


def class_interfaces_exist(draft: Draft) -> Iterator[Problem]:
    declared = draft.declared("interfaces")
    if not declared:
        return
    for name, spec in draft.spec.classes.items():
        loc = ("classes", name, "interfaces")
        if spec.interfaces == [] and draft.raw(*loc) == []:
            yield draft.at_value(
                loc, "the list of interfaces is empty", "leave the key out for all"
            )
        seen: set[str] = set()
        for index, interface in enumerate(spec.interfaces or []):
            if not isinstance(interface, str):
                continue
            at = (*loc, index)
            if interface in seen:
                yield draft.at_value(at, f"interface {interface!r} stands here twice")
            elif interface not in declared:
                message = f"unknown interface {interface!r}"
                yield draft.at_value(at, message, nearest(interface, declared))
            elif _is_unshaped(draft, interface):
                message = f"interface {interface!r} has no 'bandwidth', so no class can be on it"
                yield draft.at_value(at, message)
            seen.add(interface)


def _is_unshaped(draft: Draft, interface: str) -> bool:
    spec = draft.spec.interfaces.get(interface)
    return spec is not None and spec.bandwidth is None


def child_is_where_parent_is(draft: Draft) -> Iterator[Problem]:
    for name, spec in draft.spec.classes.items():
        parent = draft.parent(name)
        if parent is None or spec.interfaces is None:
            continue
        for index, interface in enumerate(spec.interfaces):
            if interface in draft.bandwidths_bps and interface not in draft.interfaces_of(parent):
                message = f"parent {parent!r} is not on interface {interface!r}"
                yield draft.at_value(("classes", name, "interfaces", index), message)


def no_parent_cycles(draft: Draft) -> Iterator[Problem]:
    """One problem a cycle, at the parent of its first class in the file."""
    reported: set[str] = set()
    for name in draft.spec.classes:
        chain = (name, *draft.ancestors(name))
        if name in reported or not draft.in_cycle(name):
            continue
        reported.update(chain)
        message = f"class {name!r} is its own ancestor: {' -> '.join((*chain, name))}"
        yield draft.at_value(("classes", name, "parent"), message)


def not_too_deep(draft: Draft) -> Iterator[Problem]:
    for name in draft.spec.classes:
        ancestors = draft.ancestors(name)
        if len(ancestors) == MAX_CLASS_DEPTH and draft.parent(ancestors[-1]) is None:
            message = f"class {name!r} is {MAX_CLASS_DEPTH + 1} levels deep"
            hint = f"HTB has room for {MAX_CLASS_DEPTH} below the interface"
            yield draft.at_value(("classes", name, "parent"), message, hint)


def ceil_is_not_below_rate(draft: Draft) -> Iterator[Problem]:
    for name, spec in draft.spec.classes.items():
        rate, ceil = spec.rate, spec.ceil
        if isinstance(rate, int) and isinstance(ceil, int) and ceil < rate:
            message = f"'ceil' ({format_rate(ceil)}) is below 'rate' ({format_rate(rate)})"
            yield draft.at_value(("classes", name, "ceil"), message)


def ceil_fits_above(draft: Draft) -> Iterator[Problem]:
    """A class cannot borrow more than its parent, or else its interface, can send."""
    for name, spec in draft.spec.classes.items():
        ceil = spec.ceil
        if not isinstance(ceil, int) or draft.in_cycle(name):
            continue
        at = ("classes", name, "ceil")
        for limit, what in _limits_above(draft, name):
            if ceil > limit:
                message = f"'ceil' ({format_rate(ceil)}) is above {what} ({format_rate(limit)})"
                yield draft.at_value(at, message)
                break


def _limits_above(draft: Draft, name: str) -> Iterator[tuple[int, str]]:
    parent = draft.parent(name)
    if parent is not None:
        limit = ceil_bps(draft.spec.classes[parent])
        if limit is not None:
            yield limit, f"the ceil of its parent {parent!r}"
    elif draft.spec.classes[name].parent is None:
        for interface in draft.interfaces_of(name):
            if interface in draft.bandwidths_bps:
                limit = draft.bandwidths_bps[interface]
                yield limit, f"the bandwidth of interface {interface!r}"


def top_rates_fit_interface(draft: Draft) -> Iterator[Problem]:
    """At the class whose rate takes the sum over; at most one problem a class."""
    tops = {name: c for name, c in draft.spec.classes.items() if c.parent is None}
    reported: set[str] = set()
    for interface, bandwidth_bps in draft.bandwidths_bps.items():
        here = {name: c for name, c in tops.items() if interface in draft.interfaces_of(name)}
        crossing = _crossing(here.items(), bandwidth_bps)
        if crossing is None or crossing[0] in reported:
            continue
        name, total_bps = crossing
        reported.add(name)
        message = (
            f"the rates of the top-level classes on interface {interface!r} reach "
            f"{format_rate(total_bps)}, above its bandwidth ({format_rate(bandwidth_bps)})"
        )
        yield draft.at_value(("classes", name, "rate"), message)


def child_rates_fit_parent(draft: Draft) -> Iterator[Problem]:
    """At the class whose rate takes the sum over. In a cycle no sum can fit, nor means anything."""
    children: dict[str, list[tuple[str, ClassSpec]]] = defaultdict(list)
    for name, spec in draft.spec.classes.items():
        parent = draft.parent(name)
        if parent is not None and not draft.in_cycle(parent):
            children[parent].append((name, spec))
    for parent, entries in children.items():
        rate_bps = draft.spec.classes[parent].rate
        if not isinstance(rate_bps, int):
            continue
        crossing = _crossing(entries, rate_bps)
        if crossing is not None:
            name, total_bps = crossing
            message = (
                f"the rates of the children of {parent!r} reach {format_rate(total_bps)}, "
                f"above its rate ({format_rate(rate_bps)})"
            )
            yield draft.at_value(("classes", name, "rate"), message)


def _crossing(entries: Iterable[tuple[str, ClassSpec]], limit_bps: int) -> tuple[str, int] | None:
    """The first class whose rate takes the sum above the limit, and that sum."""
    total_bps = 0
    for name, spec in entries:
        total_bps += spec.rate if isinstance(spec.rate, int) else 0
        if total_bps > limit_bps:
            return name, total_bps
    return None


LEAF_KEYS: Final = {
    "auto": ("kind", "limit"),
    "fq_codel": (
        "kind",
        "limit",
        "target",
        "interval",
        "flows",
        "quantum",
        "memory_limit",
        "ecn",
    ),
    "fifo": ("kind", "limit"),
    "cake": ("kind",),
    "fq": ("kind", "limit", "quantum"),
    "sfq": ("kind", "limit", "quantum"),
}


def leaf_keys_fit_kind(draft: Draft) -> Iterator[Problem]:
    for name, spec in draft.spec.classes.items():
        leaf = draft.raw("classes", name, "leaf")
        kind = spec.leaf.kind.value if spec.leaf else None
        if not isinstance(leaf, dict) or kind not in LEAF_KEYS:
            continue
        if draft.touches_broken(("classes", name, "leaf", "kind")):
            continue
        for key in leaf:
            loc = ("classes", name, "leaf", key)
            if key not in LEAF_KEYS[kind] and loc not in draft.broken:
                message = f"leaf {kind!r} has no option {key!r}"
                yield draft.at_key(
                    loc, message, f"it has {', '.join(LEAF_KEYS[kind][1:]) or 'none'}"
                )


def elastic_range_is_ordered(draft: Draft) -> Iterator[Problem]:
    for name, spec in draft.spec.classes.items():
        low, high = (spec.elastic.min, spec.elastic.max) if spec.elastic else (None, None)
        if isinstance(low, int) and isinstance(high, int) and high < low:
            message = f"'max' ({format_rate(high)}) is below 'min' ({format_rate(low)})"
            yield draft.at_value(("classes", name, "elastic", "max"), message)


def class_is_used(draft: Draft) -> Iterator[Problem]:
    used = {draft.spec.default_class}
    used.update(service.class_ for service in draft.spec.services.values())
    used.update(spec.parent for spec in draft.spec.classes.values())
    for name in draft.spec.classes:
        if name not in used:
            yield draft.at_key(("classes", name), f"no service uses class {name!r}")


CHECKS: Final = (
    classes_have_bandwidth,
    default_class_is_named,
    classes_exist,
    default_class_is_everywhere,
    class_interfaces_exist,
    child_is_where_parent_is,
    no_parent_cycles,
    not_too_deep,
    ceil_is_not_below_rate,
    ceil_fits_above,
    top_rates_fit_interface,
    child_rates_fit_parent,
    leaf_keys_fit_kind,
    elastic_range_is_ordered,
)
WARNINGS: Final = (class_is_used,)
