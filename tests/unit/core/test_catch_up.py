"""A leader's core and a follower's, wired together over their messages (rule 7)."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from replicad.core.effects import AppendLines, Effect, Send, SendFromLog, SyncLog, TruncateLog
from replicad.core.events import LogSynced, MessageReceived, Tick
from replicad.core.messages import Append
from tests.support.core import (
    SETTINGS,
    TICK_S,
    Stepper,
    context_of,
    disks,
    leading,
)
from tests.support.entries import LogBuilder

CHUNK_BYTES = 2000
SMALL_CHUNKS = replace(SETTINGS, chunk_bytes_max=CHUNK_BYTES)


class Pair:
    """A leader n1 and a follower n2; messages between them take no time.

    Attributes:
        lines: The leader's log.
        chunks: The catch-up messages that it sent.
        cuts: Where the follower cut its log.
    """

    def __init__(self, leaders: LogBuilder, lines: bytes, followers: LogBuilder) -> None:
        self.lines = lines.splitlines(keepends=True)
        context = context_of("n1", leaders.index, epoch=2, settings=SMALL_CHUNKS)
        self.leader = leading(context, isr=disks("n1", "n2"), opened=False)
        self.follower = Stepper(context_of("n2", followers.index, epoch=2, settings=SMALL_CHUNKS))
        self.chunks: list[Append] = []
        self.cuts: list[int] = []
        self._effects: deque[tuple[Stepper, Effect]] = deque()
        self._take(self.leader)

    @property
    def level(self) -> bool:
        return self.follower.context.log.last_point == self.leader.context.log.last_point

    def tick(self) -> None:
        for stepper in (self.leader, self.follower):
            stepper.step(Tick(), after=TICK_S)
            self._take(stepper)

    def _take(self, stepper: Stepper) -> None:
        self._effects += ((stepper, effect) for effect in stepper.effects)
        while self._effects:
            self._run(*self._effects.popleft())

    def _run(self, stepper: Stepper, effect: Effect) -> None:
        match effect:
            case AppendLines() if stepper is self.leader:
                self.lines += effect.lines.splitlines(keepends=True)
            case TruncateLog():
                self.cuts.append(effect.first)
            case SyncLog():
                stepper.step(LogSynced(stepper.context.log.last))
                self._take(stepper)
            case Send():
                own = effect.to == stepper.context.me.node  # An Echo.
                receiver = self.leader if own == (stepper is self.leader) else self.follower
                receiver.step(MessageReceived(effect.message))
                self._take(receiver)
            case SendFromLog():
                first = effect.append.previous.index
                lines = b"".join(self.lines[first : first + effect.append.count])
                self.chunks.append(replace(effect.append, lines=lines))
                self.follower.step(MessageReceived(self.chunks[-1]))
                self._take(self.follower)


def diverged(*, shared: int, leaders: int, followers: int) -> Pair:
    """Logs that share entries and part then, by tails of such lengths."""
    one, other = LogBuilder(), LogBuilder()
    lines = one.open_epoch(1) + one.inserts(shared - 1)
    other.open_epoch(1)
    other.inserts(shared - 1)
    assert one.index.last_point == other.index.last_point
    lines += one.open_epoch(2) + one.inserts(leaders - 1)
    other.inserts(followers, padding=1)
    return Pair(one, lines, other)


def catch_up(pair: Pair, *, ticks_max: int) -> None:
    for _ in range(ticks_max):
        if pair.level:
            return
        pair.tick()
    raise AssertionError(pair.follower.context.log.last_point)


def test_a_tail_that_differs_over_many_chunks_is_replaced() -> None:
    """Most chunks repeat what is known: each must bring the follower nearer to the difference."""
    pair = diverged(shared=200, leaders=100, followers=300)
    catch_up(pair, ticks_max=600)
    assert pair.cuts == [201]
    assert len(pair.chunks) > 10
    assert max(len(chunk.lines) for chunk in pair.chunks) <= CHUNK_BYTES


def test_a_log_that_is_far_behind_is_caught_up_chunk_by_chunk() -> None:
    pair = diverged(shared=1, leaders=200, followers=0)
    catch_up(pair, ticks_max=200)
    assert pair.cuts == []
    firsts = [chunk.previous.index for chunk in pair.chunks]
    assert firsts == sorted(set(firsts))  # Nothing is sent twice.


def test_what_both_have_in_the_end_is_committed() -> None:
    pair = diverged(shared=20, leaders=5, followers=5)
    catch_up(pair, ticks_max=50)
    for _ in range(4):
        pair.tick()
    last = pair.leader.context.log.last
    assert (pair.leader.context.commit, pair.follower.context.commit) == (last, last)
