"""Speaks to an agent over its Unix socket, for the command line and the terminal UI."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

import httpx

from shaper.errors import ShaperError, UsageError
from shaper.instance import Instance

_QUERY_TIMEOUT_S: Final = 30.0
_CHANGE_TIMEOUT_S: Final = 300.0  # the programs may have to be compiled, slowly under emulation


class AgentClient:
    """Synchronous, one connection a call.

    Every method but `running` raises `ShaperError` with the agent's own message and hint
    (`UsageError` for a bad configuration), or one of its own where no agent answers.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def running(self) -> bool:
        """Whether an agent listens. A socket file that nobody serves counts as no.

        Raises:
            ShaperError: there is one, but this user may not speak to it.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._instance.socket))
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                return False
            except PermissionError as error:
                raise self._forbidden() from error
        return True

    def status(self) -> dict[str, Any]:
        """The status document as plain data (the contract of `shaper status --json`)."""
        document: dict[str, Any] = self._call("GET", "/api/server-status", _QUERY_TIMEOUT_S)
        return document

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """Events after number `since`, oldest first."""
        answer = self._call("GET", f"/api/events?since={since}", _QUERY_TIMEOUT_S)
        rows: list[dict[str, Any]] = answer["events"]
        return rows

    def plan(self, text: str, name: str) -> list[dict[str, str]]:
        """What `apply` would do: rows of `operation` (its kind) and `text` (a sentence)."""
        return self._operations("/api/plan", text, name)

    def apply(self, text: str, name: str) -> list[dict[str, str]]:
        """Makes `text` the applied configuration; rows as `plan`."""
        return self._operations("/api/apply", text, name)

    def _operations(self, path: str, text: str, name: str) -> list[dict[str, str]]:
        body = {"text": text, "name": name}
        rows: list[dict[str, str]] = self._call("POST", path, _CHANGE_TIMEOUT_S, body)["operations"]
        return rows

    def _call(self, method: str, path: str, timeout_s: float, body: Any = None) -> Any:
        transport = httpx.HTTPTransport(uds=str(self._instance.socket))
        try:
            with httpx.Client(
                transport=transport, base_url="http://shaper", timeout=timeout_s, trust_env=False
            ) as client:
                response = client.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise ShaperError(
                f"the agent of {self._instance.name} did not answer within {timeout_s:g} s",
                "its log tells what it is doing",
            ) from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_success:
            return response.json()
        raise _failure(response)

    def _unreachable(self, error: httpx.TransportError) -> ShaperError:
        if isinstance(error.__cause__, PermissionError) or "Permission denied" in str(error):
            return self._forbidden()
        return ShaperError(
            f"no agent answers for instance {self._instance.name} ({error})",
            "start one with `shaper agent FILE`",
        )

    def _forbidden(self) -> ShaperError:
        return ShaperError(
            f"this user may not speak to the agent of instance {self._instance.name}",
            "become root, or a member of the group shaper where that group exists",
        )


def _failure(response: httpx.Response) -> ShaperError:
    """The agent's error in its own words."""
    kind = UsageError if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY else ShaperError
    with contextlib.suppress(ValueError, KeyError, TypeError):
        failure = response.json()
        return kind(str(failure["message"]), str(failure["hint"]))
    return ShaperError(f"the agent answered {response.status_code} {response.reason_phrase}")
