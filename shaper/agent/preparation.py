"""What every change begins with: look at the kernel, decide what differs.

A `Session` holds the netlink sockets of one call; `prepare` observes and plans, changing nothing.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from shaper.agent.store import StoredState
from shaper.errors import KernelError
from shaper.instance import Instance
from shaper.kernel.attach import Attachments
from shaper.kernel.compile import ProgramObject, compile_object
from shaper.kernel.execute import Executor
from shaper.kernel.links import Links
from shaper.kernel.observe import Observer
from shaper.kernel.probe import atomic_fetch
from shaper.kernel.tc import TrafficControl
from shaper.model import Gateway, Runtime
from shaper.reconcile.desired import Desired, Environment, desired_state, features
from shaper.reconcile.handles import Handles, allocate
from shaper.reconcile.plan import Actual, Plan, plan_apply
from shaper.shaping.leaf import leaf_warnings


class Session:
    """Netlink sockets in the network namespace of the calling thread, closed with `stack`."""

    def __init__(self, instance: Instance, stack: ExitStack) -> None:
        self._instance = instance
        self.links = stack.enter_context(Links())
        self.attachments = stack.enter_context(Attachments())
        self.tc = stack.enter_context(TrafficControl())
        self.observer = Observer(self.links, self.attachments, self.tc, instance.pins)

    def executor(self, compiled: ProgramObject | None) -> Executor:
        return Executor(self._instance, self.links, self.attachments, self.tc, compiled)

    def indices(self, gateway: Gateway) -> dict[str, int]:
        """Device -> index. Raises KernelError where one is missing."""
        return {
            interface.device: self.links.get(interface.device).index
            for interface in gateway.interfaces
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with what it was made from."""

    plan: Plan
    desired: Desired
    actual: Actual
    handles: Handles
    compiled: ProgramObject
    warnings: tuple[str, ...]


def prepare(session: Session, state: StoredState, gateway: Gateway, runtime: Runtime) -> Prepared:
    """What leads from the kernel's present state to what `gateway` asks for.

    Raises:
        KernelError: a device is missing, somebody else holds it, or the kernel lacks a feature.
    """
    environment = Environment(
        mtu={i.device: session.links.get(i.device).mtu for i in gateway.interfaces},
        leaf_kinds=session.tc.leaf_kinds(),
        atomic_fetch=atomic_fetch(),
    )
    compiled = compile_object(features(gateway, environment.atomic_fetch))
    observed = session.observer.observe(state.devices.keys() | environment.mtu.keys(), compiled)
    handles = allocate(
        state.handles, gateway, _busy_minors(observed), session.observer.busy_backends(compiled)
    )
    desired = desired_state(gateway, runtime, handles, environment)
    _refuse_foreign(session, desired, observed)
    sysctls = session.observer.sysctls({*desired.sysctls, *state.ledger.sysctls})
    actual = replace(observed, sysctls=sysctls)
    return Prepared(
        plan=plan_apply(desired, actual, state.ledger, compiled.digest),
        desired=desired,
        actual=actual,
        handles=handles,
        compiled=compiled,
        warnings=leaf_warnings(gateway, environment.leaf_kinds),
    )


def _busy_minors(actual: Actual) -> frozenset[int]:
    return frozenset(
        spec.minor
        for state in actual.devices.values()
        if state.tree is not None
        for spec in state.tree.classes
    )


def _refuse_foreign(session: Session, desired: Desired, actual: Actual) -> None:
    """Raises KernelError where somebody else holds what `desired` needs; nothing is replaced."""
    for device, state in actual.devices.items():
        if device in desired.trees and state.foreign_qdisc:
            raise KernelError(
                f"{device} has a root qdisc that shaper did not make ({state.foreign_qdisc})",
                f"remove it first: tc qdisc del dev {device} root",
            )
        if device in desired.xdp_devices and state.foreign_xdp:
            raise KernelError(
                f"{device} has an XDP program that shaper did not attach",
                f"remove it first: ip link set dev {device} xdp off",
            )
        if device in desired.classifiers:
            _refuse_unfit(session, device, state.has_clsact)


def _refuse_unfit(session: Session, device: str, has_clsact: bool) -> None:
    """Raises KernelError for a device on which our programs would see nothing, or cannot be."""
    link = session.links.get(device)
    if not link.ethernet:
        raise KernelError(
            f"{device} has no Ethernet header (a tunnel?), and shaper parses Ethernet only",
            "put it on the Ethernet device below, or on a bridge or veth in front",
        )
    if not has_clsact and session.attachments.has_ingress(link.index):
        raise KernelError(
            f"{device} has an ingress qdisc, where shaper needs clsact",
            f"clsact takes the same filters: tc qdisc replace dev {device} clsact, then add them",
        )
