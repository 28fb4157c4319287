from __future__ import annotations

from replicad.core.waiting import Waiting, WaitingRoom


def room_of(*waiting: Waiting) -> WaitingRoom:
    room = WaitingRoom()
    for each in waiting:
        room.add(each)
    return room


def write(token: int, index: int, round_: int = 0) -> Waiting:
    return Waiting(token, (), index, round_, 0.0)


def read(token: int, index: int, round_: int) -> Waiting:
    return Waiting(token, None, index, round_, 0.0)


def tokens(released: list[Waiting]) -> list[int]:
    return [waiting.token for waiting in released]


def test_released_in_order_of_arrival_when_both_conditions_hold() -> None:
    room = room_of(write(1, 5), read(2, 4, 9), write(3, 4), write(4, 4, 9))
    assert tokens(room.release(3, 99)) == []
    assert tokens(room.release(4, 8)) == [3]
    assert tokens(room.release(4, 9)) == [2, 4]
    assert tokens(room.release(5, 9)) == [1]
    assert tokens(room.release(99, 99)) == []


def test_writes_that_found_no_room_are_taken_out() -> None:
    room = room_of(write(1, 5), write(2, 6), read(3, 4, 9))
    assert tokens(room.take_from(6)) == [2]
    assert tokens(room.take_all()) == [1, 3]
    assert tokens(room.take_all()) == []


def test_times_are_noted_once_and_for_covered_writes_only() -> None:
    early, late, reader = write(1, 5), write(2, 6), read(3, 4, 9)
    room = room_of(early, late, reader)
    room.note_time("fsync", 5, 0.25)
    room.note_time("fsync", 6, 0.5)
    assert early.timing == {"fsync": 250.0}
    assert late.timing == {"fsync": 500.0}
    assert reader.timing == {}


def test_what_rounds_are_waited_for() -> None:
    room = room_of(write(1, 5), read(2, 4, 7), read(3, 4, 8))
    assert room.highest_round == 8
    oldest = room.oldest_unread(7)
    assert oldest is not None
    assert oldest.token == 3
    assert room.oldest_unread(8) is None
    room.release(4, 8)
    assert room.highest_round == 8  # At most: a write still waits.
    room.release(5, 8)
    assert room.highest_round == 0
