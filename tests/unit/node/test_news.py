from __future__ import annotations

import asyncio

from replicad.node.news import News


async def test_all_who_wait_are_woken() -> None:
    news = News()
    news.tell()  # Nobody waits: nobody is woken later by it.
    waiting = [asyncio.create_task(news.wait(30)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    news.tell()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)


async def test_a_wait_ends_without_news() -> None:
    news = News()
    await news.wait(0)
    await news.wait(-1)
    news.tell()


async def test_one_who_gives_up_leaves_the_others_waiting() -> None:
    news = News()
    first, second = (asyncio.create_task(news.wait(30)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    assert not second.done()
    news.tell()
    async with asyncio.timeout(5):
        await second
