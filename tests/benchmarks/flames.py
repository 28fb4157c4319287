"""Where a process's time went, from samples of its stacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Of the packages' directory or of Python's own, all that a reader needs is what follows.
_PLACE: Final = re.compile(r"^(.*) \((?:.*/(?:site-packages|python3\.\d+)/)?(.*?)(?::\d+)?\)$")


@dataclass(frozen=True, slots=True)
class Share:
    """A function's share of all samples.

    Attributes:
        function: Its name and file.
        own: Samples in which it was at work itself, or in what is not Python, of 1.
        total: Samples in which it, or what it called, was.
    """

    function: str
    own: float
    total: float


def shares(folded: Iterable[str]) -> list[Share]:
    """Each function's share, the busiest first.

    Args:
        folded: A stack a line, outermost frame first, frames with semicolons between them, then
            how often it was seen. There may be none.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in folded:
        stack, _, times = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        count = int(times)
        samples += count
        own[frames[-1]] += count
        for frame in set(frames):  # A function that calls itself is there once.
            total[frame] += count
    found = [Share(name, own[name] / samples, total[name] / samples) for name in total]
    return sorted(found, key=lambda share: (-share.own, share.function))


def _short(frame: str) -> str:
    place = _PLACE.match(frame)
    return frame if place is None else f"{place[1]} ({place[2]})"
