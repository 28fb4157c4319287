"""Logs that insert, update and delete the same few records again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hypothesis import strategies as st

from replicad.core.write import Operation
from tests.support.entries import LogBuilder, batch_of

HOUR_MS: Final = 3_600_000
_COLLECTIONS = ("forms", "forms2", "_collections", "Zones")
_KEYS = ("a", "a.b", "b", "c", "d")
_VALUES = (None, None, b'{"v":1.0}', '{"v":"é"}'.encode(), b'{"value":null}')
_LATER_MS = (0, 1, 1000, 12 * HOUR_MS, 24 * HOUR_MS, 24 * HOUR_MS + 1)


class Step(NamedTuple):
    """One entry: its operations, and how long after the one before it is written."""

    collection: str
    operations: tuple[Operation, ...]
    later_ms: int


def steps(max_size: int = 40) -> st.SearchStrategy[list[Step]]:
    """The entries of a log, of which those that cannot be are left out by `lines_of`."""
    operations = st.builds(Operation, st.sampled_from(_KEYS), st.sampled_from(_VALUES))
    several = st.lists(operations, min_size=1, max_size=4, unique_by=lambda each: each.key)
    step = st.builds(
        Step, st.sampled_from(_COLLECTIONS), several.map(tuple), st.sampled_from(_LATER_MS)
    )
    return st.lists(step, min_size=1, max_size=max_size)


def lines_of(log: LogBuilder, entries: Sequence[Step]) -> list[bytes]:
    """The lines of a log of these entries: nothing is deleted that is not there."""
    lines = [log.open_epoch(1)]
    present: set[tuple[str, str]] = set()
    time_ms = 0
    for number, step in enumerate(entries):
        names = {(step.collection, each.key): each for each in step.operations}
        possible = [each for name, each in names.items() if each.value or name in present]
        time_ms += step.later_ms
        if possible:
            present |= {name for name, each in names.items() if each.value}
            present -= {name for name, each in names.items() if not each.value}
            write = batch_of(*possible, request=f'"{number}\\', collection=step.collection)
            lines.append(log.write(write, time_ms=time_ms))
    return lines
