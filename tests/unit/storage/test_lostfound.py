from __future__ import annotations

from pathlib import Path

import pytest

from replicad.core.write import DEFINITIONS, Operation
from replicad.errors import ConfigurationError
from replicad.storage.lostfound import (
    LOST_AND_FOUND,
    describe_kept,
    kept_entries,
    kept_name,
    list_kept,
)
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / LOST_AND_FOUND
    path.mkdir()
    return path


def test_a_directory_that_never_cut_keeps_nothing(tmp_path: Path) -> None:
    assert list_kept(tmp_path) == []


def test_names_count_up_and_tell_where_and_when(folder: Path) -> None:
    first = kept_name(folder, 7, 3)
    assert first.name == "000001-00000000000000000007-epoch-3.jsonl"
    first.touch()
    assert kept_name(folder, 5, 4).name == "000002-00000000000000000005-epoch-4.jsonl"


def test_a_number_is_never_given_twice_though_files_were_removed(folder: Path) -> None:
    kept_name(folder, 1, 1).touch()
    kept_name(folder, 1, 1).touch()
    (folder / "000001-00000000000000000001-epoch-1.jsonl").unlink()
    assert kept_name(folder, 1, 1).name.startswith("000003-")


def test_what_was_cut_is_described(folder: Path, log: LogBuilder) -> None:
    path = kept_name(folder, 1, 2)
    path.write_bytes(log.open_epoch(1) + log.insert(write_of("a")) + log.insert(write_of("b")))
    (kept,) = list_kept(folder.parent)
    assert (kept.path, kept.first, kept.epoch, kept.entries) == (path, 1, 2, 3)
    assert kept.requests == ("r-forms-a", "r-forms-b")


def test_what_is_no_insert_is_counted_apart(folder: Path, log: LogBuilder) -> None:
    path = kept_name(folder, 1, 2)
    writes = [
        write_of("a"),
        put_of("a", request="update"),
        delete_of("a", request="delete"),
        batch_of(Operation("b", b"{}"), Operation("c", b"{}"), request="batch"),
        write_of("forms", collection=DEFINITIONS),
    ]
    path.write_bytes(log.open_epoch(1) + b"".join(map(log.write, writes)))
    (kept,) = list_kept(folder.parent)
    assert (kept.entries, kept.requests, kept.others) == (6, ("r-forms-a",), 4)


def test_files_of_an_earlier_version_have_no_epoch(folder: Path, log: LogBuilder) -> None:
    (folder / "000001-00000000000000000001.jsonl").write_bytes(log.open_epoch(1))
    (kept,) = list_kept(folder.parent)
    assert (kept.epoch, kept.entries, kept.requests) == (None, 1, ())


def test_foreign_files_are_left_out(folder: Path) -> None:
    (folder / "notes.jsonl").touch()
    (folder / "000001-00000000000000000001-epoch-.jsonl").touch()
    assert list_kept(folder.parent) == []


def test_of_a_torn_tail_the_readable_entries_are_told(folder: Path, log: LogBuilder) -> None:
    path = kept_name(folder, 1, 2)
    whole, torn = log.insert(write_of("a")), log.insert(write_of("b"))
    path.write_bytes(b"\0" * 100 + b"\n" + whole + torn[:-9])
    assert [entry.key for entry in kept_entries(path)] == ["a"]
    (kept,) = list_kept(folder.parent)
    assert (kept.entries, kept.garbled, kept.requests) == (1, 2, ("r-forms-a",))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"key":"a"', b'"key":"c"'),
        (b'{"x":1}', b'{"x":3}'),
        (b'"collection":"forms"', b'"collection":"gorms"'),
    ],
)
def test_what_is_not_as_its_client_sent_it_is_garbled(
    folder: Path, log: LogBuilder, good: bytes, bad: bytes
) -> None:
    """A flipped bit may leave a line that still looks like an entry: it must not be sent again."""
    segment = folder / "00000000000000000001.jsonl"
    first, second = log.insert(write_of("a", b'{"x":1}')), log.insert(write_of("b"))
    assert good in first
    segment.write_bytes(first.replace(good, bad) + second)
    kept = describe_kept(segment)
    assert (kept.first, kept.epoch, kept.entries, kept.garbled) == (2, None, 1, 1)
    assert [entry.key for entry in kept_entries(segment)] == ["b"]


def test_a_file_that_is_not_there_is_said_to_be(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no file"):
        list(kept_entries(folder / "x"))
