"""What the roles of one replica share."""

from __future__ import annotations

import pytest

from replicad.core.entry import format_time
from tests.support.core import UNIX_MS, context_of


@pytest.mark.parametrize("later_ms", [0, 1, 999, 1000, 86_400_000])
def test_the_time_of_entries_is_the_wall_clocks(later_ms: int) -> None:
    context = context_of()
    for unix_ms in (UNIX_MS, UNIX_MS + later_ms):
        context.unix_ms = unix_ms
        assert context.wall_time() == format_time(unix_ms)


@pytest.mark.parametrize("back_ms", [1, 1000, 86_400_000])
def test_the_time_of_entries_never_goes_back(back_ms: int) -> None:
    context = context_of()
    context.unix_ms = UNIX_MS
    first = context.wall_time()
    context.unix_ms = UNIX_MS - back_ms
    assert context.wall_time() == first
    context.note_time(format_time(UNIX_MS + 5))
    assert context.wall_time() == format_time(UNIX_MS + 5)
