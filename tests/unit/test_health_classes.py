"""Which tc class the health checks of a service go by."""

from __future__ import annotations

from shaper.model import Gateway
from shaper.reconcile.desired import desired_tables, service_classids
from shaper.reconcile.handles import Handles, allocate
from tests.unit.machine import gateway, service, traffic_class


def test_checks_go_by_the_class_of_the_service_as_its_flows_do() -> None:
    """A class with children has its own packets in a leaf beside them."""
    wanted = gateway(
        classes=(traffic_class("web"), traffic_class("api", parent="web"), traffic_class("bulk")),
        services=(
            service("www"),
            service("www6", "2001:db8:10::10"),
            service("api", "198.51.100.11", class_name="api"),
            service("other", "198.51.100.12", class_name=None),
        ),
    )
    handles = allocate(Handles(), wanted)
    classids = service_classids(wanted, handles)
    assert classids == {
        "www": 0x5348 << 16 | handles.classes["web/."],
        "www6": 0x5348 << 16 | handles.classes["web/."],
        "api": 0x5348 << 16 | handles.classes["web/api"],
    }
    flows = desired_tables(wanted, {}, handles).service_classes
    assert {name: flows[handles.services[name]] for name in classids} == classids


def test_checks_have_no_class_where_nothing_is_shaped() -> None:
    unshaped: Gateway = gateway(
        classes=(), default_class=None, services=(service(class_name=None),)
    )
    assert service_classids(unshaped, allocate(Handles(), unshaped)) == {}
