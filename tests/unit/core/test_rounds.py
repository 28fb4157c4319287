"""Rounds, and reads of ZooKeeper that stand for one (rule 11)."""

from __future__ import annotations

import pytest

from replicad.core.context import Context
from replicad.core.effects import ReadState
from replicad.core.rounds import Rounds
from replicad.core.waiting import Waiting, WaitingRoom
from tests.support.core import context_of, every


@pytest.fixture
def context() -> Context:
    return context_of()


def room(context: Context, round_: int) -> WaitingRoom:
    waiting = WaitingRoom()
    waiting.add(Waiting(1, None, 0, round_, context.now))
    return waiting


@pytest.mark.parametrize(("others", "confirmed"), [([3, 2], 2), ([3, 0], 0), ([3, 3], 3), ([], 3)])
def test_a_round_is_confirmed_by_every_other_member(
    context: Context, others: list[int], confirmed: int
) -> None:
    rounds = Rounds(context)
    for _ in range(3):
        rounds.begin()
    assert rounds.confirmed(others) == confirmed


def test_the_coordinator_is_asked_only_when_a_round_stays_out(context: Context) -> None:
    rounds = Rounds(context)
    waiting = room(context, 1)
    context.now += context.settings.read_fallback_s / 2
    rounds.ask_coordinator(waiting)
    assert not context.finish()
    context.now += context.settings.read_fallback_s / 2
    rounds.ask_coordinator(waiting)
    assert every(context.finish(), ReadState) == [ReadState(1)]
    rounds.ask_coordinator(waiting)
    assert not context.finish()


def test_nobody_waits_and_nobody_asks(context: Context) -> None:
    context.now += 10
    Rounds(context).ask_coordinator(WaitingRoom())
    assert not context.finish()


def ask(context: Context) -> tuple[Rounds, int]:
    rounds = Rounds(context)
    waiting = room(context, 1)
    context.now += context.settings.read_fallback_s
    rounds.ask_coordinator(waiting)
    (effect,) = every(context.finish(), ReadState)
    return rounds, effect.token


def test_being_named_confirms_what_waited_before_the_question(context: Context) -> None:
    rounds, token = ask(context)
    rounds.on_coordinator_read(token, named=True)
    assert rounds.confirmed([0]) == token
    assert rounds.current + 1 > token  # A read that arrives now waits for another.


def test_not_being_named_or_not_having_asked_confirms_nothing(context: Context) -> None:
    rounds, token = ask(context)
    rounds.on_coordinator_read(token, named=False)
    rounds.on_coordinator_read(0, named=True)
    rounds.on_coordinator_read(token + 1, named=True)
    assert rounds.confirmed([0]) == 0
