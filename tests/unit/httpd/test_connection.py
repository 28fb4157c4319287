"""Whatever comes over a connection is answered as by aiohttp alone, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from aiohttp import web

from replicad.httpd import connection
from replicad.httpd.connection import Limits
from replicad.httpd.messages import Answer, Request
from replicad.httpd.runner import Usual
from replicad.node.usual import routed
from tests.support.raw_http import NOTHING_IS_USUAL, Address, arrival, served, told

USUAL = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345"
SLOW = USUAL.replace(b"/a", b"/slow")
LARGE_BYTES = 32 * 1024 * 1024  # More than sockets take.


class Served:
    """Tells what it was asked.

    Attributes:
        usual: How many requests aiohttp was spared.
        asked: The targets, in order.
        go_on: Whether slow answers may be given.
    """

    def __init__(self) -> None:
        self.usual = 0
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.entered = asyncio.Semaphore(0)

    def serve(self, request: Request) -> Coroutine[Any, Any, Answer] | None:
        if request.method not in ("GET", "POST", "PUT"):
            return None
        self.usual += 1
        return self.answer(request)

    async def answer(self, request: Request) -> Answer:
        self.asked.append(request.target)
        self.entered.release()
        if request.target.startswith("/slow"):
            await self.go_on.wait()
        if request.target == "/defect":
            raise ZeroDivisionError
        if request.target == "/unsendable":
            return Answer(200, {"X": "ñ"}, b"")
        if request.target.endswith("/large"):
            return Answer(200, {}, b"x" * LARGE_BYTES)
        heard = sorted((name.lower(), value) for name, value in request.headers.items())
        body = orjson.dumps([request.method, request.target, heard, request.body.hex()])
        return Answer(200, {"Server": "x", "Content-Type": "application/json"}, body)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", routed(self.answer))
        return app


@asynccontextmanager
async def serving(
    *, body_bytes: int = 1_000, keepalive_s: float = 60
) -> AsyncIterator[tuple[Served, Address]]:
    both = Served()
    async with served(both.app(), Usual(both.serve, Limits(body_bytes, keepalive_s))) as address:
        yield both, address


# -- the same answers ---------------------------------------------------------------------------


def post(*headers: bytes, body: bytes = b"12345", start: bytes = b"POST /a HTTP/1.1") -> bytes:
    return b"\r\n".join((start, *headers, b"", body))


HOST = b"Host: x"
FIVE = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\n12345\r\n0\r\n\r\n"
# Of these the name, the bytes, and how many answers they get before the connection is ended.
CASES = [
    ("usual", USUAL, 1),
    ("usual get", post(HOST, body=b"", start=b"GET /a?b=c&d=%20 HTTP/1.1"), 1),
    ("body on get", post(HOST, FIVE, start=b"GET /a HTTP/1.1"), 1),
    ("no body", post(HOST, body=b""), 1),
    ("empty body", post(HOST, b"Content-Length: 0", body=b""), 1),
    ("leading zeros", post(HOST, b"Content-Length: 0005"), 1),
    ("white space", post(HOST, b"Content-Length: \t5 \t", b"X: \t a b \t", b"Y:"), 1),
    ("no space", post(HOST, b"Content-Length:5"), 1),
    ("two usual", USUAL + USUAL, 2),
    ("three, an odd one in between", USUAL + post(HOST, CHUNKED, body=CHUNKS) + USUAL, 3),
    ("length twice", post(HOST, FIVE, FIVE), 1),
    ("length twice, another one", post(HOST, FIVE, b"Content-Length: 4"), 1),
    ("length in a list", post(HOST, b"Content-Length: 5, 5"), 1),
    ("length before colon", post(HOST, b"Content-Length : 5"), 1),
    ("length with sign", post(HOST, b"Content-Length: +5"), 1),
    ("length below 0", post(HOST, b"Content-Length: -5"), 1),
    ("length in hex", post(HOST, b"Content-Length: 0x5"), 1),
    ("length of nothing", post(HOST, b"Content-Length:"), 1),
    ("length beyond all", post(HOST, b"Content-Length: " + b"9" * 30), 1),
    ("length with underscore", post(HOST, b"Content-Length: 0_5"), 1),
    ("chunked", post(HOST, CHUNKED, body=CHUNKS), 1),
    ("chunked, and a length", post(HOST, CHUNKED, FIVE, body=CHUNKS), 1),
    ("a length, and chunked", post(HOST, FIVE, CHUNKED, body=CHUNKS), 1),
    ("chunked, in capitals", post(HOST, b"TRANSFER-ENCODING: CHUNKED", body=CHUNKS), 1),
    ("chunked twice", post(HOST, CHUNKED, CHUNKED, body=CHUNKS), 1),
    ("chunked in another way", post(HOST, b"Transfer-Encoding: xchunked", body=CHUNKS), 1),
    ("chunked, after a tab", post(HOST, b"Transfer-Encoding:\tchunked", body=CHUNKS), 1),
    ("coded", post(HOST, b"Transfer-Encoding: gzip", body=b""), 1),
    ("folded", post(HOST, FIVE, b"X: a", b" b"), 1),
    ("folded length", post(HOST, b"Content-Length:", b" 5"), 1),
    ("bare line feeds", USUAL.replace(b"\r\n", b"\n"), 1),
    ("one bare line feed", post(HOST + b"\nX: y", FIVE), 1),
    ("one bare carriage return", post(HOST + b"\rX: y", FIVE), 1),
    ("nul in a value", post(HOST, FIVE, b"X: a\x00b"), 1),
    ("nul in a name", post(HOST, FIVE, b"X\x00: a"), 1),
    ("delete in a value", post(HOST, FIVE, b"X: \x7f"), 1),
    ("escape in a value", post(HOST, FIVE, b"X: \x1b[0m"), 1),
    ("utf-8 in a value", post(HOST, FIVE, b"X: \xc3\xb1"), 1),
    ("latin-1 in a value", post(HOST, FIVE, b"X: \xff"), 1),
    ("utf-8 in a name", post(HOST, FIVE, b"\xc3\xb1: x"), 1),
    ("utf-8 in the target", post(HOST, FIVE, start=b"POST /\xc3\xb1 HTTP/1.1"), 1),
    ("nul in the target", post(HOST, FIVE, start=b"POST /\x00 HTTP/1.1"), 1),
    ("space in the target", post(HOST, FIVE, start=b"POST /a b HTTP/1.1"), 1),
    ("fragment", post(HOST, FIVE, start=b"POST /a#b HTTP/1.1"), 1),
    ("dots", post(HOST, FIVE, start=b"POST /a/../b/./c HTTP/1.1"), 1),
    ("encoded dots", post(HOST, FIVE, start=b"POST /a/%2e%2E/b HTTP/1.1"), 1),
    ("bad encoding", post(HOST, FIVE, start=b"POST /%zz%?%=%ff HTTP/1.1"), 1),
    ("two slashes", post(HOST, FIVE, start=b"POST //b/c HTTP/1.1"), 1),
    ("strange characters", post(HOST, FIVE, start=b'POST /"<>\\^`{|} HTTP/1.1'), 1),
    ("absolute target", post(HOST, FIVE, start=b"POST http://y/a HTTP/1.1"), 1),
    ("asterisk", post(HOST, FIVE, start=b"OPTIONS * HTTP/1.1"), 1),
    ("no target", post(HOST, FIVE, start=b"POST  HTTP/1.1"), 1),
    ("two spaces", post(HOST, FIVE, start=b"POST  /a HTTP/1.1"), 1),
    ("lower case", post(HOST, FIVE, start=b"post /a HTTP/1.1"), 1),
    ("unknown method", post(HOST, FIVE, start=b"BREW /a HTTP/1.1"), 1),
    ("head", post(HOST, body=b"", start=b"HEAD /a HTTP/1.1"), 1),
    ("delete", post(HOST, FIVE, start=b"DELETE /a HTTP/1.1"), 1),
    ("HTTP/1.0", post(HOST, FIVE, start=b"POST /a HTTP/1.0"), 1),
    ("HTTP/1.0, alive", post(HOST, FIVE, b"Connection: keep-alive", start=b"POST /a HTTP/1.0"), 1),
    ("HTTP/1.2", post(HOST, FIVE, start=b"POST /a HTTP/1.2"), 1),
    ("HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1),
    ("no version", post(HOST, FIVE, start=b"POST /a"), 1),
    ("no host", post(FIVE), 1),
    ("empty host", post(b"Host:", FIVE), 1),
    ("two hosts", post(HOST, b"Host: y", FIVE), 1),
    ("odd host", post(b"Host: a b/c?d#e@[::f", FIVE), 1),
    ("no colon", post(HOST, FIVE, b"X"), 1),
    ("no name", post(HOST, FIVE, b": x"), 1),
    ("space first", post(b" Host: x", FIVE), 1),
    ("the same twice", post(HOST, FIVE, b"X: a", b"x: b"), 1),
    ("close", post(HOST, FIVE, b"Connection: close"), 1),
    ("close, in capitals", post(HOST, FIVE, b"CONNECTION: CLOSE"), 1),
    ("alive", post(HOST, FIVE, b"Connection: Keep-Alive"), 1),
    ("alive and close", post(HOST, FIVE, b"Connection: keep-alive, close"), 1),
    ("connection of nothing", post(HOST, FIVE, b"Connection:"), 1),
    ("connection, naming a header", post(HOST, FIVE, b"Connection: keep-alive, X", b"X: y"), 1),
    ("expect", post(HOST, FIVE, b"Expect: 100-continue"), 2),
    ("expect tea", post(HOST, FIVE, b"Expect: tea"), 1),
    ("said to be gzip", post(HOST, FIVE, b"Content-Encoding: gzip"), 1),
    ("upgrade", post(HOST, FIVE, b"Connection: upgrade", b"Upgrade: websocket"), 1),
    ("upgrade alone", post(HOST, FIVE, b"Upgrade: websocket"), 1),
    ("upgrade to HTTP/2", post(HOST, b"Connection: upgrade", b"Upgrade: h2c", body=b""), 1),
    ("trailer", post(HOST, FIVE, b"Trailer: X"), 1),
    ("te", post(HOST, FIVE, b"TE: trailers"), 1),
    ("line ends before", b"\r\n\r\n" + USUAL, 1),
    ("line ends after", USUAL + b"\r\n", 1),
    ("garbage after", USUAL + b"GARBAGE\r\n\r\n", 2),
    ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 1),
    ("long header", post(HOST, FIVE, b"X: " + b"x" * 8_000), 1),
    ("longer header", post(HOST, FIVE, b"X: " + b"x" * 9_000), 1),
    ("long target", post(HOST, FIVE, start=b"POST /" + b"x" * 9_000 + b" HTTP/1.1"), 1),
    ("many headers", post(HOST, FIVE, *(b"X%d: y" % n for n in range(50))), 1),
    ("too many headers", post(HOST, FIVE, *(b"X%d: y" % n for n in range(200))), 1),
    ("long body", post(HOST, b"Content-Length: 2000", body=b"x" * 2000), 1),
    ("all of it", post(HOST, b"Content-Length: 1000", body=b"x" * 1000), 1),
]
# Within the body, before it, within the end of the head, in a header.
CUTS = (1, 4, 6, 20)


@pytest.mark.parametrize(
    ("sent", "answers"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_answers_are_the_same(sent: bytes, answers: int) -> None:
    ways = [([sent[:-cut], sent[-cut:]], answers) for cut in CUTS]
    ways += [([sent], answers), ([USUAL, sent], answers + 1), ([USUAL + sent], answers + 1)]
    for way, count in ways:
        async with served(Served().app(), NOTHING_IS_USUAL) as address:
            expected = await told(address, way, answers=count)
            whole = await told(address, [b"".join(way)], answers=count)
        async with serving() as (_, address):
            # What lies in the same piece as something that is no request is not answered.
            assert await told(address, way, answers=count) in (expected, whole)


@pytest.mark.parametrize(
    ("sent", "answers"),
    [(USUAL, 1), (USUAL + USUAL, 2), (post(HOST, CHUNKED, body=CHUNKS), 1)],
)
async def test_byte_by_byte(sent: bytes, answers: int) -> None:
    async with serving() as (_, address):
        whole = await told(address, [sent], answers=answers)
        pieces = [sent[at : at + 1] for at in range(len(sent))]
        assert await told(address, pieces, answers=answers) == whole
        assert len(whole) == answers + 1


async def test_usual_ones_go_past_aiohttp_for_as_long_as_they_come() -> None:
    async with serving() as (both, address):
        answers = await told(address, [USUAL[:-2], USUAL[-2:], USUAL, USUAL], answers=3)
        assert both.usual == 3
        assert len(answers) == 4
        await told(address, [USUAL, USUAL.replace(b"/1.1", b"/1.0"), USUAL], answers=2)
        assert both.usual == 4


# -- who asks ahead, or does not listen ---------------------------------------------------------


async def opened(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*address)


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await reader.readexactly(length)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, in whichever way."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


async def test_one_at_a_time_and_in_order() -> None:
    async with serving() as (both, address):
        reader, writer = await opened(address)
        writer.write(SLOW)
        async with asyncio.timeout(30):
            await both.entered.acquire()
        for target in (b"/b", b"/c", b"/d"):
            writer.write(USUAL.replace(b"/a", target))
            await arrival()
        assert both.asked == ["/slow"]
        both.go_on.set()
        answers = [orjson.loads(await one_answer(reader))[1] for _ in range(4)]
        assert answers == both.asked == ["/slow", "/b", "/c", "/d"]
        writer.close()


@pytest.mark.parametrize("ahead", [True, False])
async def test_who_does_not_listen_is_not_served_on(ahead: bool) -> None:
    """Whether it asked for more before its answer or after it."""
    first, second = (USUAL.replace(b"/a", target) for target in (b"/slow/large", b"/large"))
    async with serving() as (both, address):
        reader, writer = await opened(address)
        writer.write(first)
        async with asyncio.timeout(30):
            await both.entered.acquire()
        if not ahead:
            both.go_on.set()
            await arrival()
        writer.write(second)
        await arrival()
        both.go_on.set()
        for _ in range(10):
            await arrival()
        assert both.asked == ["/slow/large"]
        for _ in range(2):
            assert len(await one_answer(reader)) == LARGE_BYTES
        assert both.asked == ["/slow/large", "/large"]
        writer.close()


async def test_who_does_not_listen_and_sends_half_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_PATIENCE_S", 0.01)
    request = USUAL.replace(b"/a", b"/large")
    async with serving() as (both, address):
        reader, writer = await opened(address)
        writer.write(request)
        await arrival()
        writer.write(USUAL[:-3])
        await asyncio.sleep(0.05)  # More than its patience.
        writer.write(USUAL[-3:])
        await arrival()
        assert both.asked == ["/large"]
        assert len(await one_answer(reader)) == LARGE_BYTES
        assert orjson.loads(await one_answer(reader))[3] == b"12345".hex()
        writer.close()


async def test_the_rest_of_a_slow_one_is_left_to_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE_S", 0.01)
    async with serving() as (both, address):
        reader, writer = await opened(address)
        writer.write(USUAL[:-3])
        await arrival()
        writer.write(USUAL[-3:-1])
        await asyncio.sleep(0.05)  # More than its patience.
        writer.write(USUAL[-1:])
        assert orjson.loads(await one_answer(reader))[3] == b"12345".hex()
        assert both.usual == 0
        writer.close()


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/defect", b"/unsendable"])
async def test_a_defect_ends_the_connection_and_is_told(target: bytes) -> None:
    defects: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: defects.append(context["exception"])
    )
    async with serving() as (_, address):
        reader, writer = await opened(address)
        writer.write(USUAL.replace(b"/a", target))
        async with asyncio.timeout(30):
            assert await rest_of(reader) == b""
        assert [type(each) for each in defects] in ([ZeroDivisionError], [UnicodeEncodeError])
        writer.close()
        assert len(await told(address, [USUAL])) == 2


@pytest.mark.parametrize("reset", [True, False])
async def test_what_was_asked_for_goes_on_when_its_client_has_gone(reset: bool) -> None:
    async with serving() as (both, address):
        _, writer = await opened(address)
        writer.write(SLOW)
        async with asyncio.timeout(30):
            await both.entered.acquire()
        if reset:
            writer.transport.abort()
        else:
            writer.write_eof()
        await arrival()
        both.go_on.set()
        await arrival()
        assert len(await told(address, [USUAL])) == 2
        writer.close()


async def test_an_idle_connection_ends() -> None:
    async with serving(keepalive_s=0.1) as (_, address):
        reader, writer = await opened(address)
        writer.write(USUAL)
        await one_answer(reader)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET", USUAL[:-1]])
async def test_one_on_which_a_request_does_not_arrive_ends(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "_PATIENCE_S", 0.01)
    async with serving(keepalive_s=0.1) as (both, address):
        reader, writer = await opened(address)
        writer.write(sent)
        async with asyncio.timeout(30):
            if sent == USUAL[:-1]:  # Its handler waits for the rest; see the deadline for bodies.
                await asyncio.sleep(0.3)
                writer.write_eof()
            assert await reader.read() == b""
        assert both.asked == []
        writer.close()


async def test_a_slow_answer_is_not_idle() -> None:
    async with serving(keepalive_s=0.05) as (both, address):
        reader, writer = await opened(address)
        writer.write(SLOW)
        await asyncio.sleep(0.2)  # More than it may be idle.
        both.go_on.set()
        assert await one_answer(reader)
        writer.close()
