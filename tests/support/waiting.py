"""Waiting for conditions, never for time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return as soon as the condition holds; fail the test when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, f"did not come true within {timeout_s} s"
        await asyncio.sleep(0.005)


async def until(
    condition: Callable[[], Awaitable[bool]],
    timeout_s: float = 30.0,
    explain: Callable[[], object] = lambda: "",
) -> None:
    """The same for a condition that must be asked for; `explain` tells what was seen last."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not await condition():
        assert loop.time() < deadline, f"did not come true within {timeout_s} s: {explain()}"
        await asyncio.sleep(0.05)
