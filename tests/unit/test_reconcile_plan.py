"""The planner against a machine in memory: complete, minimal, restartable at every point."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from shaper.model import BackendRuntime, Gateway, Runtime, Scheduler
from shaper.reconcile import operations as ops
from shaper.reconcile.desired import desired_state
from shaper.reconcile.handles import Handles, allocate
from shaper.reconcile.plan import Ledger, Plan, plan_apply, plan_down
from tests.unit.machine import ENVIRONMENT, Machine, gateway, service, traffic_class

FULL = gateway()
NESTED = gateway(
    classes=(traffic_class("web"), traffic_class("api", "web", 10**7), traffic_class("bulk"))
)
IPV6 = gateway(services=(service(address="2001:db8::10"),))
BARE = replace(
    gateway(classes=(), services=(), default_class=None),
    interfaces=tuple(replace(item, bandwidth_bps=None) for item in FULL.interfaces),
)
CONFIGURATIONS = {
    "full": FULL,
    "nested classes": NESTED,
    "ipv6": IPV6,
    "nothing": BARE,
    "unshaped": replace(
        gateway(services=(service(class_name=None),), classes=(), default_class=None),
        interfaces=BARE.interfaces,
    ),
    "two services": gateway(
        services=(service(), service("dns", "198.51.100.11", 3, None, Scheduler.MAGLEV))
    ),
    "other default": gateway(default_class="web"),
    "fewer backends": gateway(services=(service(backends=1),)),
}


def make_plan(
    machine: Machine, wanted: Gateway, handles: Handles, ledger: Ledger, runtime: Runtime
) -> tuple[Plan, Handles]:
    actual = machine.actual()
    minors = {
        spec.minor for state in actual.devices.values() if state.tree for spec in state.tree.classes
    }
    numbers = allocate(handles, wanted, minors)
    desired = desired_state(wanted, runtime, numbers, ENVIRONMENT)
    return plan_apply(desired, actual, ledger, "-".join(desired.features) or "none"), numbers


def converge(
    machine: Machine,
    wanted: Gateway,
    handles: Handles | None = None,
    ledger: Ledger | None = None,
    runtime: Runtime | None = None,
) -> tuple[Handles, Ledger, Sequence[ops.Operation]]:
    plan, numbers = make_plan(
        machine, wanted, handles or Handles(), ledger or Ledger(), runtime or {}
    )
    for operation in plan.operations:
        machine.execute(operation)
    again, _ = make_plan(machine, wanted, numbers, plan.ledger, runtime or {})
    assert again.operations == ()
    return numbers, plan.ledger, plan.operations


@pytest.mark.parametrize("before", CONFIGURATIONS)
@pytest.mark.parametrize("after", CONFIGURATIONS)
def test_every_configuration_leads_to_every_other(before: str, after: str) -> None:
    machine = Machine()
    handles, ledger, _ = converge(machine, CONFIGURATIONS[before])
    converge(machine, CONFIGURATIONS[after], handles, ledger)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_down_leaves_the_machine_as_it_was(name: str) -> None:
    machine = Machine()
    machine.sysctls["net.ipv6.conf.eth1.forwarding"] = "1"
    machine.addresses["eth0"].add(ip_address("198.51.100.1"))
    pristine = copy.deepcopy(machine)
    _, ledger, _ = converge(machine, CONFIGURATIONS[name])
    for operation in plan_down(machine.actual(), ledger).operations:
        machine.execute(operation)
    assert machine == pristine


@pytest.mark.parametrize("then", ["apply", "down"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_stop_at_any_operation_can_be_repaired(name: str, then: str) -> None:
    wanted = CONFIGURATIONS[name]
    pristine = Machine()
    plan, numbers = make_plan(pristine, wanted, Handles(), Ledger(), {})
    for stop in range(len(plan.operations) + 1):
        machine = Machine()
        for operation in plan.operations[:stop]:
            machine.execute(operation)
        if then == "apply":
            converge(machine, wanted, numbers, plan.ledger)
            continue
        for operation in plan_down(machine.actual(), plan.ledger).operations:
            machine.execute(operation)
        assert machine == pristine


def test_an_address_that_was_there_before_is_not_taken_away() -> None:
    machine = Machine()
    machine.addresses["eth0"].add(ip_address("198.51.100.10"))
    _, ledger, done = converge(machine, FULL)
    assert not any(isinstance(operation, ops.AddAddress) for operation in done)
    for operation in plan_down(machine.actual(), ledger).operations:
        machine.execute(operation)
    assert ip_address("198.51.100.10") in machine.addresses["eth0"]


def test_a_changed_rate_is_one_change_per_device() -> None:
    machine = Machine()
    handles, ledger, _ = converge(machine, FULL)
    faster = gateway(classes=(traffic_class("web", rate_bps=2 * 10**8), traffic_class("bulk")))
    _, _, done = converge(machine, faster, handles, ledger)
    assert [type(operation).__name__ for operation in done] == ["ChangeClass", "ChangeClass"]


def test_a_down_backend_changes_its_flag_and_the_schedule_only() -> None:
    machine = Machine()
    handles, ledger, _ = converge(machine, FULL)
    runtime = {("www", "s1"): BackendRuntime(up=False)}
    _, _, done = converge(machine, FULL, handles, ledger, runtime)
    assert [type(operation).__name__ for operation in done] == ["PutBackend", "PutService"]
    (entry,) = machine.services.values()
    assert set(entry.schedule.backends) == {handles.backends["www/s2@203.0.113.2:8080"]}


def test_a_removed_backend_keeps_its_entry_for_the_flows_that_exist() -> None:
    machine = Machine()
    handles, ledger, _ = converge(machine, FULL)
    gone = handles.backends["www/s2@203.0.113.2:8080"]
    converge(machine, gateway(services=(service(backends=1),)), handles, ledger)
    assert str(machine.backends[gone].address) == "203.0.113.2"
    assert machine.backends[gone].flag_names() == "up"


def test_every_operation_says_what_it_does() -> None:
    plan, _ = make_plan(Machine(), CONFIGURATIONS["ipv6"], Handles(), Ledger(), {})
    for operation in plan.operations:
        assert len(operation.describe()) > 5
        assert "object at 0x" not in operation.describe()
