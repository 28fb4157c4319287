from __future__ import annotations

import asyncio

from replicad.client import Collection
from tests.support.fake_gateway import FakeGateway


async def test_changes_up_to_the_newest(collection: Collection) -> None:
    for number in range(5):
        await collection.insert({"id": f"k{number}"})
    await collection.delete("k0")
    seen = [change async for change in collection.changes(follow_on=False)]
    assert [(change.operation, change.id) for change in seen][-2:] == [
        ("insert", "k4"),
        ("delete", "k0"),
    ]
    assert [change.index for change in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].value is None
    later = [change async for change in collection.changes(seen[3].cursor, follow_on=False)]
    assert later == seen[4:]


async def test_following_goes_on_where_a_gateway_fails(
    collection: Collection, gateways: list[FakeGateway]
) -> None:
    seen: list[int] = []

    async def follow() -> None:
        async for change in collection.changes():
            seen.append(change.index)
            if change.index == 20:
                return

    async with asyncio.timeout(20):
        following = asyncio.create_task(follow())
        for number in range(20):
            gateways[number % 2].faults.append(("drop", "lose", 503, 504)[number % 4])
            await collection.insert({"id": f"k{number}"})
        await following
    assert seen == list(range(1, 21))
