"""What the options of `stack up` come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replicad.errors import StackError
from replicad.stack.commands import Wishes, merge, settle
from replicad.stack.record import Record, Settings

MADE = Settings("embedded", 3, 2, 1, lists_gateways=False, gateway_port=None)


def test_the_defaults() -> None:
    assert settle(Wishes(backend="embedded")) == MADE


@pytest.mark.parametrize(
    ("replicas", "min_in_sync", "expected"), [(5, None, 3), (5, "all", 5), (1, None, 1), (3, 1, 1)]
)
def test_min_in_sync(replicas: int, min_in_sync: int | str | None, expected: int) -> None:
    wishes = Wishes(backend="embedded", replicas=replicas, min_in_sync=min_in_sync)
    assert settle(wishes).min_in_sync == expected


def test_min_in_sync_beyond_the_replicas() -> None:
    with pytest.raises(StackError, match="--min-in-sync 4 does not fit 3 replicas"):
        settle(Wishes(backend="embedded", min_in_sync=4))


def test_gateways_are_listed_once_a_number_was_given() -> None:
    assert settle(Wishes(backend="embedded", gateways=1)).lists_gateways
    assert merge(Record(Path(), MADE), Wishes(gateways=1)).lists_gateways


@pytest.mark.parametrize(
    "same", [Wishes(), Wishes("embedded", 3, 2, 1), Wishes(min_in_sync=2, replicas=3)]
)
def test_options_that_agree_with_the_first_start(same: Wishes) -> None:
    assert replace(merge(Record(Path(), MADE), same), lists_gateways=False) == MADE


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Wishes(backend="native"), "--backend embedded, not native"),
        (Wishes(replicas=5), "--replicas 3, not 5"),
        (Wishes(min_in_sync="all"), "--min-in-sync 2, not 3"),
        (Wishes(gateways=2), "--gateways 1, not 2"),
    ],
)
def test_options_that_contradict_it(other: Wishes, message: str) -> None:
    with pytest.raises(StackError, match=message):
        merge(Record(Path("/dir"), MADE), other)


def test_another_gateway_port_while_it_is_down() -> None:
    assert merge(Record(Path(), MADE), Wishes(gateway_port=8080)).gateway_port == 8080
    given = replace(MADE, gateway_port=8080)
    assert merge(Record(Path(), given), Wishes()).gateway_port == 8080
