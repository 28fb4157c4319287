"""Whose fault it is when acks stay out (rule 12): lag is measured against echoes, not the clock."""

from __future__ import annotations

from replicad.core.context import Settings
from replicad.core.followers import Followers
from replicad.core.messages import Ack, Point
from tests.support.core import disk, disks

SETTINGS = Settings(heartbeat_s=0.1, lag_max_s=1.0, stall_s=0.5)
N2, N3 = disks("n2", "n3")


def followers() -> Followers:
    return Followers(SETTINGS, (N2, N3), 0.0)


def ack(index: int, round_: int, node: str = "n2", generation: int = 1) -> Ack:
    return Ack(1, *disk(node, generation), Point(index, b""), round_)


def live(seen: Followers, start: float, end: float, *, last: int = 0, n2_acks: bool = True) -> None:
    """The leader sends and hears its echo ten times a second; n2 may answer everything."""
    for tenth in range(round(start * 10) + 1, round(end * 10) + 1):
        now = tenth / 10
        seen.note_sent(tenth, last, now)
        seen.note_echo(now, now)
        if n2_acks:
            seen.note_ack(ack(last, tenth), now)


def test_a_follower_that_answers_does_not_lag() -> None:
    seen = followers()
    live(seen, 0, 5)
    assert not seen.lags(N2)


def test_a_silent_follower_lags() -> None:
    seen = followers()
    live(seen, 0, 0.9)
    assert not seen.lags(N3)
    live(seen, 0.9, 1.2)
    assert seen.lags(N3)


def test_a_follower_that_answers_but_stays_behind_lags() -> None:
    seen = followers()
    live(seen, 0, 1, last=5)
    live(seen, 1, 3, last=9, n2_acks=False)
    seen.note_ack(ack(5, 30), 3.0)
    assert seen.lags(N2)
    seen.note_ack(ack(9, 30), 3.0)
    assert not seen.lags(N2)


def test_a_stalled_broker_blames_nobody() -> None:
    seen = followers()
    for tenth in range(100):
        seen.note_sent(tenth, 0, tenth / 10)  # No echo comes back.
    assert not seen.lags(N2)
    assert not seen.lags(N3)


def test_after_a_stall_lag_counts_anew() -> None:
    seen = followers()
    seen.note_sent(1, 0, 0.1)
    seen.note_echo(0.1, 9.9)
    seen.note_echo(9.8, 9.9)
    assert not seen.lags(N3)
    live(seen, 9.9, 11.2)
    assert seen.lags(N3)
    assert not seen.lags(N2)


def test_after_a_reconnect_lag_counts_anew() -> None:
    seen = followers()
    live(seen, 0, 0.9)
    seen.grant_grace(0.9)
    live(seen, 0.9, 1.8)
    assert not seen.lags(N3)


def test_who_lagged_before_a_reconnect_still_lags() -> None:
    """Else a dead replica would be admitted after every restart of the broker."""
    seen = followers()
    live(seen, 0, 1.2)
    seen.grant_grace(1.2)
    assert seen.lags(N3)


def test_a_disk_that_never_matched_gets_no_grace() -> None:
    seen = followers()
    seen.note_heard(disk("n2", 2), 0.0)
    seen.grant_grace(5.0)
    assert seen.lags(disk("n2", 2))
    assert seen.lags(disk("stranger"))


def test_acks_count_for_their_disk_only() -> None:
    """Rule 1."""
    seen = followers()
    seen.note_ack(ack(7, 3, generation=2), 0.1)
    old, new = seen.progress[N2], seen.progress[disk("n2", 2)]
    assert (old.matched, old.round) == (0, 0)
    assert (new.matched, new.round) == (7, 3)
    assert seen.highest_match("n2") == 7


def test_late_and_doubled_acks_take_nothing_back() -> None:
    seen = followers()
    seen.note_ack(ack(7, 3), 0.1)
    seen.note_ack(ack(5, 2), 0.2)
    assert (seen.matched(N2), seen.progress[N2].round) == (7, 3)


def test_holders_are_those_that_match() -> None:
    seen = followers()
    seen.note_ack(ack(7, 3), 0.1)
    seen.note_ack(ack(6, 3, "n3"), 0.1)
    assert seen.holders(7) == {"n2"}
    assert seen.holders(6) == {"n2", "n3"}
    assert seen.highest_match("nobody") == 0
