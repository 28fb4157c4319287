from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api_gateway.bulk.record_lines import (
    RECORD_BYTES_MAX,
    LineSplitter,
    Piece,
    RowSplitter,
    Splitter,
)


def split(splitter: Splitter, chunks: Iterable[bytes]) -> list[Piece]:
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)]
    return pieces + list(splitter.end())


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


@given(st.binary(), st.lists(st.integers(min_value=0)))
def test_lines_are_the_same_however_they_arrive(data: bytes, cuts: list[int]) -> None:
    expected = [
        Piece(number, line)
        for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
        if line.strip()
    ]
    assert split(LineSplitter(), cut(data, cuts)) == expected


texts = st.text(st.sampled_from('a",\r\n é'))


@example([["", "\n"]], [])  # Early versions of Python 3.11 take the end of a line for a cell's.
@given(st.lists(st.lists(texts, min_size=2, max_size=3)), st.lists(st.integers(min_value=0)))
def test_rows_are_those_that_were_written(rows: list[list[str]], cuts: list[int]) -> None:
    file = StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    pieces = split(RowSplitter(), cut(file.getvalue().encode(), cuts))
    read = [
        next(csv.reader(StringIO(str(data, "utf-8"), newline=""))) for _, data in pieces if data
    ]
    assert read == rows
    lines = file.getvalue().encode().split(b"\n")
    assert all(lines[line - 1].startswith(b'"') for line, _ in pieces)


@given(st.binary(), st.lists(st.integers(min_value=0)))
def test_rows_of_any_bytes_are_the_same_however_they_arrive(data: bytes, cuts: list[int]) -> None:
    assert split(RowSplitter(), cut(data, cuts)) == split(RowSplitter(), [data])


def test_a_quote_within_a_plain_cell_opens_nothing() -> None:
    data = b'a,5" x 6,b\n"c ""d"", e"x,f\ng\n'
    assert [line for line, _ in split(RowSplitter(), [data])] == [1, 2, 3]


def test_a_row_without_a_closing_quote_ends_with_the_stream() -> None:
    splitter = RowSplitter()
    assert split(splitter, [b'a\n"b\n\nc']) == [(1, b"a"), (2, b'"b\n\nc')]
    assert splitter.unclosed_line == 2


@pytest.mark.parametrize("rows", [b"a", b'"a\n"', b'"a\n"\n', b'5" x 6'])
def test_a_quote_that_closes_is_none_that_does_not(rows: bytes) -> None:
    splitter = RowSplitter()
    split(splitter, [rows])
    assert splitter.unclosed_line == 0


@pytest.mark.parametrize("splitter", [LineSplitter(), RowSplitter()], ids=["lines", "rows"])
def test_what_is_too_long_is_told_and_not_held(splitter: Splitter) -> None:
    pieces: list[Piece] = []
    for _ in range(40):
        pieces += splitter.feed(b"x" * 65_536)
        assert splitter.held_bytes <= RECORD_BYTES_MAX
    pieces += splitter.feed(b"\nb\n")
    assert pieces == [(1, None), (2, b"b")]


def test_a_row_of_many_lines_that_is_too_long_ends_where_its_quote_does() -> None:
    splitter = RowSplitter()
    pieces = list(splitter.feed(b'"'))
    for _ in range(40):
        pieces += splitter.feed(b"x" * 65_536 + b"\n")
        assert splitter.held_bytes <= RECORD_BYTES_MAX + 65_536
    pieces += splitter.feed(b'",a\nb\n')
    assert pieces == [(1, None), (42, b"b")]


@pytest.mark.parametrize("splitter", [LineSplitter(), RowSplitter()], ids=["lines", "rows"])
def test_a_record_of_the_longest_size_is_one(splitter: Splitter) -> None:
    data = b"x" * RECORD_BYTES_MAX
    assert split(splitter, [data + b"\n" + data]) == [(1, data), (2, data)]
