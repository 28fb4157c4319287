"""A running gateway against its description: requests made up from it, good ones and bad ones."""

from __future__ import annotations

import itertools
import json
import re
import urllib.request
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import (
    not_a_server_error,
)
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api_gateway.openapi.document import describe_api
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

RECORDS, DEFINED, STORED = "fuzz-records", "fuzz-defined", "00001"
"""Collections of this test alone; `formularios` belongs to the others."""
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INDEX: Final = re.compile(r"[0-9]+")
_VIEWS: Final = ("at_index", "at_time", "verify")
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")

# Above a gateway's own deadlines.
_ANSWER_S: Final = 15

_numbers = itertools.count()
Case = schemathesis.Case[Any]
api = schemathesis.openapi.from_dict(describe_api())


@schemathesis.serializer("application/x-ndjson")
def as_it_is(context: schemathesis.SerializationContext, value: object) -> bytes:
    """The body's schema is text already; negative cases make it other things."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> str:
    """A gateway whose collection for records is there, with an index and searched fields."""
    path = f"{cluster.url}/v1/collections/{RECORDS}"
    _put(path, {"indexes": ["edad"], "search": ["nombres"]})
    _put(f"{path}/records/{STORED}", {"id": STORED, "nombres": "Ana María", "edad": 34})
    return cluster.url


def _put(url: str, value: object) -> None:
    request = urllib.request.Request(  # noqa: S310 - our own gateway
        url, json.dumps(value).encode(), {"Content-Type": "application/json"}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_S) as response:  # noqa: S310
        assert response.status in (200, 201)


def _name_what_there_is(case: Case) -> None:
    key = case.path_parameters.get("id")
    if isinstance(key, str) and _NAME.fullmatch(key) and len(key) % 2:
        case.path_parameters["id"] = STORED
    collection = case.path_parameters.get("collection")
    if isinstance(collection, str) and _NAME.fullmatch(collection):
        own = case.operation.path == "/v1/collections/{collection}" and case.method != "GET"
        case.path_parameters["collection"] = DEFINED if own else RECORDS


def _agree_on_ids(case: Case) -> None:
    """A record's id is in its path, too, or in the operation around it."""
    body: Any = case.body
    if not isinstance(body, dict):
        return
    if case.operation.path.endswith("/{id}") and case.method == "PUT":
        body["id"] = case.path_parameters["id"]
    elif case.operation.path.endswith("/records") and _NAME.fullmatch(str(body.get("id"))):
        body["id"] = f"new-{next(_numbers)}"
    operations = body.get("operations")
    for each in operations if isinstance(operations, list) else ():
        if isinstance(each, dict) and isinstance(each.get("value"), dict):
            each["value"]["id"] = each.get("id")


def guide(case: Case) -> None:
    """Lead valid requests to where something is, and away from waiting for what never comes.

    What depends on something else in the same request, or on what is stored, no schema can say.
    """
    _name_what_there_is(case)
    _agree_on_ids(case)
    for view in [name for name in _VIEWS if name in case.query][1:]:
        del case.query[view]  # One view of a record at a time.
    index = case.headers.get("X-Replicad-Min-Index")
    if index is not None and _INDEX.fullmatch(str(index)):
        case.headers["X-Replicad-Min-Index"] = "1"
    waits = case.operation.path.endswith("/changes")
    if waits and _SECONDS.fullmatch(str(case.query.get("timeout", 0))):
        case.query["timeout"] = 0


@api.parametrize()
@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: Case, gateway: str) -> None:
    guide(case)
    case.call_and_validate(base_url=gateway, checks=CHECKS, timeout=_ANSWER_S)
