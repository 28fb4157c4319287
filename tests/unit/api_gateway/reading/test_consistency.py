from __future__ import annotations

import aiohttp
import pytest

from tests.support.fake_leader import FakeLeader, form

PATHS = [
    "/API/ObtenerUnFormulario/a",
    "/API/VerificaFormularioDuplicado/a",
    "/API/ObtenerTodosLosFormularios",
    "/API/ObtenerGeneros/x",
]
LEVEL, INDEX = "X-Replicad-Consistency", "X-Replicad-Min-Index"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("level", ["strong", "session", "local"])
@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_level_is_chosen(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str, level: str, by: str
) -> None:
    leader.forms["a"] = form("a", genero="x")
    headers, query = {INDEX: "1"}, {}
    if by == "header":
        headers[LEVEL] = level
        query["consistency"] = "whatever"  # The header wins.
    else:
        query["consistency"] = level
    async with gateway.get(path, headers=headers, params=query) as response:
        assert response.status == 200
        assert response.headers[LEVEL] == level


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(LEVEL, "eventual")], ""),
        ([(LEVEL, "")], ""),
        ([(LEVEL, "STRONG")], ""),
        ([(LEVEL, "local"), (LEVEL, "local")], ""),
        ([(LEVEL, "eventual")], "consistency=local"),
        ([], "consistency=eventual"),
        ([], "consistency=local&consistency=strong"),
        ([], "consistency="),
        ([], "consistency=session"),
        ([(LEVEL, "session")], ""),
        ([(LEVEL, "session"), (INDEX, "")], ""),
        ([(LEVEL, "session"), (INDEX, "-1")], ""),
        ([(LEVEL, "session"), (INDEX, "1.5")], ""),
        ([(LEVEL, "session"), (INDEX, "1_0")], ""),
        ([(LEVEL, "session"), (INDEX, "٣")], ""),
        ([(LEVEL, "session"), (INDEX, "9" * 19)], ""),
        ([(LEVEL, "session"), (INDEX, "1"), (INDEX, "1")], ""),
        ([(INDEX, "x")], ""),
    ],
)
async def test_what_is_no_level_or_index_is_refused(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    headers: list[tuple[str, str]],
    query: str,
) -> None:
    for path in PATHS:
        async with gateway.get(f"{path}?{query}", headers=headers) as response:
            assert response.status == 400
            answer = await response.json()
        assert answer["status"] == "error"
        assert "strong" in answer["message"] or INDEX in answer["message"]
    assert not leader.batches["gets"]
    assert leader.reads == 0
