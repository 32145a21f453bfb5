"""The planner against a machine in memory: complete, minimal, restartable at every point."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from shaper.balance.schedule import MAX_SLOTS, maglev_size
from shaper.errors import KernelError
from shaper.model import (
    MAX_BACKENDS_PER_SERVICE,
    MAX_SERVICES,
    BackendRuntime,
    Gateway,
    Runtime,
    Scheduler,
)
from shaper.reconcile import operations as ops
from shaper.reconcile.desired import SLOT_BUDGET, desired_state
from shaper.reconcile.handles import Handles, allocate
from shaper.reconcile.plan import Ledger, Plan, plan_apply, plan_down, settled
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
    "renamed default": gateway(
        classes=(traffic_class("web"), traffic_class("rest")), default_class="rest"
    ),
    "both versions": gateway(services=(service(), service("www6", "2001:db8::10"))),
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
    machine.assert_nothing_leaves_unshaped()
    desired = desired_state(wanted, runtime or {}, numbers, ENVIRONMENT)
    return numbers, settled(plan.ledger, desired), plan.operations


def take_down(machine: Machine, ledger: Ledger) -> None:
    for operation in plan_down(machine.actual(), ledger).operations:
        machine.execute(operation)


def machine_of_others() -> Machine:
    """With settings and an address that are not shaper's."""
    machine = Machine()
    machine.sysctls["net.ipv6.conf.eth1.forwarding"] = "1"
    machine.sysctls["net.ipv6.conf.eth0.accept_ra"] = "0"
    machine.addresses["eth0"].add(ip_address("198.51.100.1"))
    machine.announced_routes.remove("eth0")
    return machine


@pytest.mark.parametrize("before", CONFIGURATIONS)
@pytest.mark.parametrize("after", CONFIGURATIONS)
def test_every_configuration_leads_to_every_other(before: str, after: str) -> None:
    machine = machine_of_others()
    handles, ledger, _ = converge(machine, CONFIGURATIONS[before])
    _, ledger, _ = converge(machine, CONFIGURATIONS[after], handles, ledger)
    take_down(machine, ledger)
    assert machine == machine_of_others()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_down_leaves_the_machine_as_it_was(name: str) -> None:
    machine = machine_of_others()
    _, ledger, _ = converge(machine, CONFIGURATIONS[name])
    take_down(machine, ledger)
    assert machine == machine_of_others()


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
        take_down(machine, plan.ledger)
        assert machine == pristine


EDITS = [
    ("both versions", "full"),
    ("ipv6", "nothing"),
    ("full", "renamed default"),
    ("nested classes", "other default"),
    ("two services", "unshaped"),
]


@pytest.mark.parametrize("then", ["the new", "the old", "down"])
@pytest.mark.parametrize(("before", "after"), EDITS)
def test_an_edit_stopped_at_any_operation_can_be_repaired(
    before: str, after: str, then: str
) -> None:
    """Also the ledger: an edit that was stopped has forgotten nothing that is not given back."""
    start = machine_of_others()
    old, ledger, _ = converge(start, CONFIGURATIONS[before])
    plan, new = make_plan(start, CONFIGURATIONS[after], old, ledger, {})
    for stop in range(len(plan.operations) + 1):
        machine = copy.deepcopy(start)
        for operation in plan.operations[:stop]:
            machine.execute(operation)
        noted = plan.ledger
        if then != "down":
            wanted = CONFIGURATIONS[after if then == "the new" else before]
            _, noted, _ = converge(machine, wanted, old.union(new), noted)
        take_down(machine, noted)
        assert machine == machine_of_others()


def test_an_address_that_was_there_before_is_not_taken_away() -> None:
    machine = Machine()
    machine.addresses["eth0"].add(ip_address("198.51.100.10"))
    _, ledger, done = converge(machine, FULL)
    assert not any(isinstance(operation, ops.AddAddress) for operation in done)
    take_down(machine, ledger)
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
    assert machine.backends[gone].flag_names() == "down"


def test_every_operation_says_what_it_does() -> None:
    plan, _ = make_plan(Machine(), CONFIGURATIONS["ipv6"], Handles(), Ledger(), {})
    for operation in plan.operations:
        assert len(operation.describe()) > 5
        assert "object at 0x" not in operation.describe()


def test_routing_starts_first_and_stops_last() -> None:
    machine = Machine()
    handles, ledger, done = converge(machine, CONFIGURATIONS["both versions"])
    kinds = [type(operation) for operation in done]
    last_set = max(place for place, kind in enumerate(kinds) if kind is ops.SetSysctl)
    assert last_set < kinds.index(ops.PutService) < kinds.index(ops.AddAddress)
    _, _, done = converge(machine, BARE, handles, ledger)
    kinds = [type(operation) for operation in done]
    first_restore = kinds.index(ops.SetSysctl)
    assert ops.RemoveService in kinds[:first_restore]
    assert ops.RemoveAddress in kinds[:first_restore]
    assert set(kinds[first_restore:]) == {ops.SetSysctl, ops.RemovePrograms}


def test_what_an_edit_gives_back_is_noted_until_the_edit_is_through() -> None:
    machine = machine_of_others()
    handles, ledger, _ = converge(machine, IPV6)
    plan, _ = make_plan(machine, FULL, handles, ledger, {})
    assert ledger.sysctls.items() <= plan.ledger.sysctls.items()
    _, after, _ = converge(machine, FULL, handles, ledger)
    assert all(name.startswith("net.ipv4.") for name in after.sysctls)


def test_many_ports_take_no_more_slots_than_one() -> None:
    """All ports of a service share its schedule, so the budget is by service."""
    wanted = gateway(
        services=(
            service(
                backends=50, scheduler=Scheduler.LEAST_CONNECTIONS, ports=tuple(range(1, 8001))
            ),
            service("one", "198.51.100.11", 50, scheduler=Scheduler.MAGLEV),
        )
    )
    handles = allocate(Handles(), wanted)
    tables = desired_state(wanted, {}, handles, ENVIRONMENT).tables
    schedules = {id(entry.schedule): entry.schedule for entry in tables.services.values()}
    assert sorted(len(schedule.backends) for schedule in schedules.values()) == [50, 8191]


def test_the_most_services_leave_room_for_the_most_backends() -> None:
    share = SLOT_BUDGET // MAX_SERVICES
    assert maglev_size(MAX_BACKENDS_PER_SERVICE, share) >= MAX_BACKENDS_PER_SERVICE
    assert share >= MAX_BACKENDS_PER_SERVICE
    assert 2 * SLOT_BUDGET <= MAX_SLOTS


@pytest.mark.parametrize(
    ("wanted", "gone", "message", "hint"),
    [
        (FULL, "net.ipv4.conf.eth1.forwarding", "^eth1: there is no sysctl", "MTU"),
        (IPV6, "net.ipv6.conf.all.forwarding", "which services with IPv6", "ipv6.disable=1"),
    ],
)
def test_a_sysctl_that_the_kernel_lacks_is_said(
    wanted: Gateway, gone: str, message: str, hint: str
) -> None:
    machine = Machine()
    del machine.sysctls[gone]
    with pytest.raises(KernelError, match=message) as caught:
        make_plan(machine, wanted, Handles(), Ledger(), {})
    assert hint in caught.value.hint


def test_announced_routes_survive_that_ipv6_is_forwarded() -> None:
    machine = machine_of_others()
    _, ledger, done = converge(machine, IPV6)
    assert machine.announced_routes == {"eth1", "eth2.7"}
    assert [operation.describe() for operation in done if isinstance(operation, ops.SetSysctl)] == [
        "set net.ipv6.conf.eth1.accept_ra = 2 (was 1)",
        "set net.ipv6.conf.eth2.7.accept_ra = 2 (was 1)",
        "set net.ipv6.conf.all.forwarding = 1 (was 0)",
    ]
    take_down(machine, ledger)
    assert machine == machine_of_others()


def test_where_ipv6_was_forwarded_before_nothing_is_touched() -> None:
    machine = Machine()
    for name in machine.sysctls:
        if name.startswith("net.ipv6") and name.endswith(".forwarding"):
            machine.sysctls[name] = "1"
    before = dict(machine.sysctls)
    _, ledger, _ = converge(machine, IPV6)
    assert machine.sysctls == before
    take_down(machine, ledger)
    assert machine.sysctls == before


def test_accept_ra_is_given_back_when_nothing_can_purge_routes_any_more() -> None:
    """In whatever order it was noted: giving a device's forwarding back purges as well."""
    machine = machine_of_others()
    _, ledger, _ = converge(machine, IPV6)
    backwards = dict(reversed(list(ledger.sysctls.items())))
    take_down(machine, replace(ledger, sysctls=backwards))
    assert machine == machine_of_others()
