"""Cuts a file of records into what is sent for each, and remembers where each began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import BinaryIO, Final

from replicad.errors import ReplicadError

# A quote that never closes would else collect all that follows; the gateway refuses it anyway.
_ROW_BYTES_MAX: Final = 1024 * 1024


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
        lines: Where each record that has no answer yet began, by line, from 1; by its number among
            those that are sent, from 1.
    """

    file: BinaryIO | BufferedIOBase
    csv: bool
    skip: int = 0
    header: bytes = b""
    read_bytes: int = 0
    lines: dict[int, int] = field(default_factory=dict)
    _taken: int = 0
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
            ImportSourceError: CSV without a first row, or with other line ends.
        """
        if self.csv:
            self.header = next((row for _, row in self._rows()), b"")
            if not self.header:
                raise ImportSourceError("CSV needs a first row with the names of the fields")
            if b"\r" in self.header.removesuffix(b"\r\n"):
                raise ImportSourceError("rows must end with LF or CRLF, not with CR alone")

    def records(self) -> Iterator[bytes]:
        """Each record's bytes; to be called once, after `begin`."""
        for number, (line, row) in enumerate(self._rows()):
            if number >= self.skip:
                self._taken += 1
                self.lines[self._taken] = line
                yield row

    @property
    def answered(self) -> int:
        """How many records from the file's beginning on all have an answer: `skip` for a next run.

        Not how many have one: where an import broke, later ones may have it before earlier ones.
        """
        return self.skip + next(iter(self.lines), self._taken + 1) - 1

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        """Lines, or what is one row of CSV: lines until their quotes are even."""
        row, began, is_open = bytearray(), self._line, False
        for line in self.file:
            self.read_bytes += len(line)
            self._line += 1
            row += line
            is_open ^= self.csv and line.count(b'"') % 2 == 1
            if is_open and len(row) <= _ROW_BYTES_MAX:
                continue
            if row.strip():
                yield began, bytes(row)
            row, began, is_open = bytearray(), self._line, False
        if row.strip():
            yield began, bytes(row)
