"""A replica's log as its files show it, read with nothing of replicad's own code."""

from __future__ import annotations

import json
import re
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

_DIGEST = re.compile(rb',"digest":"([0-9a-f]{64})"\}\Z')

Fields = dict[str, Any]


def log_bytes(data_dir: Path) -> bytes:
    """The whole log: all segments, one after the other."""
    return b"".join(path.read_bytes() for path in sorted((data_dir / "log").glob("*.jsonl")))


def log_lines(data_dir: Path) -> list[bytes]:
    """The log's lines without their newlines; a line that is only begun is left out."""
    return log_bytes(data_dir).split(b"\n")[:-1]


def entries(data_dir: Path) -> list[Fields]:
    """The log's entries, decoded."""
    return [json.loads(line) for line in log_lines(data_dir)]


def changes_of(entry: Fields) -> list[tuple[str, str, Fields | None]]:
    """Operation, key and value (None if it is gone) of each change of an entry."""
    match entry["operation"]:
        case "epoch":
            return []
        case "batch":
            pairs = zip(entry["changes"], entry["value"], strict=True)
            return [(operation, key, value) for (operation, key, _), value in pairs]
        case operation:
            return [(operation, entry["key"], entry["value"])]


def inserted_keys(data_dir: Path) -> list[str]:
    """The ids of all forms inserted in the log, in its order, as often as they stand there."""
    of_forms = (entry for entry in entries(data_dir) if entry["collection"] == "formularios")
    changes = (change for entry in of_forms for change in changes_of(entry))
    return [key for operation, key, _ in changes if operation == "insert"]


def cluster_id(data_dir: Path) -> str:
    """The id of the cluster that a replica's data belong to."""
    found: str = json.loads((data_dir / "replica.json").read_bytes())["cluster_id"]
    return found


def assert_chained(data_dir: Path) -> None:
    """Check indexes, epochs and the chain of digests from the cluster's id to the last line."""
    previous = sha256(b"replicad-log-v1:" + cluster_id(data_dir).encode()).hexdigest()
    epoch = 0
    for number, line in enumerate(log_lines(data_dir), 1):
        sealed = _DIGEST.search(line)
        assert sealed is not None, line[-100:]
        previous = sha256(previous.encode() + line[: sealed.start()]).hexdigest()
        assert sealed[1].decode() == previous, f"line {number}"
        entry = json.loads(line)
        assert entry["index"] == number
        assert entry["epoch"] >= epoch
        epoch = entry["epoch"]


def documented_checks(page: Path) -> list[str]:
    """The shell commands by which the log format's page checks a chain with standard tools."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for block in blocks if "sha256sum" in block]


def run_check(command: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run that command where it is meant to run, in a data directory."""
    return subprocess.run(  # noqa: S603 - the project's own documentation
        ["/bin/sh", "-c", command],
        cwd=data_dir,
        env={"PATH": "/usr/bin:/bin", "DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def sync_log(data_dir: Path) -> list[Fields]:
    """The lines of a replica's sync.log."""
    return [json.loads(line) for line in (data_dir / "sync.log").read_text().splitlines()]
