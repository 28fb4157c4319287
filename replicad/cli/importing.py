"""Cuts a file of records into what is sent for each, and remembers where each began."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import BinaryIO

from replicad.errors import ReplicadError


class ImportSourceError(ReplicadError):
    """The file cannot be imported as it is."""


@dataclass
class Source:
    """The records of one file.

    Attributes:
        file: Read once, from where it stands.
        csv: Whether the first row names the fields, and a record may have several lines.
        skip: How many records are not to be sent: an earlier run was told about them.
        header: The first row of CSV, once the first record was taken.
        read_bytes: How much was read.
        lines: Where the records that have no answer yet began, by line, from 1.
    """

    file: BinaryIO | BufferedIOBase
    csv: bool
    skip: int = 0
    header: bytes = b""
    read_bytes: int = 0
    lines: deque[int] = field(default_factory=deque)
    _line: int = 1

    @property
    def size(self) -> int | None:
        """Of the file in bytes; None for a pipe."""
        try:
            size = os.fstat(self.file.fileno()).st_size
        except OSError:
            return None
        return size or None

    def begin(self) -> None:
        """Read the header.

        Raises:
            ImportSourceError: CSV without a first row.
        """
        if self.csv:
            self.header = next((row for _, row in self._rows()), b"")
            if not self.header:
                raise ImportSourceError("CSV needs a first row with the names of the fields")

    def records(self) -> Iterator[bytes]:
        """Each record's bytes; to be called once, after `begin`."""
        for number, (line, row) in enumerate(self._rows()):
            if number >= self.skip:
                self.lines.append(line)
                yield row

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        """Lines, or what is one row of CSV: lines until their quotes are even."""
        row, began = b"", self._line
        for line in self.file:
            self.read_bytes += len(line)
            self._line += 1
            row += line
            if self.csv and row.count(b'"') % 2:
                continue
            if row.strip():
                yield began, row
            row, began = b"", self._line
        if row.strip():
            yield began, row
