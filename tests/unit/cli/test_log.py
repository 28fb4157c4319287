"""`replicad log` and `replicad receipt` on files that the journal's own code has made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicad.core.entry import Change, encode_changes, genesis_digest
from tests.unit.cli.conftest import Terminal

CLUSTER = "c1"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Six entries in two segments."""
    (tmp_path / "log").mkdir()
    (tmp_path / "replica.json").write_text(json.dumps({"cluster_id": CLUSTER}))
    digest, segments = genesis_digest(CLUSTER), {1: b"", 4: b""}
    for index in range(1, 7):
        changes = [Change("insert", f"k{index}", b'{"id":"k%d"}' % index)]
        if index == 6:
            changes += [Change("update", "k1", b'{"id":"k1"}'), Change("delete", "k2", None)]
        line, digest = encode_changes(
            changes,
            collection="c",
            request=f"r{index}",
            fingerprint="0" * 32,
            index=index,
            epoch=1,
            time="2026-11-23T06:02:21.692Z",
            commit=index - 1,
            previous=digest,
        )
        segments[1 if index < 4 else 4] += line
    for first, data in segments.items():
        (tmp_path / "log" / f"{first:020d}.jsonl").write_bytes(data)
    return tmp_path


def _receipt(data_dir: Path, at: int, **other: object) -> str:
    lines = b"".join(file.read_bytes() for file in sorted((data_dir / "log").glob("*.jsonl")))
    entry = json.loads(lines.splitlines()[at - 1])
    told = {"index": at, "digest": entry["digest"], "collection": "c", "id": entry["key"]}
    if at == 6:
        told["results"] = [
            {"id": "k6", "operation": "insert", "etag": '"6"'},
            {"id": "k1", "operation": "update", "etag": '"6"'},
            {"id": "k2", "operation": "delete", "etag": None},
        ]
        del told["id"]
    path = data_dir / "receipt.json"
    path.write_text(json.dumps(told | other))
    return str(path)


async def test_entries_are_shown(terminal: Terminal, data_dir: Path) -> None:
    shown = (await terminal.run("log", "show", str(data_dir))).splitlines()
    assert len(shown) == 6
    assert "insert  c k1" in shown[0]
    few = await terminal.run("log", "show", str(data_dir), "--from", "3", "--count", "2", "--json")
    assert [json.loads(line)["index"] for line in few.splitlines()] == [3, 4]
    last = await terminal.run("log", "tail", str(data_dir), "-n", "1", "--json")
    assert json.loads(last)["operation"] == "batch"
    assert await terminal.run("log", "tail", str(data_dir), "-n", "0") == ""
    assert "no entry 7" in await terminal.run("log", "show", str(data_dir), "--from", "7", code=3)


async def test_a_chain_is_verified(terminal: Terminal, data_dir: Path) -> None:
    assert "6 entries follow" in await terminal.run("log", "verify", str(data_dir))
    second = data_dir / "log" / f"{4:020d}.jsonl"
    told = await terminal.run("log", "verify", str(second))
    assert "3 entries follow" in told
    assert "the first was taken as it is" in told
    second.write_bytes(second.read_bytes().replace(b'{"id":"k5"}', b'{"id":"k0"}'))
    assert "entry 5" in await terminal.run("log", "verify", str(data_dir), code=1)


@pytest.mark.parametrize("index", [1, 5, 6])
async def test_a_receipt_is_found_in_the_log(
    terminal: Terminal, data_dir: Path, index: int
) -> None:
    receipt = _receipt(data_dir, index)
    told = await terminal.run("receipt", "verify", receipt, str(data_dir))
    assert f"entry {index} is in the log" in told


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"digest": "0" * 64}, "has the digest"),
        ({"index": 7}, "holds no entry 7"),
        ({"id": "k9"}, 'has the id "k5", not "k9"'),
        ({"collection": "d"}, 'has the collection "c", not "d"'),
        ({"operation": "delete"}, 'has the operation "insert"'),
        ({"epoch": 2}, "has the epoch 1"),
        ({"etag": None}, "has the etag"),
        ({"results": []}, "has the results null"),
        ({"index": "5"}, "is no receipt"),
    ],
)
async def test_a_wrong_receipt(
    terminal: Terminal, data_dir: Path, other: dict[str, object], words: str
) -> None:
    receipt = _receipt(data_dir, 5, **other)
    assert words in await terminal.run("receipt", "verify", receipt, str(data_dir), code=1)
