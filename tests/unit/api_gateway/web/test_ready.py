"""Answers that are there as a whole look like those that aiohttp completes."""

from __future__ import annotations

import re

import aiohttp
import pytest
from aiohttp import web

from api_gateway.metrics import Metrics
from api_gateway.web.express import Express, ExpressRoute, routed
from api_gateway.web.headers import completing
from api_gateway.web.limits import DEFAULT_LIMITS, Admission
from api_gateway.web.middleware import Around
from api_gateway.web.ready import ready
from replicad.httpd.connection import Limits
from replicad.httpd.messages import Answer, Request
from replicad.httpd.runner import Usual
from tests.support.raw_http import NOTHING_IS_USUAL
from tests.support.web import serving

BODIES = {"small": b'{"a":""}', "large": b'{"a":"%b"}' % (b"x" * 100_000), "empty": b""}
HEADERS = {"etag": {"ETag": '"7"'}, "none": {"X-Replicad-Index": "7"}}


async def get(request: Request, size: str, headers: str, status: str) -> Answer:
    return ready(BODIES[size], status=int(status), headers=HEADERS[headers])


def served() -> tuple[web.Application, Usual]:
    admission = Admission(DEFAULT_LIMITS)
    around = Around(Metrics(), admission, frozenset())
    app = web.Application(middlewares=[around.middleware()])
    app.add_routes([web.get("/v1/{size}/{headers}/{status}", routed(get, 5.0))])
    app.on_response_prepare.append(completing(frozenset()))
    pattern = re.compile("/v1/([a-z]+)/([a-z]+)/([0-9]+)")
    express = Express(Metrics(), admission, [ExpressRoute("GET", pattern, "r", get)])
    return app, Usual(express.serve, Limits(0, keepalive_s=60))


async def told(client: aiohttp.ClientSession, path: str, **headers: str) -> tuple[object, ...]:
    async with client.get(path, headers=headers, skip_auto_headers=["Accept-Encoding"]) as response:
        kept = sorted(each for each in response.headers.items() if each[0] != "Date")
        assert "Date" in response.headers
        return response.status, response.reason, kept, await response.read()


STATUSES = [(size, status) for size in BODIES for status in (200, 201, 404)]


@pytest.mark.parametrize(("size", "status"), [*STATUSES, ("empty", 304)])
@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("coding", [None, "gzip", "zstd", "identity"])
async def test_they_look_alike(size: str, headers: str, status: int, coding: str | None) -> None:
    app, usual = served()
    sent = {} if coding is None else {"Accept-Encoding": coding}
    answers = []
    for way in (usual, NOTHING_IS_USUAL):
        async with serving(app if way is usual else served()[0], way) as client:
            del client.headers["Accept-Encoding"]
            answers.append(await told(client, f"/v1/{size}/{headers}/{status}", **sent))
    assert answers[0] == answers[1]
