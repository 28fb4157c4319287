"""sync.log: JSON lines that say when replicas matched, differed or were missing.

An operator's file: `grep '"level":"error"' sync.log`. Rotated by size; old files are sync.log.1 ...
"""

from __future__ import annotations

from datetime import UTC, datetime
from logging import INFO, Formatter, LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import orjson

from replicad.core.effects import Level

_FILE_BYTES_MAX: Final = 10 * 1024 * 1024
_FILES: Final = 5


class SyncLog:
    """Writes one replica's sync.log."""

    def __init__(self, path: Path, node: str) -> None:
        """Append to `path`; `node` is the replica that writes."""
        self._node = node
        self._handler = RotatingFileHandler(
            path, maxBytes=_FILE_BYTES_MAX, backupCount=_FILES, encoding="utf-8"
        )
        self._handler.setFormatter(_Verbatim())

    def write(self, level: Level, event: str, fields: dict[str, object]) -> None:
        """Write one line: time, level, who writes, what happened, and the fields."""
        line = orjson.dumps(
            {
                "time": datetime.now(UTC),
                "level": level.value,
                "replica": self._node,
                "event": event,
                **fields,
            }
        )
        self._handler.handle(makeLogRecord({"msg": line.decode(), "levelno": INFO}))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Verbatim(Formatter):
    def format(self, record: LogRecord) -> str:
        return str(record.msg)
