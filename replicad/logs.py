"""Logging of the daemons: one JSON object a line, on standard error.

Whoever logs never waits for whoever reads: a blocked pipe must not stop the event loop. Lines go
through a queue to a thread of their own; when the queue is full they are dropped, and counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from typing import Final

import orjson
import structlog

_STDERR: Final = 2
_LINES_MAX: Final = 10_000
_FLUSH_S: Final = 1.0


def configure_logging(level: str = "INFO", **context: str) -> None:
    """Send structlog's events and the libraries' log records to standard error as JSON lines.

    Args:
        level: The lowest level that is written, by its name.
        context: Members of every line, such as the node's name.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    handler = LossyHandler(_STDERR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # JSON escapes CR, LF and ESC: nobody forges a line with what they send.
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    root = logging.getLogger()
    for earlier in root.handlers:
        earlier.close()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)


class LossyHandler(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own; never blocks who logs.

    At the end of the process, or at `close`, what is queued is waited for, but not for long.
    """

    def __init__(self, descriptor: int, lines_max: int = _LINES_MAX) -> None:
        """Write to `descriptor`; keep at most `lines_max` lines that it has not taken yet."""
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(lines_max)
        self._lost = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line, or count it as lost."""
        line = self.format(record).encode() + b"\n"
        try:
            if self._lost:
                self._lines.put_nowait(_lost_line(self._lost))
                self._lost = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Wait a moment until what is queued is written; no line is written after that."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=_FLUSH_S)
                self._thread.join(_FLUSH_S)
            except queue.Full:
                pass  # Nobody reads.
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                return  # Nobody will ever read.


def _lost_line(count: int) -> bytes:
    return orjson.dumps({"level": "warning", "event": "log lines lost", "count": count}) + b"\n"


def _dumps(event: object, default: object = None) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
