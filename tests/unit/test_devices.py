"""Devices are known by their index, not by their name."""

from __future__ import annotations

from ipaddress import ip_address

from shaper.agent.devices import follow_devices
from shaper.agent.namespaces import NetworkNamespace
from shaper.agent.store import StoredState
from shaper.reconcile.plan import Ledger

VIP = ip_address("198.51.100.10")
STATE = StoredState(
    boot_id="b",
    network_namespace=NetworkNamespace(1, 1),
    devices={"eth0": 2, "eth0.100": 3},
    ledger=Ledger(
        {
            "net.ipv6.conf.all.forwarding": "0",
            "net.ipv6.conf.other.forwarding": "1",
            "net.ipv4.conf.eth0.forwarding": "0",
            "net.ipv4.conf.eth0.100.forwarding": "0",
        },
        frozenset({("eth0", VIP)}),
        frozenset({"eth0", "eth0.100"}),
    ),
)


def test_nothing_changes_while_names_stay() -> None:
    assert follow_devices(STATE, {1: "lo", 2: "eth0", 3: "eth0.100"}) is STATE


def test_a_renamed_device_takes_its_ledger_along() -> None:
    state = follow_devices(STATE, {2: "wan", 3: "eth0.100"})
    assert state.devices == {"wan": 2, "eth0.100": 3}
    assert state.ledger.addresses == {("wan", VIP)}
    assert state.ledger.clsact == {"wan", "eth0.100"}
    assert state.ledger.sysctls == {
        "net.ipv6.conf.all.forwarding": "0",
        "net.ipv6.conf.other.forwarding": "1",
        "net.ipv4.conf.wan.forwarding": "0",
        "net.ipv4.conf.eth0.100.forwarding": "0",
    }


def test_a_device_that_is_gone_is_forgotten_even_where_its_name_lives_on() -> None:
    state = follow_devices(STATE, {9: "eth0", 3: "eth0.100"})
    assert state.devices == {"eth0.100": 3}
    assert state.ledger.addresses == frozenset()
    assert state.ledger.clsact == {"eth0.100"}
    assert "net.ipv4.conf.eth0.forwarding" not in state.ledger.sysctls
