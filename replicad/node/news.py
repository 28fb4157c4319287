"""Waking those who wait for something to happen in the same process."""

from __future__ import annotations

import asyncio


class News:
    """Told often, waited for seldom: to tell it costs nothing while nobody waits."""

    def __init__(self) -> None:
        """Nobody waits yet; needs a running loop only once somebody does."""
        self._waited_for: asyncio.Future[None] | None = None

    def tell(self) -> None:
        """Wake all who wait now."""
        if self._waited_for is not None:
            self._waited_for.set_result(None)
            self._waited_for = None

    async def wait(self, timeout_s: float) -> None:
        """Return after the next `tell`, or after `timeout_s` seconds."""
        if self._waited_for is None:
            self._waited_for = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._waited_for}, timeout=max(0.0, timeout_s))
