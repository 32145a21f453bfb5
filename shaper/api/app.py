"""The API as a FastAPI application; `/openapi.json` and `/docs` describe it.

Errors carry a `Failure`: 422 for a bad request or a bad configuration, 500 where the kernel
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from shaper.agent.events import Event
from shaper.api.documents import (
    ConfigFile,
    EventRow,
    Events,
    Failure,
    Health,
    OperationRow,
    Operations,
    ProblemRow,
)
from shaper.config import ConfigError
from shaper.errors import ShaperError, UsageError
from shaper.reconcile.operations import Operation
from shaper.status import Status

_FAILURES: Final[dict[int | str, dict[str, Any]]] = {
    422: {"model": Failure, "description": "a bad request or a bad configuration"},
    500: {"model": Failure, "description": "the kernel refused"},
}
_STATUS_REFERENCE: Final = {"$ref": "#/components/schemas/Status"}


class Controlled(Protocol):
    """What the API asks of the agent. All but the last two raise `ShaperError`."""

    async def status(self) -> Status: ...
    async def plan(self, text: str, name: str) -> tuple[Operation, ...]: ...
    async def apply(self, text: str, name: str) -> tuple[Operation, ...]: ...
    def events_since(self, number: int) -> tuple[Event, ...]: ...
    def failing(self) -> Mapping[str, str]: ...


def create_app(agent: Controlled) -> FastAPI:
    """The application that speaks for one agent."""
    app = FastAPI(title="shaper", description="The agent of one gateway.", responses=_FAILURES)
    app.add_exception_handler(ShaperError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    _add_queries(app, agent)
    _add_changes(app, agent)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_queries(app: FastAPI, agent: Controlled) -> None:
    described = {"content": {"application/json": {"schema": _STATUS_REFERENCE}}}

    @app.get("/api/server-status", response_class=JSONResponse, responses={200: described})
    async def server_status() -> JSONResponse:
        """Interfaces, services with backends, and classes, with what the kernel counted."""
        return JSONResponse((await agent.status()).to_json())

    @app.get("/api/events")
    async def events(since: Annotated[int, Query(ge=0)] = 0) -> Events:
        """The latest events, oldest first; with `since`, those after that number."""
        rows = [EventRow.model_validate(event) for event in agent.events_since(since)]
        return Events(events=rows)

    @app.get("/healthz", responses={503: {"model": Health, "description": "something fails"}})
    async def healthz(response: Response) -> Health:
        """Whether everything that the agent does works."""
        failing = dict(agent.failing())
        if failing:
            response.status_code = 503
        return Health(status="failing" if failing else "ok", failing=failing)


def _add_changes(app: FastAPI, agent: Controlled) -> None:
    @app.post("/api/plan")
    async def plan(body: ConfigFile) -> Operations:
        """What applying this configuration would change."""
        return _operations(await agent.plan(body.text, body.name))

    @app.post("/api/apply")
    async def apply(body: ConfigFile) -> Operations:
        """Makes this configuration the applied one; says what was done."""
        return _operations(await agent.apply(body.text, body.name))


def _operations(operations: Iterable[Operation]) -> Operations:
    return Operations(
        operations=[
            OperationRow(operation=type(operation).__name__, text=operation.describe())
            for operation in operations
        ]
    )


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ShaperError)
    problems = error.problems if isinstance(error, ConfigError) else ()
    failure = Failure(
        message=error.message,
        hint=error.hint,
        problems=[ProblemRow.model_validate(problem) for problem in problems],
    )
    status = 422 if isinstance(error, UsageError) else 500
    return JSONResponse(failure.model_dump(), status_code=status)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    sentences = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    return JSONResponse(Failure(message="; ".join(sentences)).model_dump(), status_code=422)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the status document put in from its dataclasses."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["components"]["schemas"].update(_status_schemas())
        app.openapi_schema = schema
    return app.openapi_schema


def _status_schemas() -> dict[str, Any]:
    document = TypeAdapter(Status).json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = document.pop("$defs")
    schemas["Status"] = document
    service = schemas["ServiceStatus"]
    service["properties"]["class"] = service["properties"].pop("class_")
    service["required"] = ["class" if name == "class_" else name for name in service["required"]]
    return schemas
