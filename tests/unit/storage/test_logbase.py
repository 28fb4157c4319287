from __future__ import annotations

from pathlib import Path

import pytest

from replicad.core.messages import Point
from replicad.errors import CorruptLogError, DiskFullError
from replicad.storage.logbase import Base, read_base, write_base
from tests.unit.storage.conftest import FileSizeLimit

BASE = Base(Point(110026, bytes(range(32))), 7, "2026-11-23T05:58:53.805Z", 67108807)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_base(tmp_path, BASE)
    assert read_base(tmp_path) == BASE
    write_base(tmp_path, BASE._replace(epoch=8))
    assert read_base(tmp_path) == BASE._replace(epoch=8)


def test_a_log_that_begins_with_entry_1_has_none(tmp_path: Path) -> None:
    assert read_base(tmp_path) is None


def test_any_damage_is_corruption(tmp_path: Path) -> None:
    """It was synced before anything relied on it, so no power cut did this."""
    write_base(tmp_path, BASE)
    path = tmp_path / "base"
    whole = path.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(CorruptLogError, match="base is damaged"):
                read_base(tmp_path)


def test_no_room_leaves_the_old_one(tmp_path: Path, file_size_limit: FileSizeLimit) -> None:
    write_base(tmp_path, BASE)
    with file_size_limit(10), pytest.raises(DiskFullError):
        write_base(tmp_path, BASE._replace(epoch=8))
    assert read_base(tmp_path) == BASE
