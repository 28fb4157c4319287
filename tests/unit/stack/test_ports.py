from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from replicad.stack.ports import LOOPBACK, accepts, free_port, is_free


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server


def test_a_port_that_somebody_listens_on_is_not_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert accepts(port)
    assert not is_free(port)


def test_a_free_port_is_free_and_new() -> None:
    port = free_port(())
    assert is_free(port)
    assert not accepts(port)
    assert free_port((port,)) != port


def test_a_port_with_connections_in_time_wait_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection((LOOPBACK, port)) as client:
        server, _ = listener.accept()
        server.close()  # The side that closes first keeps the connection in TIME_WAIT.
        assert client.recv(1) == b""
    listener.close()
    assert is_free(port)
