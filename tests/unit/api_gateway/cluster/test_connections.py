"""What a replica, or something in its place, may do to a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api_gateway.cluster.connections import Connections, Reply
from api_gateway.errors import NoAnswerError, NothingDoneError
from tests.support.waiting import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Name: n1\r\n\r\nok"


class Peer:
    """Answers a request with all the pieces there are; None closes the connection."""

    def __init__(self) -> None:
        self.pieces: list[bytes | None] = []
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = 0
        self.url = ""

    @property
    def connections(self) -> int:
        return len(self.writers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                pieces, self.pieces = self.pieces, []
                for piece in pieces:
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    async with server:
        yield peer


@pytest.fixture
async def connections(peer: Peer) -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    connections.close()
    await eventually(lambda: peer.ended == peer.connections)


async def post(connections: Connections, peer: Peer, body: bytes = b"[]") -> Reply:
    async with asyncio.timeout(5):
        return await connections.post(peer.url, "/internal/x", {"X-Epoch": "3"}, body)


async def test_a_connection_serves_one_request_after_the_other(
    connections: Connections, peer: Peer
) -> None:
    for _ in range(3):
        peer.pieces.append(OK)
        reply = await post(connections, peer)
        assert (reply.status, reply.headers["x-name"], reply.body) == (200, "n1", b"ok")
    assert peer.connections == 1
    host = peer.url.removeprefix("http://").encode()
    assert peer.requests[0] == (
        b"POST /internal/x HTTP/1.1\r\nHost: %b\r\nX-Epoch: 3\r\nContent-Length: 2\r\n\r\n[]" % host
    )


async def test_an_answer_may_come_in_pieces(connections: Connections, peer: Peer) -> None:
    body = bytes(range(256)) * 4_000
    whole = b"HTTP/1.1 421 No\r\ncontent-length:%d\r\n\r\n" % len(body) + body
    peer.pieces.extend([whole[:5], whole[5:38], whole[38:50_000], whole[50_000:]])
    reply = await post(connections, peer, b"x" * 3_000_000)
    assert (reply.status, reply.body) == (421, body)
    assert peer.requests[0].endswith(b"x" * 3_000_000)


async def test_requests_at_the_same_time_have_connections_of_their_own(
    connections: Connections, peer: Peer
) -> None:
    first = asyncio.create_task(post(connections, peer))
    await eventually(lambda: len(peer.requests) == 1)
    peer.pieces.append(OK)
    await post(connections, peer)
    assert peer.connections == 2
    first.cancel()
    await asyncio.wait([first])
    await eventually(lambda: peer.ended == 1)  # Its answer could come at any time.
    peer.pieces.append(OK)
    await post(connections, peer)
    assert peer.connections == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [None],
        [OK[:20], None],
        [OK[:-1], None],
        [b"HTTP/1.1 200 OK\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n"],
        [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"],
        [b"x" * 20_000],
        [OK + b"more"],
    ],
    ids=str,
)
async def test_what_is_no_answer(
    connections: Connections, peer: Peer, pieces: list[bytes | None]
) -> None:
    peer.pieces.extend(pieces)
    with pytest.raises(NoAnswerError):
        await post(connections, peer)
    peer.pieces[:] = [OK]
    assert (await post(connections, peer)).body == b"ok"
    assert peer.connections == 2


async def test_a_connection_that_the_peer_closes_is_not_used_again(
    connections: Connections, peer: Peer
) -> None:
    peer.pieces.append(OK.replace(b"X-Name: n1", b"Connection: Close"))
    await post(connections, peer)
    peer.pieces.extend([OK, None])
    await post(connections, peer)
    await eventually(lambda: not connections._all)
    peer.pieces.append(OK)
    await post(connections, peer)
    assert peer.connections == 3


async def test_only_some_are_kept(
    connections: Connections, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_gateway.cluster.connections._IDLE_MAX", 2)
    waiting = [asyncio.create_task(post(connections, peer)) for _ in range(5)]
    await eventually(lambda: len(peer.requests) == 5)
    for writer in peer.writers:
        writer.write(OK)
    await asyncio.gather(*waiting)
    await eventually(lambda: peer.ended == 3)


async def test_nobody_listens(connections: Connections, peer: Peer) -> None:
    with pytest.raises(NothingDoneError):
        await connections.post("http://127.0.0.1:1", "/", {}, b"")


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://" + "x" * 64 + "." + "y"])
async def test_an_address_that_is_none(connections: Connections, url: str) -> None:
    with pytest.raises(NothingDoneError):
        await connections.post(url, "/", {}, b"")


async def test_what_nobody_asked_for_is_no_answer_to_the_next_request(
    connections: Connections, peer: Peer
) -> None:
    peer.pieces.append(OK)
    await post(connections, peer)
    peer.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    await eventually(lambda: not connections._all)
    peer.pieces.append(OK)
    assert (await post(connections, peer)).body == b"ok"
    assert peer.connections == 2
