"""A follower whose entries are in nobody's log any more (rule 7)."""

from __future__ import annotations

import pytest

from replicad.core.effects import FetchSnapshot, Halt, InstallSnapshot, PersistEpoch, Send
from replicad.core.events import MessageReceived, SnapshotFetched, SnapshotInstalled, Tick
from replicad.core.log import LogIndex
from replicad.core.messages import Ack, Fetch, Offer, Point
from tests.support.core import Stepper, ack_from, append_of, context_of, disk, leading
from tests.support.entries import LogBuilder

TIME = "2026-11-23T08:00:00.000Z"
BASE = Point(100, b"b" * 32)


def snapshot(index: int) -> Point:
    return Point(index, b"s" * 32)


def offered(own: int = 5) -> Stepper:
    """A follower whose log ends far before the leader's base; it has been told so."""
    log = LogBuilder()
    log.inserts(own)
    stepper = Stepper(context_of("n1", log.index, epoch=1))
    stepper.step(MessageReceived(append_of(snapshot(300), epoch=1, last=300)))
    stepper.step(MessageReceived(Offer(1, "n2", BASE)))
    assert stepper.only(FetchSnapshot).at_least == BASE.index
    return stepper


def install(stepper: Stepper, point: Point, epoch: int = 1) -> None:
    """As the store and the driver do."""
    stepper.step(SnapshotFetched(point, epoch))
    assert stepper.only(InstallSnapshot).point == point
    log: LogIndex = stepper.context.log
    log.reset(point, epoch, start=log.end)
    stepper.step(SnapshotInstalled(point, TIME))


def test_after_the_snapshot_it_goes_on_with_the_log() -> None:
    stepper = offered()
    install(stepper, snapshot(200))
    fetch = stepper.only(Send).message
    assert isinstance(fetch, Fetch)
    assert fetch.points == (snapshot(200),)
    context = stepper.context
    assert (context.commit, context.applied, context.synced) == (200, 200, 200)
    stepper.step(MessageReceived(append_of(snapshot(200), epoch=1, last=200)))
    ack = stepper.only(Send).message
    assert isinstance(ack, Ack)
    assert ack.matched == snapshot(200)


def test_an_offer_that_is_late_or_doubled_is_harmless() -> None:
    stepper = offered()
    stepper.step(MessageReceived(Offer(1, "n2", BASE)))
    assert not stepper.every(FetchSnapshot)
    install(stepper, snapshot(200))
    stepper.step(MessageReceived(Offer(1, "n2", BASE)))
    assert not stepper.effects


def test_while_it_fetches_it_does_not_ask_again() -> None:
    stepper = offered()
    stepper.step(MessageReceived(append_of(snapshot(300), epoch=1, last=300)), after=9.0)
    assert not stepper.every(Send)


def test_when_nobody_has_a_snapshot_it_asks_again() -> None:
    stepper = offered()
    stepper.step(SnapshotFetched(None, 0))
    stepper.step(MessageReceived(append_of(snapshot(300), epoch=1, last=300)), after=9.0)
    assert isinstance(stepper.only(Send).message, Fetch)
    stepper.step(MessageReceived(Offer(1, "n2", BASE)))
    assert stepper.every(FetchSnapshot)


def test_the_epoch_of_a_snapshot_is_promised_before_it_is_taken() -> None:
    """Rule 4. Otherwise a deposed leader would still be answered, with a newer log."""
    stepper = offered()
    effects = stepper.step(SnapshotFetched(snapshot(300), 2))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(PersistEpoch) < kinds.index(InstallSnapshot)
    stepper.context.log.reset(snapshot(300), 2, start=0)
    stepper.step(SnapshotInstalled(snapshot(300), TIME))
    stepper.step(MessageReceived(append_of(Point(300, b"x" * 32), epoch=1, last=300)))
    assert not stepper.every(Halt)


def test_a_log_that_has_come_so_far_by_itself_is_kept() -> None:
    stepper = offered(own=50)
    point = stepper.context.log.point(40)
    stepper.step(SnapshotFetched(point, 1))
    assert not stepper.every(InstallSnapshot)


def test_a_log_that_holds_the_base_asks_for_what_follows_it() -> None:
    """The two logs part behind the base, which was not among the points."""
    log = LogBuilder()
    log.inserts(50)
    stepper = Stepper(context_of("n1", log.index, epoch=1))
    base = log.index.point(37)
    stepper.step(MessageReceived(append_of(snapshot(300), epoch=1, last=300)))
    stepper.step(MessageReceived(Offer(1, "n2", base)))
    fetch = stepper.only(Send).message
    assert isinstance(fetch, Fetch)
    assert base in fetch.points


def retained() -> Stepper:
    """A leader whose log begins after entry 100."""
    return leading(context_of("n1", LogIndex(BASE, 1), epoch=1, commit=100))


def test_a_leader_offers_where_its_log_begins() -> None:
    stepper = retained()
    n2 = disk("n2")
    points = (Point(5, b"5" * 32), Point(0, b"g" * 32))
    stepper.step(MessageReceived(Fetch(2, n2.node, n2.disk_id, points)))
    assert stepper.only(Send) == Send("n2", Offer(2, "n1", BASE))


def test_an_ack_from_before_the_base_is_no_mismatch() -> None:
    """It proves nothing; the follower is on its way."""
    stepper = retained()
    stepper.step(Tick(), after=0.2)
    ack = ack_from(stepper.context, disk("n3", 2), stepper.context.log.last)
    stepper.step(MessageReceived(Ack(2, "n3", ack.disk_id, Point(5, b"5" * 32), 1)))
    assert not stepper.effects


@pytest.mark.parametrize("previous", [5, 99])
def test_what_comes_from_before_the_own_base_is_not_judged(previous: int) -> None:
    stepper = Stepper(context_of("n1", LogIndex(BASE, 1), epoch=1, commit=100))
    stepper.step(MessageReceived(append_of(Point(previous, b"?" * 32), epoch=1, last=300)))
    assert isinstance(stepper.only(Send).message, Fetch)
    assert not stepper.context.halted
