"""The configuration file: YAML text to a checked `Gateway`, or to every problem with its place.

`reader` (text to values with positions) -> `validate` (values to the models of `schema`, wrong
ones left out) -> `checks` and `unsupported` (what must agree, what is not built yet) -> `build`
(the frozen `shaper.model`). `load` joins them. Nothing here touches the kernel: whether a device
or a qdisc exists is not known to this package.

`schema.json`, for editors, is written by `python -m shaper.config.jsonschema`.
"""

from shaper.config.load import (
    Loaded,
    load_config,
    parse_config,
    parse_with_warnings,
    read_text,
)
from shaper.config.problems import ConfigError, Problem

__all__ = [
    "ConfigError",
    "Loaded",
    "Problem",
    "load_config",
    "parse_config",
    "parse_with_warnings",
    "read_text",
]
