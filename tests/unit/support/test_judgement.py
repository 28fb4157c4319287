"""What the judge of the fault tests must not let pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.history import History, Insert
from tests.support.judgement import assert_inserts, assert_one_leader_an_epoch


def entry(index: int, key: str, value: str) -> dict[str, Any]:
    return {"index": index, "operation": "insert", "key": key, "value": {"valor": value}}


def history(*inserts: Insert) -> History:
    return History((), "p", 1, inserts=list(inserts))


STORED = Insert("p-1", "a", index=2)
REFUSED = Insert("p-1", "b", refused=503)
UNKNOWN = Insert("p-2", "c")


def test_what_was_promised_is_there() -> None:
    assert_inserts(history(STORED, REFUSED, UNKNOWN), [entry(2, "p-1", "a"), entry(3, "x", "y")])
    assert_inserts(history(STORED, UNKNOWN), [entry(2, "p-1", "a"), entry(3, "p-2", "c")])


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ([], "acknowledged and lost"),
        ([entry(2, "p-1", "b")], "acknowledged and lost"),
        ([entry(2, "p-2", "a")], "p-1"),
        ([entry(3, "p-1", "a")], "p-1"),
        ([entry(2, "p-1", "a"), entry(3, "p-1", "a")], "p-1"),
        ([entry(2, "p-1", "a"), entry(3, "p-2", "a")], "two keys"),
        ([entry(2, "p-1", "a"), entry(3, "p-3", "b")], "refused and stored"),
        ([entry(2, "p-1", "a"), entry(3, "p-4", "z")], "nobody asked"),
    ],
)
def test_a_broken_promise_is_seen(found: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        assert_inserts(history(STORED, REFUSED, UNKNOWN), found)


def test_an_epoch_is_opened_once() -> None:
    opened = [{"operation": "epoch", "epoch": epoch} for epoch in (1, 2, 4)]
    assert_one_leader_an_epoch(opened)
    with pytest.raises(AssertionError):
        assert_one_leader_an_epoch([*opened, {"operation": "epoch", "epoch": 2}])
