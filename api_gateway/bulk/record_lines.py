"""Cuts a stream of bytes into the lines or CSV rows that hold a record each. Pure.

Whatever is in the stream, no more than one record's limit is held.

Source: RFC 4180 for rows; its quotes open a cell only at the cell's beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

RECORD_BYTES_MAX: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
# All cells of a line. Caught is the end of one whose quote does not close, which matches, too:
# before 3.11.5 Python's `(...)*+` skips what a last repetition consumes that fails (gh-106052).
_CELLS: Final = re.compile(
    rb'(?:"[^"]*+(?:""[^"]*+)*+(?:"(?!")[^,]*+(?:,|\Z)|(\Z))|(?!")[^,]*+(?:,|\Z))*+', re.DOTALL
)
_CLOSING: Final = re.compile(rb'[^"]*+(?:""[^"]*+)*+"(?!")[^,]*+(?:,|\Z)', re.DOTALL)


class Piece(NamedTuple):
    """One record's bytes, without the line end.

    Attributes:
        line: Where it begins in the stream, counted from 1.
        data: None if it has more than RECORD_BYTES_MAX.
    """

    line: int
    data: bytes | None


class Splitter(Protocol):
    """Cuts a stream into records."""

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """The records that end in this chunk; to be used up before the next one is fed."""

    def end(self) -> Iterator[Piece]:
        """The last record, if no line end follows it."""

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished record is kept."""

    @property
    def unclosed_line(self) -> int:
        """Where the last record begins if it has no end, only the stream has; 0 otherwise."""


class LineSplitter:
    """One record a line. Lines of white space hold none; a byte order mark is no part of any."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._lines = _Lines()

    @property
    def held_bytes(self) -> int:
        """As in Splitter."""
        return self._lines.held_bytes

    @property
    def unclosed_line(self) -> int:
        """As in Splitter: a line ends with the stream."""
        return 0

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """As in Splitter."""
        return filter(_is_filled, self._lines.feed(chunk))

    def end(self) -> Iterator[Piece]:
        """As in Splitter."""
        return filter(_is_filled, self._lines.end())


class RowSplitter:
    """One record a CSV row, which goes on over line ends within quotes. Empty lines hold none."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._lines = _Lines()
        self._row = bytearray()
        self._begin = 0  # The line in which the unfinished row begins; 0 if there is none.
        self._too_long = False
        self._unclosed_line = 0

    @property
    def held_bytes(self) -> int:
        """As in Splitter."""
        return len(self._row) + self._lines.held_bytes

    @property
    def unclosed_line(self) -> int:
        """As in Splitter: one of its quotes does not close. Known when the end was used up."""
        return self._unclosed_line

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """As in Splitter."""
        for piece in self._lines.feed(chunk):
            yield from self._add(piece)

    def end(self) -> Iterator[Piece]:
        """As in Splitter. A row whose quotes do not close ends here, too."""
        for piece in self._lines.end():
            yield from self._add(piece)
        if self._begin:
            self._unclosed_line = self._begin
            yield self._finish()

    def _add(self, piece: Piece) -> Iterator[Piece]:
        line, data = piece
        if data is None:
            # Nobody knows which quotes are open after it: a new row is supposed to begin.
            self._begin, self._too_long = self._begin or line, True
            yield self._finish()
        elif self._begin:
            self._hold(b"\n" + data)
            if _closes(data):
                yield self._finish()
        elif b'"' not in data or _has_only_whole_cells(data):
            if _is_filled(piece):
                yield Piece(line, data.removesuffix(b"\r"))
        else:
            self._begin = line
            self._hold(data)

    def _hold(self, part: bytes) -> None:
        self._too_long = self._too_long or len(self._row) + len(part) > RECORD_BYTES_MAX
        if self._too_long:
            self._row.clear()
        else:
            self._row += part

    def _finish(self) -> Piece:
        data = None if self._too_long else bytes(self._row).removesuffix(b"\r")
        piece = Piece(self._begin, data)
        self._begin, self._too_long = 0, False
        self._row.clear()
        return piece


class _Lines:
    """All lines, empty ones included, without the byte order mark."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._too_long = False
        self._line = 1

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        *ended, rest = chunk.split(b"\n")
        if ended:
            self._hold(ended[0])
            yield self._cut()
        for part in ended[1:]:
            yield Piece(self._line, part if len(part) <= RECORD_BYTES_MAX else None)
            self._line += 1
        self._hold(rest)

    def end(self) -> Iterator[Piece]:
        if self._held or self._too_long:
            yield self._cut()

    def _hold(self, part: bytes) -> None:
        self._too_long = self._too_long or len(self._held) + len(part) > RECORD_BYTES_MAX
        if self._too_long:
            self._held.clear()
        else:
            self._held += part

    def _cut(self) -> Piece:
        data = bytes(self._held)
        if self._line == 1:
            data = data.removeprefix(_BOM)
        piece = Piece(self._line, None if self._too_long else data)
        self._line += 1
        self._too_long = False
        self._held.clear()
        return piece


def _is_filled(piece: Piece) -> bool:
    _, data = piece
    return data is None or data.strip() != b""


def _closes(data: bytes) -> bool:
    """Whether a row within quotes ends with this line."""
    closing = _CLOSING.match(data)
    return closing is not None and _has_only_whole_cells(data, closing.end())


def _has_only_whole_cells(data: bytes, begin: int = 0) -> bool:
    cells = _CELLS.fullmatch(data, begin)
    return cells is not None and cells[1] is None
