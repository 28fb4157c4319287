"""Records and batches through a whole cluster, also while its leader is killed."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.client import Answer, Client
from tests.support.cluster import Cluster
from tests.support.logs import changes_of, entries
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.timeout(180)
DEADLINE_S = 10.0
WARM = 30
"""Acknowledged writes after which a load is under way."""


@pytest.fixture
async def records(client: Client, cluster: Cluster) -> str:
    """The path of a new collection's records."""
    await cluster.in_sync(client)
    path = f"/v1/collections/registros-{uuid.uuid4().hex[:8]}"
    assert (await client.ask("PUT", path, {})).status == 201
    return f"{path}/records"


def slug_of(answer: Answer) -> str:
    assert answer.headers["Content-Type"] == "application/problem+json"
    slug: str = answer.told["type"].removeprefix("urn:replicad:")
    return slug


async def test_the_life_of_a_record(client: Client, cluster: Cluster, records: str) -> None:
    a = f"{records}/a"
    assert slug_of(await client.get(a)) == "no-such-record"
    sent = '{"id": "a", "n": 1.0e0, "s": "\\/é", "deep": [{}, []]}'.encode()
    created = await client.ask("PUT", a, sent)
    assert created.status == 201
    assert created.told["operation"] == "insert"
    assert created.told["replicas"] == cluster.names
    assert created.told["index"] == created.index
    assert created.headers["ETag"] == created.told["etag"] == f'"{created.index}"'
    kept = await client.get(a)
    assert kept.body == '{"id":"a","n":1.0e0,"s":"\\/é","deep":[{},[]]}'.encode()
    assert kept.headers["ETag"] == created.headers["ETag"]
    unchanged = await client.get(a, {"If-None-Match": kept.headers["ETag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")

    stale = {"If-Match": created.headers["ETag"]}
    patched = await client.ask("PATCH", a, {"s": None, "t": {"u": None, "v": 2}}, stale)
    assert (patched.status, patched.told["operation"]) == (200, "update")
    assert (await client.get(a)).body == b'{"id":"a","n":1.0e0,"deep":[{},[]],"t":{"v":2}}'
    for method, told in (("PUT", {"id": "a"}), ("PATCH", {}), ("DELETE", None)):
        refused = await client.ask(method, a, told, stale)
        assert (refused.status, refused.told["etag"]) == (412, patched.headers["ETag"])
    assert slug_of(await client.ask("POST", records, {"id": "a"})) == "record-exists"
    taken = await client.ask("PUT", a, {"id": "a"}, {"If-None-Match": "*"})
    assert (taken.status, taken.told["etag"]) == (412, patched.headers["ETag"])

    deleted = await client.ask("DELETE", a)
    assert (deleted.status, deleted.told["etag"]) == (200, None)
    assert slug_of(await client.get(a)) == "no-such-record"
    assert slug_of(await client.ask("DELETE", a)) == "no-such-record"
    again = await client.ask("POST", records, {"id": "a"})
    assert (again.status, again.headers["Location"]) == (201, a)
    await cluster.assert_equal_logs(client)


async def test_an_idempotency_key_is_one_write(client: Client, records: str) -> None:
    a, key = f"{records}/a", {"Idempotency-Key": f"k-{uuid.uuid4().hex}"}
    first = await client.ask("PUT", a, {"id": "a", "n": 1}, key)
    await client.ask("DELETE", a)
    second = await client.ask("PUT", a, {"id": "a", "n": 1}, key)
    assert (second.status, second.told) == (first.status, first.told)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert slug_of(await client.get(a)) == "no-such-record"
    other = await client.ask("PUT", a, {"id": "a", "n": 2}, key)
    assert (other.status, slug_of(other)) == (422, "idempotency-key-reused")
    # A rejection is no outcome: the same request is judged anew.
    delete = {"Idempotency-Key": f"k-{uuid.uuid4().hex}"}
    assert (await client.ask("DELETE", a, None, delete)).status == 404
    await client.ask("PUT", a, {"id": "a"})
    assert (await client.ask("DELETE", a, None, delete)).status == 200


async def test_a_batch_is_one_entry_or_nothing(
    client: Client, cluster: Cluster, records: str
) -> None:
    old = await client.ask("PUT", f"{records}/old", {"id": "old"})
    operations: list[dict[str, Any]] = [
        {"operation": "insert", "id": f"r{n}", "value": {"id": f"r{n}", "n": n}} for n in range(998)
    ]
    operations.append({"operation": "delete", "id": "old", "if_match": old.headers["ETag"]})
    operations.append({"id": "new", "value": {"id": "new", "s": '],"value":[{'}})
    done = await client.ask("POST", f"{records}:batch", {"operations": operations})
    assert done.status == 200
    assert Counter(each["operation"] for each in done.told["results"]) == {
        "insert": 999,
        "delete": 1,
    }
    await cluster.in_sync(client)
    entry = entries(cluster.data_dir(cluster.names[-1]))[done.index - 1]
    assert (entry["operation"], len(entry["changes"])) == ("batch", 1000)
    assert (await client.get(f"{records}/new")).body == b'{"id":"new","s":"],\\"value\\":[{"}'

    operations = [
        {"operation": "update", "id": "new", "value": {"id": "new", "n": 1}},
        {"operation": "insert", "id": "r7", "value": {"id": "r7"}},
    ]
    refused = await client.ask("POST", f"{records}:batch", {"operations": operations})
    assert (refused.status, refused.told["position"], refused.told["id"]) == (409, 1, "r7")
    assert refused.told["etag"] == f'"{done.index}"'
    assert (await client.get(f"{records}/new")).headers["ETag"] == f'"{done.index}"'


async def test_the_largest_batch(client: Client, cluster: Cluster, records: str) -> None:
    operations = [{"id": f"r{n}", "value": {"id": f"r{n}", "x": "ñ" * 7_900}} for n in range(1000)]
    body = json.dumps({"operations": operations}, ensure_ascii=False).encode()
    assert 15 * 2**20 < len(body) < 16 * 2**20
    done = await client.post(body, path=f"{records}:batch")
    assert done.status == 200, done.body[:500]
    kept = await client.get(f"{records}/r999")
    assert kept.told == operations[-1]["value"]
    too_large = await client.post(b" " * 2**24 + body, path=f"{records}:batch")
    assert (too_large.status, slug_of(too_large)) == (413, "too-large")
    await cluster.assert_equal_logs(client)


class Workers:
    """Clients that each change records of their own, with a key for each request.

    A request that was not answered clearly is repeated with the same key.
    """

    def __init__(self, client: Client, records: str) -> None:
        self._client = client
        self._records = records
        self.done: dict[str, int] = {}
        """The entry of each acknowledged request."""
        self.repeated = 0
        self.stopping = False

    async def _send(self, key: str, method: str, path: str, told: object, **also: str) -> Answer:
        headers: Mapping[str, str] = {"Idempotency-Key": key, **also}
        while True:
            answer = await self._client.ask(method, f"{self._records}{path}", told, headers)
            if answer.status not in (503, 504):
                assert answer.status in (200, 201), answer
                assert key not in self.done
                self.done[key] = answer.index
                return answer
            self.repeated += 1

    async def put(self, name: str) -> None:
        """Each version is put on the one before: one that was written twice would show."""
        etag, n = "", 0
        while not self.stopping:
            also = {"If-Match": etag} if etag else {"If-None-Match": "*"}
            told = {"id": name, "n": n}
            answer = await self._send(f"{name}-{n}", "PUT", f"/{name}", told, **also)
            etag, n = answer.headers["ETag"], n + 1

    async def patch(self, name: str, record: str) -> None:
        """Several of these change one record."""
        n = 0
        while not self.stopping:
            await self._send(f"{name}-{n}", "PATCH", f"/{record}", {"by": {name: n}})
            n += 1

    async def batch(self, name: str) -> None:
        """Each batch removes what the one before has made."""
        n = 0
        while not self.stopping:
            operations: list[dict[str, Any]] = [
                {"operation": "insert", "id": f"{name}-{n}", "value": {"id": f"{name}-{n}"}}
            ]
            if n:
                operations.append({"operation": "delete", "id": f"{name}-{n - 1}"})
            await self._send(f"{name}-{n}", "POST", ":batch", {"operations": operations})
            n += 1


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("time", ["first", "second"])
async def test_each_keyed_write_is_done_once_while_the_leader_is_killed(
    client: Client, cluster: Cluster, records: str, time: str
) -> None:
    before = await cluster.in_sync(client)
    victim = before["leader"]
    prefix = uuid.uuid4().hex[:8]
    await client.ask("PUT", f"{records}/shared", {"id": "shared"})
    workers = Workers(client, records)

    async def is_replaced() -> bool:
        view = await client.view()
        return view["epoch"] > before["epoch"] and view["leader"] not in (None, victim)

    async with asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(workers.put(f"{prefix}-put{n}"))
            tasks.create_task(workers.patch(f"{prefix}-patch{n}", "shared"))
            tasks.create_task(workers.batch(f"{prefix}-batch{n}"))
        try:
            await eventually(lambda: len(workers.done) >= WARM)
            await cluster.stop(victim)
            await until(is_replaced, DEADLINE_S)
            after = len(workers.done)
            await eventually(lambda: len(workers.done) >= after + WARM)
            await cluster.start(victim)
            await cluster.is_in_isr(client, victim)
        finally:
            workers.stopping = True

    await cluster.assert_equal_logs(client)
    log = [
        entry
        for entry in entries(cluster.data_dir(victim))
        if (entry["request"] or "").startswith(prefix)
    ]
    assert {entry["request"]: entry["index"] for entry in log} == workers.done
    assert len(log) == len(workers.done)
    last: dict[str, Any] = {}
    for entry in log:
        for _, key, value in changes_of(entry):
            last[key] = value
    for key, value in last.items():
        answer = await client.get(f"{records}/{key}")
        assert (answer.told if answer.status == 200 else None) == value, key
    by = last["shared"]["by"]
    assert by == {name: max_of(workers.done, name) for name in by}


def max_of(done: Mapping[str, int], name: str) -> int:
    """The number of a worker's last request."""
    return max(int(key.rpartition("-")[2]) for key in done if key.startswith(f"{name}-"))
