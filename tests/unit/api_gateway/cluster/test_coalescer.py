from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from api_gateway.cluster import coalescer as coalescer_module
from api_gateway.cluster.coalescer import Call, Coalescer
from api_gateway.cluster.watch import ClusterWatch, Leader
from api_gateway.errors import NothingDoneError, UnavailableError
from api_gateway.metrics import Metrics
from tests.support.waiting import eventually
from tests.unit.api_gateway.cluster.test_watch import view

StringCall = Call[str, str]


class Echo:
    """A leader that answers with what it got, once it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.failures = 0
        self.defects = 0
        self.batches: list[list[str]] = []

    async def send(self, leader: Leader, calls: Sequence[StringCall]) -> None:
        self.batches.append([call.payload for call in calls])
        await self.may_answer.wait()
        if self.failures:
            self.failures -= 1
            raise NothingDoneError
        if self.defects:
            self.defects -= 1
            raise ZeroDivisionError
        for call in calls:
            call.settle(call.payload.upper())


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def watch() -> ClusterWatch:
    watch = ClusterWatch()
    watch.on_view(view("n1", "n1"))
    return watch


@pytest.fixture
async def coalescer(echo: Echo, watch: ClusterWatch) -> AsyncIterator[Coalescer[str, str]]:
    coalescer: Coalescer[str, str] = Coalescer(
        "read", echo.send, watch, Metrics(), batch_calls_max=3, batch_bytes_max=10
    )
    coalescer.start()
    yield coalescer
    await coalescer.stop(0)


def run(
    coalescer: Coalescer[str, str], *payloads: str, seconds: float = 5.0
) -> asyncio.Future[list[str]]:
    deadline = asyncio.get_running_loop().time() + seconds
    return asyncio.gather(*(coalescer.run(Call(p, len(p), deadline)) for p in payloads))


async def test_batches_are_bounded_in_calls_and_bytes(
    coalescer: Coalescer[str, str], echo: Echo
) -> None:
    echo.may_answer.clear()
    answers = run(coalescer, "a", "b", "c", "d", "e" * 9, "f" * 20, "g")
    await eventually(lambda: len(echo.batches) == 2)  # Both workers are busy now.
    echo.may_answer.set()
    assert await answers == ["A", "B", "C", "D", "E" * 9, "F" * 20, "G"]
    assert echo.batches == [["a", "b", "c"], ["d", "e" * 9], ["f" * 20], ["g"]]


@pytest.mark.parametrize(
    ("before", "batches"),
    [((), [["a", "b"]]), (("x", "y"), [["a", "b"]]), (("x",), [["a"], ["b"]])],
)
async def test_who_was_answered_alone_waits_for_nobody(
    coalescer: Coalescer[str, str],
    echo: Echo,
    before: tuple[str, ...],
    batches: list[list[str]],
) -> None:
    """Clients that were answered together ask again together, but not in the same moment."""
    await run(coalescer, *before)
    echo.batches.clear()
    first = run(coalescer, "a")
    for _ in range(2):  # Its call is made, and the worker wakes up.
        await asyncio.sleep(0)
    assert await run(coalescer, "b") == ["B"]
    await first
    assert echo.batches == batches


async def test_a_call_that_comes_alone_wakes_one_worker(
    coalescer: Coalescer[str, str], echo: Echo
) -> None:
    await eventually(lambda: len(coalescer._idle) == 2)
    echo.may_answer.clear()
    answer = run(coalescer, "a")
    await eventually(lambda: bool(echo.batches))
    assert len(coalescer._idle) == 1
    echo.may_answer.set()
    assert await answer == ["A"]


async def test_what_failed_is_tried_again_in_its_order(
    coalescer: Coalescer[str, str], echo: Echo
) -> None:
    echo.failures = 2
    assert await run(coalescer, "a", "b") == ["A", "B"]
    assert [batch for batch in echo.batches if "a" in batch] == [["a", "b"]] * 3


async def test_each_call_has_its_own_deadline(coalescer: Coalescer[str, str], echo: Echo) -> None:
    echo.may_answer.clear()
    patient = run(coalescer, "a")
    with pytest.raises(TimeoutError):
        await run(coalescer, "b", seconds=0.3)
    echo.may_answer.set()
    assert await patient == ["A"]


async def test_deadlines_come_in_their_own_order(
    coalescer: Coalescer[str, str], echo: Echo
) -> None:
    echo.may_answer.clear()
    ended: list[float] = []

    async def run_until_deadline(seconds: float) -> None:
        with pytest.raises(TimeoutError):
            await run(coalescer, "a", seconds=seconds)
        ended.append(seconds)

    await asyncio.gather(*map(run_until_deadline, (0.3, 0.1, 0.2, 0.4)))
    assert ended == [0.1, 0.2, 0.3, 0.4]


async def test_nothing_is_sent_while_nobody_leads(
    coalescer: Coalescer[str, str], echo: Echo, watch: ClusterWatch
) -> None:
    watch.on_view(view(None, "n1"))
    with pytest.raises(TimeoutError):
        await run(coalescer, "a", seconds=0.3)
    assert not echo.batches
    answers = run(coalescer, "b")
    watch.on_view(view("n1", "n1"))
    assert await answers == ["B"]
    assert echo.batches == [["b"]]


async def test_what_has_ended_is_not_kept_behind_what_goes_on(
    coalescer: Coalescer[str, str], watch: ClusterWatch
) -> None:
    watch.on_view(view(None, "n1"))
    patient = run(coalescer, "a")
    with pytest.raises(TimeoutError):
        await run(coalescer, "b", "c", seconds=0.1)
    assert [call.payload for call in coalescer._queue] == ["a"]
    watch.on_view(view("n1", "n1"))
    assert await patient == ["A"]


@pytest.mark.parametrize(("limit", "value"), [("_WAITING_MAX", 2), ("_WAITING_BYTES_MAX", 2)])
async def test_too_many_at_once_are_refused(
    coalescer: Coalescer[str, str],
    echo: Echo,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
) -> None:
    monkeypatch.setattr(coalescer_module, limit, value)
    echo.may_answer.clear()
    waiting = run(coalescer, "a", "b")
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="sobrecargado"):
        await run(coalescer, "c")
    echo.may_answer.set()
    assert await waiting == ["A", "B"]
    assert await run(coalescer, "d") == ["D"]


async def test_a_worker_that_fails_is_replaced(coalescer: Coalescer[str, str], echo: Echo) -> None:
    echo.defects = 2
    with pytest.raises(TimeoutError):
        await run(coalescer, "a", seconds=0.3)
    with pytest.raises(TimeoutError):
        await run(coalescer, "b", seconds=0.3)
    assert await run(coalescer, "c") == ["C"]


async def test_stopping_waits_a_moment_and_ends_the_rest(
    coalescer: Coalescer[str, str], echo: Echo
) -> None:
    echo.may_answer.clear()
    waiting = run(coalescer, "a", seconds=0.5)
    await eventually(lambda: bool(echo.batches))
    await coalescer.stop(0.01)
    with pytest.raises(TimeoutError):
        await waiting
    late = run(coalescer, "b", seconds=0.6)
    await eventually(late.done, 5.0)
    with pytest.raises(TimeoutError):
        late.result()
