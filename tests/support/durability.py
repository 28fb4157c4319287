"""Whether a replica says of an entry that it holds it only when the disk does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

from tests.support.logs import log_bytes
from tests.support.syscalls import Call


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica's process and files, and how long its log was before it was traced."""

    name: str
    pid: int
    data_dir: Path
    length: int

    @classmethod
    def found(cls, name: str, pid: int) -> Self:
        """The replica of a process that runs, whose command tells where its data are."""
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        data_dir = Path(command[command.index("--data-dir") + 1])
        return cls(name, pid, data_dir, len(log_bytes(data_dir)))

    def ends(self) -> list[int]:
        """How long the log is with each entry, by the entry's index."""
        lines = log_bytes(self.data_dir).splitlines(keepends=True)
        return [0, *accumulate(len(line) for line in lines)]

    def durable(self, traced: Sequence[Call]) -> list[tuple[int, int]]:
        """From which position on how many bytes of its log were durable, at least."""
        written = [(-1, self.length)]
        durable = [(-1, self.length)]
        for call in traced:
            if not re.fullmatch(rf"{self.data_dir}/log/\d+\.jsonl", call.file):
                continue
            if call.syncs:
                # What is written while a sync runs is not covered by it.
                covered = max(size for ended, size in written if ended < call.began)
                durable.append((call.ended, covered))
            else:
                written.append((call.ended, written[-1][1] + max(0, call.result)))
        return durable

    def said(self, traced: Sequence[Call], pattern: re.Pattern[bytes]) -> list[tuple[int, int]]:
        """At which position it began to send what speaks of which entry."""
        return [
            (call.began, int(index))
            for call in traced
            if call.thread == self.pid and call.file.startswith("socket:")
            for index in pattern.findall(call.data)
        ]

    def assert_said_when_durable(
        self, traced: Sequence[Call], said: Sequence[tuple[int, int]]
    ) -> None:
        """Whatever it said of an entry, all of its log up to there was durable before."""
        ends, durable = self.ends(), self.durable(traced)
        for position, index in said:
            size = max(size for ended, size in durable if ended < position)
            assert size >= ends[index], (self.name, index)
