"""Agent, API, socket and client together: the whole process but the kernel, on a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shaper.agent.agent import Agent
from shaper.agent.lock import instance_lock
from shaper.agent.loop import notify_manager, serve
from shaper.api.client import AgentClient
from shaper.api.server import listen
from shaper.errors import KernelError, ShaperError, UsageError
from shaper.instance import Instance
from tests.agent_fakes import FakeEngine, FakeParser, make_gateway, make_service, make_status
from tests.waiting import wait_until

PLAIN = make_gateway(make_service())
BIGGER = make_gateway(make_service(count=3))


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """An instance whose socket and lock are in the test's own folder."""
    monkeypatch.setattr(Instance, "socket", property(lambda _: tmp_path / "run" / "test.sock"))
    monkeypatch.setattr(Instance, "lock", property(lambda _: tmp_path / "run" / "test.lock"))
    return Instance("test")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gw.yaml"
    path.write_text("plain")
    return path


class Process:
    """What a test sees of a running agent. `act` runs beside it, on another thread."""

    def __init__(self, instance: Instance) -> None:
        self.engine = FakeEngine()
        self.instance = instance
        self._ended = threading.Event()
        self.client = AgentClient(instance)

    def run(self, file: Path, act: Callable[[], None]) -> None:
        """Serves until `act` is done, which then stops the agent by a signal."""
        failures: list[BaseException] = []

        def beside() -> None:
            try:
                wait_until(self.client.running, what="the agent listens")
                act()
            except BaseException as error:  # noqa: BLE001 - raised again on the test's thread
                failures.append(error)
            finally:
                if not self._ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=beside)
        parser = FakeParser(plain=PLAIN, bigger=BIGGER)
        with instance_lock(self.instance):
            thread.start()
            try:
                asyncio.run(serve(self.instance, file, lambda: Agent(self.engine, parser)))
            finally:
                self._ended.set()
                thread.join()
        if failures:
            raise failures[0]


@pytest.fixture
def process(local: Instance) -> Process:
    return Process(local)


def test_client_asks_a_running_agent(process: Process, file: Path) -> None:
    def act() -> None:
        assert process.client.status()["services"] == [
            {**service, "backends": list(service["backends"])}
            for service in make_status().to_json()["services"]
        ]
        assert process.client.plan("bigger", "new.yaml") == [
            {"operation": "FakeOperation", "text": "add something"}
        ]
        rows = process.client.apply("bigger", "new.yaml")
        assert [row["text"] for row in rows] == ["load programs", "add a class"]
        events = process.client.events()
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert process.client.events(since=events[-1]["number"]) == []
        assert events[-1]["message"] == "new.yaml applied, 2 changes"

    process.run(file, act)
    assert [text for text, _ in process.engine.applied] == ["plain", "bigger"]


def test_client_repeats_the_agents_own_words(process: Process, file: Path) -> None:
    def act() -> None:
        with pytest.raises(UsageError, match=r"^new.yaml:3:7: no such text \(try another\)\n"):
            process.client.apply("nonsense", "new.yaml")
        process.engine.refuse_apply = lambda text: text == "bigger"
        with pytest.raises(ShaperError, match=r"^device lan0 is gone$") as caught:
            process.client.apply("bigger", "new.yaml")
        assert caught.value.hint == "plug it in"
        assert caught.value.exit_code == 1

    process.run(file, act)


def test_agent_process_leaves_no_socket_behind(process: Process, file: Path) -> None:
    process.run(file, lambda: None)
    assert not process.instance.socket.exists()
    assert not process.client.running()


def test_agent_process_reloads_on_sighup(process: Process, file: Path) -> None:
    def act() -> None:
        file.write_text("nonsense")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: any("refused" in e["message"] for e in process.client.events()))
        assert [text for text, _ in process.engine.applied] == ["plain"]
        file.write_text("bigger")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: [text for text, _ in process.engine.applied] == ["plain", "bigger"])

    process.run(file, act)


def test_agent_process_takes_over_a_dead_ones_socket(process: Process, file: Path) -> None:
    with _dead_socket(process.instance.socket):
        assert not process.client.running()
        process.run(file, lambda: None)


def test_agent_process_does_not_start_on_a_refusal(process: Process, file: Path) -> None:
    process.engine.refuse_apply = lambda _: True
    parser = FakeParser(plain=PLAIN)
    with pytest.raises(KernelError, match="lan0 is gone"):
        asyncio.run(serve(process.instance, file, lambda: Agent(process.engine, parser)))
    assert not process.instance.socket.exists()


def test_agent_process_outlives_a_socket_it_cannot_make(process: Process, file: Path) -> None:
    """The API is tried again; the rest of the agent works meanwhile."""

    async def run() -> None:
        process.instance.socket.mkdir(parents=True)
        parser = FakeParser(plain=PLAIN)
        agent = Agent(process.engine, parser)
        serving = asyncio.create_task(serve(process.instance, file, lambda: agent))
        async with asyncio.timeout(10):
            while "the API" not in agent.failing() or not process.engine.steered:
                await asyncio.sleep(0.01)
            process.instance.socket.rmdir()
            while "the API" in agent.failing() or not process.client.running():
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await serving

    asyncio.run(run())


def test_client_without_an_agent_says_how_to_start_one(local: Instance) -> None:
    client = AgentClient(local)
    assert not client.running()
    with pytest.raises(ShaperError, match="no agent answers for instance test") as caught:
        client.status()
    assert "shaper agent FILE" in caught.value.hint


def test_client_takes_a_stale_socket_for_no_agent(local: Instance) -> None:
    with _dead_socket(local.socket):
        assert not AgentClient(local).running()
        with pytest.raises(ShaperError, match="no agent answers"):
            AgentClient(local).status()


def test_socket_is_for_root_alone_where_there_is_no_group(tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    with listen(path, group="no-such-group-here"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a file to a group")
def test_socket_is_for_the_group_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with listen(path, group="daemon"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.group() == "daemon"


def test_second_agent_is_refused(local: Instance) -> None:
    with instance_lock(local):
        with pytest.raises(ShaperError, match=f"held by another shaper .process {os.getpid()}"):
            with instance_lock(local):
                pass


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"shaper-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else str(tmp_path / name))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else str(tmp_path / name))
        notify_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_service_manager_is_not_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify_manager("READY=1")


@contextmanager
def _dead_socket(path: Path) -> Iterator[None]:
    """A socket file whose process is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    yield
