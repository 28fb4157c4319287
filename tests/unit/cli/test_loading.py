"""The loader against a small server that answers as a gateway does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from replicad.cli import loading
from replicad.cli.loading import LoadError, example_forms, load

FORMS = [json.dumps({"id": f"f{number}"}).encode() for number in range(200)]


class FakeGateway:
    """Stores forms by idempotency key; its first answers can be made to fail."""

    def __init__(self) -> None:
        self.indexes: dict[str, int] = {}
        self.failures: list[int] = []
        self.known: set[str] = set()

    async def store(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        if self.failures:
            return web.Response(status=self.failures.pop(), text="not now")
        if (await request.json())["id"] in self.known:
            return web.Response(status=409)
        index = self.indexes.setdefault(key, len(self.indexes) + 1)
        return web.Response(headers={"X-Replicad-Index": str(index)})


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[FakeGateway, str]]:
    fake = FakeGateway()
    app = web.Application()
    app.router.add_post("/API/IngresarFormulario", fake.store)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield fake, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def ticks() -> tuple[list[None], Callable[[], None]]:
    seen: list[None] = []
    return seen, lambda: seen.append(None)


async def test_every_form_is_stored_once(gateway: tuple[FakeGateway, str]) -> None:
    fake, url = gateway
    seen, advance = ticks()
    loaded = await load(url, FORMS, 0, advance)
    assert (loaded.stored, loaded.already_there) == (200, 0)
    assert len(fake.indexes) == len(seen) == 200


async def test_a_second_load_stores_nothing(gateway: tuple[FakeGateway, str]) -> None:
    fake, url = gateway
    await load(url, FORMS, 0, lambda: None)
    loaded = await load(url, FORMS, len(fake.indexes), lambda: None)
    assert (loaded.stored, loaded.already_there) == (0, 200)
    assert len(fake.indexes) == 200


async def test_a_known_id_counts_as_there(gateway: tuple[FakeGateway, str]) -> None:
    fake, url = gateway
    fake.known = {"f0", "f1"}
    loaded = await load(url, FORMS, 0, lambda: None)
    assert (loaded.stored, loaded.already_there) == (198, 2)


async def test_a_failover_is_ridden_out_with_the_same_key(
    gateway: tuple[FakeGateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = gateway
    monkeypatch.setattr(loading, "_PAUSE_S", 0.01)
    fake.failures = [503, 504, 503]
    loaded = await load(url, FORMS, 0, lambda: None)
    assert loaded.stored == 200
    assert len(fake.indexes) == 200


async def test_a_form_that_is_refused_ends_the_load(gateway: tuple[FakeGateway, str]) -> None:
    fake, url = gateway
    fake.failures = [400]
    with pytest.raises(LoadError, match="400 not now"):
        await load(url, FORMS, 0, lambda: None)


def test_the_example_forms() -> None:
    forms = example_forms()
    assert len(forms) == 12_136
    assert len({json.loads(form)["id"] for form in forms}) == 12_136
