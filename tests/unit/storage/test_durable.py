from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicad.storage.durable import write_all


@pytest.mark.parametrize("data", [b"", b"0123456", memoryview(b"0123456789")])
def test_a_short_write_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | memoryview
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, some: real(descriptor, bytes(some)[:3]))
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, data)
    os.close(descriptor)
    assert path.read_bytes() == bytes(data)
