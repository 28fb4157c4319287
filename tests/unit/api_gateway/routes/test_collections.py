"""Collections, through a gateway whose leader is a fake."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson
import pytest

from replicad.core.write import DEFINITIONS
from tests.support.fake_leader import DIGEST, FakeLeader, Fault, form
from tests.support.gateway import ask

ALL = "/v1/collections"
C = f"{ALL}/c"
FORMS = f"{ALL}/formularios"
KEY = {"Idempotency-Key": "k"}
NUMBERS = {"type": "object", "properties": {"n": {"type": "integer"}}}


async def test_a_collection_is_defined_shown_and_removed(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    told = {"schema": NUMBERS, "indexes": ["n"], "search": ["s.t"], "key": "dni"}
    shown = {"name": "c", **told, "version": 1}
    status, answer, headers = await ask(gateway, "PUT", C, told)
    assert status == 201
    assert answer == shown | {"epoch": 1, "digest": DIGEST, "replicas": ["n1", "n2"]}
    assert (headers["ETag"], headers["Location"], headers["X-Replicad-Index"]) == ('"1"', C, "1")

    status, answer, headers = await ask(gateway, "GET", C)
    assert (status, answer, headers["ETag"]) == (200, shown, '"1"')
    assert headers["X-Replicad-Consistency"] == "strong"
    assert (await ask(gateway, "GET", C, headers={"If-None-Match": '"1"'}))[0] == 304

    status, answer, _ = await ask(gateway, "GET", ALL)
    assert [each["name"] for each in answer["items"]] == ["c", "formularios"]
    assert answer["items"][0] == shown

    status, receipt, _ = await ask(gateway, "DELETE", C)
    assert (status, receipt["operation"], receipt["id"]) == (200, "delete", "c")
    assert (await ask(gateway, "GET", C))[0] == 404
    status, answer, _ = await ask(gateway, "DELETE", C)
    assert (status, answer["type"]) == (404, "urn:replicad:no-such-collection")


async def test_the_forms_are_always_there(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    status, answer, headers = await ask(gateway, "GET", FORMS)
    assert (status, answer["version"], headers["ETag"]) == (200, 0, '"0"')
    status, answer, _ = await ask(gateway, "DELETE", FORMS)
    assert (status, answer["type"]) == (409, "urn:replicad:collection-built-in")
    for condition, status in (({"If-None-Match": "*"}, 412), ({"If-Match": '"1"'}, 412)):
        assert (await ask(gateway, "PUT", FORMS, {}, condition))[0] == status
    assert (await ask(gateway, "PUT", FORMS, {}, {"If-Match": '"0"'}))[0] == 201
    assert (await ask(gateway, "PUT", FORMS, {}, {"If-Match": "*"}))[0] == 200
    status, answer, _ = await ask(gateway, "PUT", FORMS, {"key": "dni"})
    assert (status, answer["type"]) == (409, "urn:replicad:key-field-fixed")


@pytest.mark.parametrize(
    ("path", "told", "status", "slug"),
    [
        (C, [], 400, "invalid-json"),
        (C, {"schema": {"type": "x"}}, 422, "invalid-definition"),
        (C, {"schema": {"$ref": "http://127.0.0.1:9/"}}, 422, "invalid-definition"),
        (C, {"indexes": ["a'b"]}, 422, "invalid-definition"),
        (C, {"x": 1}, 422, "invalid-definition"),
        (f"{ALL}/_collections", {}, 400, "invalid-id"),
        (f"{ALL}/{'x' * 65}", {}, 400, "invalid-id"),
        (f"{C}?force=yes", {}, 400, "invalid-query"),
    ],
)
async def test_bad_definitions_change_nothing(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    path: str,
    told: object,
    status: int,
    slug: str,
) -> None:
    answered, answer, _ = await ask(gateway, "PUT", path, told)
    assert (answered, answer["type"]) == (status, f"urn:replicad:{slug}")
    assert not leader.writes


async def test_conditions_on_a_definition(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    assert (await ask(gateway, "PUT", C, {}, {"If-Match": "*"}))[0] == 412
    assert (await ask(gateway, "PUT", C, {}, {"If-None-Match": "*"}))[0] == 201
    status, answer, _ = await ask(gateway, "PUT", C, {}, {"If-None-Match": "*"})
    assert (status, answer["etag"]) == (412, '"1"')
    assert (await ask(gateway, "PUT", C, {"key": "x"}, {"If-Match": '"1"'}))[0] == 200
    assert (await ask(gateway, "DELETE", C, None, {"If-Match": '"1"'}))[0] == 412
    assert (await ask(gateway, "DELETE", C, None, {"If-Match": '"2"'}))[0] == 200


async def test_a_collection_with_records_is_not_removed(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", C, {})
    leader.records["c"] = {"a": form("a")}
    status, answer, _ = await ask(gateway, "DELETE", C)
    assert (status, answer["type"]) == (409, "urn:replicad:collection-not-empty")
    status, answer, _ = await ask(gateway, "PUT", C, {"key": "dni"})
    assert (status, answer["type"]) == (409, "urn:replicad:key-field-fixed")
    assert leader.version(DEFINITIONS, "c") == 1


@pytest.mark.parametrize("force", ["", "?force=true"])
async def test_a_key_field_stays_if_a_record_comes_while_it_is_changed(
    gateway: aiohttp.ClientSession, leader: FakeLeader, force: str
) -> None:
    await ask(gateway, "PUT", C, {})

    class Racing(dict[str, bytes]):
        """A collection that is empty whenever it is looked at before the key is to change."""

        looks = 0

        def values(self) -> Any:  # noqa: ANN401 (of a dict)
            seen = list(super().values())
            self.looks += 1
            if self.looks == 2:
                self["late"] = form("late")
            return seen

    leader.records["c"] = Racing()
    status, answer, _ = await ask(gateway, "PUT", f"{C}{force}", {"key": "dni"})
    assert (status, answer["type"]) == (409, "urn:replicad:key-field-fixed")
    assert leader.version(DEFINITIONS, "c") == 1
    assert [write.if_empty for write in leader.writes] == [False, True]
    leader.records["c"].clear()
    assert (await ask(gateway, "PUT", C, {"key": "dni"}))[0] == 200
    assert (await ask(gateway, "PUT", C, {"key": "dni", "search": ["x"]}))[0] == 200
    assert [write.if_empty for write in leader.writes] == [False, True, True, False]


async def test_a_schema_that_records_break_is_refused_unless_told_otherwise(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", C, {"schema": {}})
    leader.records["c"] = {f"r{n}": form(f"r{n}", n=n if n % 2 else str(n)) for n in range(300)}
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS})
    assert (status, answer["type"]) == (409, "urn:replicad:records-would-not-pass")
    assert answer["count"] == 150
    assert len(answer["records"]) == 100
    assert answer["records"][0] == {
        "id": "r0",
        "errors": [{"path": "/n", "message": 'value is not of type "integer"'}],
    }
    status, shown, _ = await ask(gateway, "GET", C)
    assert shown["schema"] == {}

    status, forced, _ = await ask(gateway, "PUT", f"{C}?force=true", {"schema": NUMBERS})
    assert status == 200
    assert forced["failing"] == {"count": 150, "records": answer["records"]}
    status, shown, _ = await ask(gateway, "GET", C)
    assert shown["schema"] == NUMBERS
    # Nothing new is said of records: nothing is looked at.
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS, "indexes": ["n"]})
    assert status == 200
    assert "failing" not in answer


async def test_records_written_during_the_check_are_looked_at_after_it(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", C, {"schema": {}})
    leader.applied = 1  # What the check will say that it has seen; the change is entry 3.

    class Racing(dict[str, bytes]):
        """A collection to which a record is added between two looks at it."""

        def values(self) -> Any:  # noqa: ANN401 (of a dict)
            seen = list(super().values())
            self["late"] = form("late", n="x")
            leader.applied, leader.last = None, 2
            return seen

    leader.records["c"] = Racing(a=form("a", n=1))
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS})
    assert status == 200
    assert answer["failing"]["count"] == 1
    assert answer["failing"]["records"][0]["id"] == "late"


async def test_a_second_look_that_fails_does_not_deny_the_definition(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", C, {"schema": {}})
    leader.applied = 0  # As if others had written during the first look.

    class Breaking(dict[str, bytes]):
        """A collection that can be looked at once."""

        def values(self) -> Any:  # noqa: ANN401 (of a dict)
            if leader.applied is not None:
                leader.applied, leader.last = None, 2
                leader.faults.extend([Fault.BREAK_STREAM] * 10)
            return list(super().values())

    leader.records["c"] = Breaking(a=form("a", n=1))
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS})
    assert status == 200, answer
    assert answer["version"] == 3
    assert "failing" not in answer


async def test_a_check_that_breaks_off_changes_nothing(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", C, {"schema": {}})
    leader.records["c"] = {f"r{n}": form(f"r{n}") for n in range(3)}
    leader.faults.extend([Fault.BREAK_STREAM] * 10)
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS})
    assert (status, answer["type"]) == (503, "urn:replicad:unavailable")
    assert leader.version(DEFINITIONS, "c") == 1


async def test_the_first_answer_is_replayed(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    _, first, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS}, KEY)
    await ask(gateway, "PUT", C, {})
    status, second, headers = await ask(gateway, "PUT", C, {"schema": NUMBERS}, KEY)
    assert (status, second, headers["Idempotency-Replayed"]) == (201, first, "true")
    status, answer, _ = await ask(gateway, "PUT", C, {}, KEY)
    assert (status, answer["type"]) == (422, "urn:replicad:idempotency-key-reused")
    status, answer, _ = await ask(gateway, "DELETE", C, None, {"Idempotency-Key": "d"})
    assert status == 200
    status, again, headers = await ask(gateway, "DELETE", C, None, {"Idempotency-Key": "d"})
    assert (status, again, headers["Idempotency-Replayed"]) == (200, answer, "true")


async def test_a_definition_is_stored_with_its_name(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    """Whoever lists collections knows them by it."""
    await ask(gateway, "PUT", C, {})
    assert orjson.loads(leader.records[DEFINITIONS]["c"]) == {
        "name": "c",
        "schema": None,
        "indexes": [],
        "search": [],
        "key": "id",
    }


async def test_what_is_wrong_with_records_and_schemas_is_told_in_the_clients_language(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", C, {"schema": {}})
    leader.records["c"] = {"r": form("r", n="x")}
    errors = [{"path": "/n", "message": "el valor no es de tipo entero"}]
    failing = {"count": 1, "records": [{"id": "r", "errors": errors}]}
    spanish = {"Accept-Language": "es"}
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": NUMBERS}, spanish)
    assert (status, answer["records"]) == (409, failing["records"])
    status, answer, _ = await ask(gateway, "PUT", f"{C}?force=true", {"schema": NUMBERS}, spanish)
    assert (status, answer["failing"]) == (200, failing)
    status, answer, _ = await ask(gateway, "PUT", C, {"schema": {"$ref": "#/x"}}, spanish)
    said = "El esquema no es válido. en él: una referencia no se puede resolver"
    assert (status, answer["detail"]) == (422, said)
