from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.httpd import messages
from replicad.httpd.messages import Answer, Incomplete, Request, lines, parse

MAX = 1_000
GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


def with_header(*headers: bytes, body: bytes = b"") -> bytes:
    return (
        b"POST /a HTTP/1.1\r\nHost: x\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body
    )


def understood(data: bytes) -> Request:
    request = parse(data, MAX)
    assert isinstance(request, Request)
    return request


def test_a_usual_request() -> None:
    request = understood(POST + b"\x00\xff\r\n!")
    assert (request.method, request.target) == ("POST", "/a")
    assert dict(request.headers) == {"host": "x", "content-length": "5"}
    assert request.headers["Content-LENGTH"] == "5"
    assert request.body == b"\x00\xff\r\n!"
    request = understood(GET)
    assert (request.method, request.target, request.body) == ("GET", "/a?b=c", b"")


def test_white_space_around_a_value_is_none_of_it() -> None:
    request = understood(with_header(b"X-A: \t a b \t", b"X-B:", b"X-C:c"))
    assert [request.headers[name] for name in ("X-A", "X-B", "X-C")] == ["a b", "", "c"]


def test_what_is_remembered_of_headers_says_nothing_of_the_rest() -> None:
    first = understood(POST + b"12345")
    second = understood(POST.replace(b"POST /a", b"PUT /b") + b"54321")
    assert second == ("PUT", "/b", first.headers, b"54321")
    assert parse(POST + b"12", MAX) == Incomplete(3)
    assert parse(POST + b"12345", 4) is None


@pytest.mark.parametrize("missing", range(1, 6))
def test_one_whose_body_is_not_there_yet(missing: int) -> None:
    assert parse(POST + b"12345"[:-missing], MAX) == Incomplete(missing)


@pytest.mark.parametrize("end", range(len(POST)))
def test_one_whose_head_is_not_there_yet_is_not_usual(end: int) -> None:
    assert parse(POST[:end], MAX) is None


@pytest.mark.parametrize(
    "data",
    [
        GET + b"G",
        GET + GET,
        POST + b"123456",
        b"\r\n" + GET,
        GET.replace(b"GET", b"get"),
        GET.replace(b"GET", b"GE"),
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"1.1", b"2.0"),
        GET.replace(b"/a", b"http://x/a"),
        GET.replace(b"/a", b"*"),
        GET.replace(b"/a", b"/\xc3\xb1"),
        GET.replace(b"/a", b"/\x00"),
        GET.replace(b"/a", b"/ "),
        GET.replace(b"GET ", b"GET  "),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"Host: x\r\n", b""),
        GET.replace(b"Host: x", b"Host : x"),
        GET.replace(b"Host: x", b" Host: x"),
        with_header(b"Host: x"),
        with_header(b"X: a", b"x: b"),
        with_header(b"X: a", b" b"),
        with_header(b"X: a\n b"),
        with_header(b"X: a\x00b"),
        with_header(b"X: \x7f"),
        with_header(b"X: \xc3\xb1"),
        with_header(b"X"),
        with_header(b": a"),
        with_header(b"X\xff: a"),
        with_header(b"Connection: close"),
        with_header(b"Connection: keep-alive, x"),
        with_header(b"Connection: upgrade"),
        with_header(b"Transfer-Encoding: chunked"),
        with_header(b"transfer-encoding: identity"),
        with_header(b"Content-Encoding: gzip"),
        with_header(b"Expect: 100-continue"),
        with_header(b"Upgrade: websocket"),
        with_header(b"Content-Length:", body=b"12345"),
        with_header(b"Content-Length: +5", body=b"12345"),
        with_header(b"Content-Length: -5", body=b"12345"),
        with_header(b"Content-Length: 0x5", body=b"12345"),
        with_header(b"Content-Length: 5,5", body=b"12345"),
        with_header(b"Content-Length : 5", body=b"12345"),
        with_header(b"Content-Length: 5", b"Content-Length: 5", body=b"12345"),
        with_header(b"Content-Length: 1001"),
        with_header(b"Content-Length: 999999999999999999999"),
        with_header(b"X: " + b"x" * 8192),
        with_header(*(b"X%d: y" % number for number in range(100))),
    ],
)
def test_what_is_not_usual(data: bytes) -> None:
    assert parse(data, MAX) is None


# -- whatever is understood, aiohttp understands alike ------------------------------------------

PIECES = (
    *(
        b"GET",
        b"POST",
        b"PUT",
        b" ",
        b"/a",
        b"/",
        b"?b=c",
        b"/%00",
        b"#",
        b"*",
        b"HTTP/1.1",
        b"HTTP/1.0",
    ),
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b": ",
        b"\t",
        b"Host: x",
        b"Host:",
        b"Connection: ",
        b"keep-alive",
    ),
    *(b"close", b"Content-Length: ", b"content-length:", b"0", b"5", b"05", b"+5", b"12345"),
    *(b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Content-Encoding: gzip"),
    *(b"X: y", b"Y:", b"Keep-Alive: 1", b"\x00", b"\xff", b"\xc3\xb1", b","),
)
HEADER = st.sampled_from([piece for piece in PIECES if b":" in piece] + [b"Content-Length: 5"])
NEARLY = st.builds(
    lambda start, headers, body: start + b"Host: x\r\n" + b"\r\n".join((*headers, b"", b"")) + body,
    st.sampled_from([b"GET /a HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n"]),
    st.lists(st.builds(lambda a, b: a + b, HEADER, st.sampled_from((b"", *PIECES))), max_size=5),
    st.sampled_from([b"", b"12345", b"1234", b"123456", GET]),
)
ANYTHING = st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)


def by_aiohttp(data: bytes) -> list[tuple[RawRequestMessage, bytes | None]]:
    """The requests in it, and of each its body if that is all there."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
        found, _, _ = parser.feed_data(data)
        return [
            (message, b"" if payload is EMPTY_PAYLOAD else payload.read_nowait())
            if payload.is_eof()
            else (message, None)
            for message, payload in found
        ]
    finally:
        loop.close()


@settings(max_examples=1_000)
@given(data=st.one_of(NEARLY, ANYTHING))
def test_what_is_understood_is_understood_as_by_aiohttp(data: bytes) -> None:
    found = parse(data, MAX)
    if isinstance(found, Incomplete):
        assert [body for _, body in by_aiohttp(data)] == [None]
        data += b"\r" * found.missing
        found = parse(data, MAX)
        assert found is not None
    if found is None:
        return
    assert isinstance(found, Request)
    ((message, body),) = by_aiohttp(data)
    assert (found.method, found.target, found.body) == (message.method, message.path, body)
    assert found.headers == message.headers
    assert (message.should_close, message.upgrade, message.compression) == (False, False, None)
    assert not message.chunked


@given(data=ANYTHING)
def test_what_aiohttp_refuses_is_not_usual(data: bytes) -> None:
    try:
        by_aiohttp(data)
    except HttpProcessingError:
        assert parse(data, MAX) is None


# -- answers ------------------------------------------------------------------------------------


def test_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "time", lambda: 784111777.9)
    answer = Answer(201, {"A": "b"}, b"\x00\xff", lines({"C": "d"}))
    assert answer.encode() == (
        b"HTTP/1.1 201 Created\r\nC: d\r\nA: b\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\n\x00\xff"
    )
    monkeypatch.setattr(messages, "time", lambda: 784111778.0)
    assert b"\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n" in answer.encode()


def test_not_modified_says_nothing_of_a_length() -> None:
    encoded = Answer(HTTPStatus.NOT_MODIFIED, {}, b"").encode()
    assert encoded.startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert b"Content-Length" not in encoded
