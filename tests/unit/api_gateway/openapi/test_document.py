"""The description against the routes, and against itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
import schemathesis
from aiohttp.hdrs import METH_HEAD
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.app import serve_gateway
from api_gateway.idempotency import check_key
from api_gateway.openapi.document import describe_api
from api_gateway.records.definitions import check_name
from api_gateway.records.forms import check_id
from api_gateway.web.problems import Problem
from replicad.coordination.memory import MemoryCoordinator, MemoryStore

METHODS = ("get", "put", "post", "patch", "delete")
API = describe_api()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in API["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        _, *steps = node["$ref"].split("/")
        found: Any = API
        for step in steps:
            found = found[step]
        node = found
    return node


def check_against(schema: dict[str, Any], example: object) -> None:
    whole = {**schema, "components": API["components"]}
    jsonschema_rs.validator_for(whole).validate(example)


def media_types(node: object) -> Iterator[dict[str, Any]]:
    """Every object that has a schema: media types, parameters, headers."""
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict):
            yield node
        for child in node.values():
            yield from media_types(child)
    elif isinstance(node, list):
        for child in node:
            yield from media_types(child)


async def test_every_route_of_v1_is_described_and_nothing_else() -> None:
    coordinator = MemoryCoordinator(MemoryStore())
    runner = await serve_gateway(coordinator, host="127.0.0.1", port=0)
    await runner.cleanup()
    registered = {
        (route.resource.canonical, route.method.lower())
        for route in runner.app.router.routes()
        if route.resource is not None
        and route.resource.canonical.startswith("/v1")
        and route.method != METH_HEAD
    }
    described = {(path, method) for path, method, _ in operations()}
    assert described == registered


def test_it_is_openapi() -> None:
    schemathesis.openapi.from_dict(API).validate()


def test_names_are_distinct() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_references_lead_somewhere() -> None:
    for reference in re.findall(r"'\$ref': '([^']+)'", repr(API)):
        resolve({"$ref": reference})


def test_every_kind_of_problem_is_told_of_some_operation() -> None:
    told = set(re.findall(r"urn:replicad:[a-z-]+", repr(API["paths"])))
    elsewhere = {Problem.NO_SUCH_ROUTE, Problem.METHOD_NOT_ALLOWED}
    assert told == {problem.type for problem in set(Problem) - elsewhere}
    assert API["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] == [
        problem.type for problem in Problem
    ]


def test_examples_are_valid() -> None:
    checked = 0
    for node in media_types(API):
        for name in ("example", "default"):
            if name in node:
                check_against(node["schema"], node[name])
                checked += 1
    for schema in API["components"]["schemas"].values():
        for example in schema.get("examples", []):
            check_against(schema, example)
            checked += 1
    assert checked > 15


def pattern_of(name: str) -> str:
    pattern: str = API["components"]["parameters"][name]["schema"]["pattern"]
    return pattern


@given(name=st.from_regex(pattern_of("collection"), fullmatch=True))
def test_names_of_collections_as_described_are_taken(name: str) -> None:
    assert check_name(name.removesuffix("\n")) == name.removesuffix("\n")


@given(key=st.from_regex(pattern_of("id"), fullmatch=True))
def test_ids_as_described_are_taken(key: str) -> None:
    assert check_id(key.removesuffix("\n")) == key.removesuffix("\n")


@given(key=st.from_regex(pattern_of("idempotencyKey"), fullmatch=True))
def test_keys_as_described_are_taken(key: str) -> None:
    assert check_key(key.removesuffix("\n")) == key.removesuffix("\n")


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_it_is_served(gateway: aiohttp.ClientSession, coding: str) -> None:
    accepting = {"Accept-Encoding": coding}
    async with gateway.get("/openapi.json", headers=accepting) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert response.headers.get("Content-Encoding", "identity") == coding
        assert await response.json() == API
        known = {"If-None-Match": response.headers["ETag"]}
    async with gateway.get("/openapi.json", headers=accepting | known) as response:
        assert response.status == 304
        assert await response.read() == b""
