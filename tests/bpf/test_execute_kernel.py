"""Operations executed by themselves, as a plan that comes late finds them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from shaper.balance.schedule import Schedule
from shaper.errors import KernelError
from shaper.instance import Instance
from shaper.kernel import libbpf
from shaper.kernel.attach import Attachments
from shaper.kernel.compile import ProgramObject
from shaper.kernel.execute import Executor
from shaper.kernel.links import Links
from shaper.kernel.tc import TrafficControl
from shaper.model import Protocol, Scheduler, Unavailable
from shaper.reconcile import operations as ops
from shaper.reconcile.entries import ServiceEntry, ServiceKey

pytestmark = pytest.mark.bpf

VIP = ip_address("198.51.100.10")
GONE = "shaper-no-dev"


@pytest.fixture
def executor(compiled: ProgramObject) -> Iterator[Executor]:
    """Of an instance with a random name; its object has all maps, and no programs to verify."""
    instance = Instance(f"test-{secrets.token_hex(4)}")
    maps_only = ProgramObject(compiled.digest, compiled.maps, {})
    with Links() as links, Attachments() as attachments, TrafficControl() as tc:
        executor = Executor(instance, links, attachments, tc, maps_only)
        yield executor
        executor.execute(ops.RemovePins())


@pytest.mark.parametrize(
    "operation",
    [
        ops.RemoveAddress(GONE, VIP),
        ops.RemoveClsact(GONE),
        ops.DetachClassifier(GONE),
        ops.DetachXdp(GONE),
        ops.RemovePrograms("0" * 16),
        ops.RemovePins(),
        ops.RemoveService(ServiceKey(VIP, 80, Protocol.TCP)),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_what_is_gone_already_is_no_error(executor: Executor, operation: ops.Operation) -> None:
    executor.execute(operation)


def test_what_needs_the_device_says_that_it_is_gone(executor: Executor) -> None:
    with pytest.raises(KernelError, match=f"there is no device {GONE}"):
        executor.execute(ops.AddAddress(GONE, VIP))


def test_the_services_are_walked_once_in_a_plan(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    walk = libbpf.map_next_key

    def counted(*args: object) -> bool:
        nonlocal steps
        steps += 1
        return walk(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(libbpf, "map_next_key", counted)
    for port in range(1, 101):
        key = ServiceKey(VIP, port, Protocol.TCP)
        entry = ServiceEntry(
            key, 1, Scheduler.ROUND_ROBIN, Unavailable.REJECT, Schedule((1,), (1000,))
        )
        executor.execute(ops.PutService(entry))
    assert steps == 1
