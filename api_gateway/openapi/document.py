"""The API's description as an OpenAPI 3.1 document.

It is written by hand, beside the routes. Tests hold it against them: that each is described and
nothing else, that examples are valid, and that a running gateway answers as it says.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from api_gateway.openapi.components import HEADERS, PARAMETERS, SCHEMAS, Json
from api_gateway.openapi.paths import paths

_ABOUT: Final = (
    "Stores records on every in-sync replica before it says so. Errors are problems (RFC 9457), "
    "in Spanish if Accept-Language prefers that."
)


def describe_api() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "replicad",
            "version": metadata.version("replicad"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths(),
        "components": {"schemas": SCHEMAS, "parameters": PARAMETERS, "headers": HEADERS},
    }
