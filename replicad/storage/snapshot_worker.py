"""A process of its own for the long work on snapshots.

Reading, sorting and hashing gigabytes takes seconds of a processor. In a thread it would share
the interpreter with the event loop, in slices the loop's own time, and every write would wait.
Another process has neither effect, runs at low priority, and gives its memory back.

It takes one job as its argument and answers with one line on standard output. It ends as soon as
its standard input is closed: a killed replica leaves nobody at work in its data directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, Final

import orjson

from replicad.core.messages import Point
from replicad.errors import ProtocolViolationError, ReplicadError, SnapshotDamagedError
from replicad.storage.durable import disk_errors
from replicad.storage.records_load import load_records
from replicad.storage.snapshot import check_snapshot, decode_line, read_manifest, read_records
from replicad.storage.snapshot_build import Plan, build_snapshot
from replicad.storage.snapshot_files import SnapshotFiles

_NICE: Final = 10
LOADED_NAME: Final = "records.sqlite.loading"


def build(data_dir: str, plan: dict[str, Any]) -> str:
    """Build a snapshot; the answer is its last entry's digest in hex."""
    plan["segments"] = tuple(plan["segments"])
    return build_snapshot(Path(data_dir), Plan(**plan)).digest.hex()


def check(file: str, manifest: str) -> None:
    """Verify a snapshot that is not published yet."""
    try:
        check_snapshot(Path(file), read_manifest(Path(manifest)))
    except OSError as error:
        # It is derived, so nothing is lost with it: no reason to doubt the whole disk.
        raise SnapshotDamagedError(f"{file} cannot be read: {error}") from error


def load(data_dir: str, index: int) -> None:
    """Make the file of a record store, LOADED_NAME in the data directory, from a snapshot."""
    files = SnapshotFiles(Path(data_dir))
    path = Path(data_dir) / LOADED_NAME
    manifest = files.load(index)
    point = Point(manifest.header.index, manifest.header.digest)
    with disk_errors(f"load snapshot {index}"):
        path.unlink(missing_ok=True)
        try:
            lines = read_records(files.file_of(index), manifest)
            decoded = (decode_line(line) for _, line in lines)
            load_records(path, decoded, point, manifest.header.time)
        except ProtocolViolationError as error:
            path.unlink()
            raise SnapshotDamagedError(f"snapshot {index}: {error}") from error
        except ReplicadError:
            path.unlink(missing_ok=True)
            raise


JOBS: Final[dict[str, Callable[..., object]]] = {"build": build, "check": check, "load": load}


def main(job: str) -> None:
    """Do one job: a JSON array of its name and its arguments by name."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICE)
    name, arguments = orjson.loads(job)
    try:
        answer = {"result": JOBS[name](**arguments)}
    except ReplicadError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
