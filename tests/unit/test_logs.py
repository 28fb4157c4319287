"""What a daemon writes to standard error, in a process of its own: logging is global."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

from replicad.logs import LossyHandler

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


def test_a_pipe_that_nobody_reads_delays_nobody() -> None:
    script = PRELUDE + "for n in range(20_000): log.info('x', n=n)\nprint('done', flush=True)\n"
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # The pipe takes 64 KiB and the queue 10,000 lines; the rest is dropped.
        assert process.stdout.readline() == b"done\n"
        assert process.wait(30) == 0  # Nor does the end wait for a reader.
        written = process.stderr.read()
    assert b'"n":0,' in written
    assert b'"n":19999,' not in written


def test_lines_that_found_no_room_are_counted() -> None:
    read_end, write_end = os.pipe()
    handler = LossyHandler(write_end, lines_max=10)
    record = logging.makeLogRecord({"msg": "x" * 10_000})
    with open(read_end, "rb") as reader:
        for _ in range(100):
            handler.handle(record)
        written = 0
        while b"log lines lost" not in (line := reader.readline()):
            written += 1
            handler.handle(record)
    os.close(write_end)
    lost = json.loads(line)
    assert lost["event"] == "log lines lost"
    assert 0 < lost["count"] < 100
    assert written >= 10
