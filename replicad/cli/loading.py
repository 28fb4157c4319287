"""Loads the example forms through a gateway, as any client would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import aiohttp
import orjson

from replicad.errors import ReplicadError

_CONCURRENCY: Final = 64
_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.5


class LoadError(ReplicadError):
    """A form could not be stored."""


@dataclass(slots=True)
class Loaded:
    """What became of the forms so far."""

    stored: int = 0
    already_there: int = 0


def example_forms() -> list[bytes]:
    """The example forms, one JSON object each."""
    return files("replicad").joinpath("examples/legisladores.ndjson").read_bytes().splitlines()


async def load(
    gateway_url: str, forms: list[bytes], last_index: int, advance: Callable[[], None]
) -> Loaded:
    """Store every form, once, however often this is done.

    Args:
        gateway_url: Without a slash at the end.
        forms: JSON objects with an `id`.
        last_index: Of the log before: an answer that names an index up to it is that of an
            earlier load, which the form's idempotency key recalls.
        advance: Called after each form.

    Raises:
        LoadError: A form was refused, or could not be stored after many attempts.
    """
    loaded = Loaded()
    waiting = iter(forms)
    async with aiohttp.ClientSession(gateway_url) as session:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(_CONCURRENCY):
                    workers.create_task(_work(session, waiting, last_index, loaded, advance))
        except* LoadError as group:
            refused = group.exceptions
        else:
            return loaded
    raise refused[0]


async def _work(
    session: aiohttp.ClientSession,
    waiting: Iterator[bytes],
    last_index: int,
    loaded: Loaded,
    advance: Callable[[], None],
) -> None:
    for form in waiting:
        index = await _store(session, form)
        if index is None or index <= last_index:
            loaded.already_there += 1
        else:
            loaded.stored += 1
        advance()


async def _store(session: aiohttp.ClientSession, form: bytes) -> int | None:
    """The index at which the form is stored; None when its id was known before."""
    headers = {
        "Idempotency-Key": f"example-{orjson.loads(form)['id']}",
        "Content-Type": "application/json",
    }
    trouble = "no attempt was made"
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(_PAUSE_S)
        try:
            async with session.post(
                "/API/IngresarFormulario", data=form, headers=headers
            ) as answer:
                if answer.status == 200:
                    return int(answer.headers["X-Replicad-Index"])
                if answer.status == 409:
                    return None
                trouble = f"{answer.status} {(await answer.text())[:300]}"
                if answer.status < 500:
                    break
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            trouble = str(error) or type(error).__name__
    raise LoadError(f"a form was not stored: {trouble}")
