from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from replicad.errors import StackError
from replicad.stack.control import Answer, Request, ask, bind


def answer_once(directory: Path, answer: Answer) -> Callable[[], dict[str, str]]:
    """Serve one request on another thread; the result waits for it and returns it."""
    listener = bind(directory)
    listener.listen()
    seen: list[dict[str, str]] = []

    def serve() -> None:
        with listener, listener.accept()[0] as connection, connection.makefile("rwb") as lines:
            seen.append(json.loads(lines.readline()))
            fields = {"running": answer.running, "error": answer.error}
            lines.write(json.dumps(fields).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()

    def result() -> dict[str, str]:
        thread.join(10)
        return seen[0]

    return result


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory whose path is longer than a socket's address may be."""
    path = tmp_path / ("d" * 120)
    path.mkdir()
    return path


def test_a_request_and_its_answer(directory: Path) -> None:
    seen = answer_once(directory, Answer(("n1", "gateway")))
    assert ask(directory, Request("start", "n1")) == Answer(("n1", "gateway"))
    assert seen() == {"verb": "start", "name": "n1"}
    assert (directory / "control.sock").stat().st_mode & 0o777 == 0o600


def test_what_went_wrong_is_raised(directory: Path) -> None:
    seen = answer_once(directory, Answer((), "no such replica"))
    with pytest.raises(StackError, match="no such replica"):
        ask(directory, Request("stop", "n9"))
    seen()


def test_nobody_listens(directory: Path) -> None:
    bind(directory).close()  # As a process that died leaves it.
    with pytest.raises(StackError, match="does not answer"):
        ask(directory, Request("status"))
