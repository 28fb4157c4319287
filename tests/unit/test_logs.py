"""What a daemon writes to standard error, in a process of its own: logging is global."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PRELUDE = """
import logging, structlog
from replicad.logs import configure_logging
log = structlog.get_logger("early")
configure_logging(node="n1")
"""


def lines_of(script: str) -> list[dict[str, Any]]:
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_an_event_is_one_line_with_its_members() -> None:
    (line,) = lines_of("log.info('epoch_begun', epoch=3, index=7)")
    assert line.pop("time").endswith("Z")
    assert line == {
        "node": "n1",
        "event": "epoch_begun",
        "epoch": 3,
        "index": 7,
        "level": "info",
        "logger": "early",
    }


def test_library_records_look_the_same() -> None:
    (line,) = lines_of("logging.getLogger('kazoo').warning('lost %s', 'it')")
    assert (line["event"], line["level"], line["logger"], line["node"]) == (
        "lost it",
        "warning",
        "kazoo",
        "n1",
    )


def test_what_others_send_cannot_forge_a_line() -> None:
    (line,) = lines_of("log.info('refused', path='a\\n{\"event\": \"x\"}\\x1b[0m')")
    assert line["path"] == 'a\n{"event": "x"}\x1b[0m'


def test_debug_is_silent_and_exceptions_are_told() -> None:
    (line,) = lines_of(
        "log.debug('noise')\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('halt')"
    )
    assert "ZeroDivisionError" in line["exception"]


def test_values_that_json_does_not_know_are_shown() -> None:
    (line,) = lines_of("log.info('x', digest=b'\\x00', names={'a'})")
    assert (line["digest"], line["names"]) == ("b'\\x00'", "{'a'}")
