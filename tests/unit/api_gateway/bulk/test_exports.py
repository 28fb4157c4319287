from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from api_gateway.bulk.exports import csv_of
from api_gateway.bulk.record_lines import RECORD_BYTES_MAX
from api_gateway.errors import NoAnswerError
from tests.support.bulk import in_parts

COLUMNS = ["id", "n"]


async def rows(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([rows async for rows in csv_of(chunks, COLUMNS)])


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_each_record_is_a_row_however_it_arrives(size: int) -> None:
    lines = b"".join(orjson.dumps({"n": n, "id": str(n)}) + b"\n" for n in range(250))
    chunks = in_parts(lines[at : at + size] for at in range(0, len(lines), size))
    assert await rows(chunks) == b"id,n\r\n" + b"".join(b"%d,%d\r\n" % (n, n) for n in range(250))


async def test_no_records_are_a_header() -> None:
    assert await rows(in_parts([])) == b"id,n\r\n"


@pytest.mark.parametrize("chunk", [b'{"id":"a"}\n{"id"', b"x" * (RECORD_BYTES_MAX + 1) + b"\n"])
async def test_what_is_not_whole_does_not_look_complete(chunk: bytes) -> None:
    with pytest.raises(NoAnswerError):
        await rows(in_parts([chunk]))
