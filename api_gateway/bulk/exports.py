"""All records of a collection as CSV."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from api_gateway.bulk.csv_records import encode_header, encode_row
from api_gateway.bulk.record_lines import LineSplitter
from api_gateway.errors import NoAnswerError

# Rows that are made before anything else gets its turn: about a millisecond.
_SLICE_ROWS: Final = 100


async def csv_of(
    chunks: AsyncIterator[bytes], columns: Sequence[str]
) -> AsyncGenerator[bytes, None]:
    """A header, then a row for each record.

    Args:
        chunks: Stored records, a line each.
        columns: Which fields.

    Raises:
        NoAnswerError: What came is not that; also what `chunks` raises.
    """
    yield encode_header(columns)
    splitter = LineSplitter()
    async for chunk in chunks:
        rows = []
        for piece in splitter.feed(chunk):
            if piece.data is None:
                raise NoAnswerError("a replica gave a record that is too long to be one")
            rows.append(encode_row(piece.data, columns))
            if len(rows) == _SLICE_ROWS:
                yield b"".join(rows)
                rows = []
                await asyncio.sleep(0)
        if rows:
            yield b"".join(rows)
    if splitter.held_bytes:
        raise NoAnswerError("an export ended within a record")
