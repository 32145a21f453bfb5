"""What goes over the wire, beside the status document of `shaper.status`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CONFIG_CHARACTERS = 16 * 1024 * 1024


class ConfigFile(BaseModel):
    """A configuration as text, and the name that messages about it shall carry."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(max_length=MAX_CONFIG_CHARACTERS)]
    name: Annotated[str, Field(max_length=4096)] = "<config>"


class OperationRow(BaseModel):
    """One step of a plan: its kind and a sentence."""

    operation: str
    text: str


class Operations(BaseModel):
    operations: list[OperationRow]


class EventRow(BaseModel):
    """`number` grows with every event since the agent's start; `time_s` is Unix time."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    time_s: float
    kind: str
    message: str


class Events(BaseModel):
    events: list[EventRow]


class Health(BaseModel):
    """`failing` names what does not work at the moment, with the reason."""

    status: Literal["ok", "failing"]
    failing: dict[str, str]


class ProblemRow(BaseModel):
    """One mistake in a configuration; lines and columns count from 1."""

    model_config = ConfigDict(from_attributes=True)

    line: int
    column: int
    message: str
    hint: str


class Failure(BaseModel):
    """Why a request was refused. `problems` is filled for a bad configuration."""

    message: str
    hint: str = ""
    problems: list[ProblemRow] = []
