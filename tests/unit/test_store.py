"""The state file survives, and says so when it does not."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from shaper.agent import store as store_module
from shaper.agent.namespaces import NetworkNamespace
from shaper.agent.store import Store, StoredState, boot_id
from shaper.errors import ShaperError
from shaper.instance import Instance
from shaper.reconcile.handles import Handles
from shaper.reconcile.plan import Ledger

STATE = StoredState(
    boot_id=boot_id(),
    network_namespace=NetworkNamespace(7, 9),
    generation=3,
    text="version: 1\n",
    features=("WITH_IPV6",),
    digest="d",
    devices={"eth0": 2},
    handles=Handles({"web": 16}, {"www": 0}, {"www/s1@203.0.113.1:80": 4}, (1, 2), (3,)),
    ledger=Ledger(
        {"net.ipv6.conf.all.forwarding": "0", "net.ipv6.conf.eth0.forwarding": "1"},
        frozenset({("eth0", ip_address("198.51.100.10"))}),
        frozenset({"eth0"}),
    ),
    warnings=("w",),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(Instance, "state", property(lambda self: tmp_path / self.name))
    return Store(Instance("test"))


def test_what_was_saved_is_loaded(store: Store) -> None:
    assert store.load() is None
    store.save(STATE)
    assert store.load() == STATE


def test_the_order_of_sysctls_is_kept(store: Store) -> None:
    store.save(STATE)
    loaded = store.load()
    assert loaded is not None
    assert list(loaded.ledger.sysctls) == list(STATE.ledger.sysctls)


def test_after_a_reboot_only_numbers_and_text_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(STATE)
    monkeypatch.setattr(store_module, "boot_id", lambda: "another")
    loaded = store.load()
    assert loaded is not None
    assert loaded.handles == STATE.handles
    assert loaded.text == STATE.text
    assert loaded.ledger == Ledger()
    assert loaded.devices == {}


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", json.dumps({"version": 99})])
def test_a_damaged_file_is_named(store: Store, tmp_path: Path, damage: str) -> None:
    store.save(STATE)
    (tmp_path / "test" / "state.json").write_text(damage)
    with pytest.raises(ShaperError, match=r"state\.json is damaged"):
        store.load()


def test_remove_takes_the_folder_along(store: Store, tmp_path: Path) -> None:
    store.save(STATE)
    store.remove()
    assert not (tmp_path / "test").exists()
