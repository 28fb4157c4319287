"""No peer is measured with its syncs switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.stack.processes import ProcessId
from tests.benchmarks import etcd
from tests.benchmarks.compare.postgresql import CONFIG


def test_etcd_syncs_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It takes options from its environment too: `--unsafe-no-fsync` is one of them."""
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], _log: Path) -> ProcessId:
        started.append((command, env))
        return ProcessId(1, "")

    monkeypatch.setenv("ETCD_UNSAFE_NO_FSYNC", "true")
    monkeypatch.setattr(etcd, "ensure", lambda: "/usr/bin/etcd")
    monkeypatch.setattr(etcd, "start_detached", start)
    monkeypatch.setattr(etcd, "accepts", lambda _port: True)
    etcd.Etcd().up(tmp_path)
    assert len(started) == 3
    for command, env in started:
        assert not [word for word in command if "fsync" in word or "unsafe" in word]
        assert not [name for name in env if name.startswith("ETCD_")]


def test_postgresql_waits_until_both_standbys_have_synced() -> None:
    """What is not named is as it comes, which is `on` for `fsync` and `full_page_writes`."""
    settings = dict(line.split(" = ") for line in CONFIG.splitlines())
    assert settings["synchronous_commit"] == "on"
    assert settings["synchronous_standby_names"] == "'{count} ({standbys})'"
    assert not settings.keys() & {"fsync", "full_page_writes", "wal_level", "wal_sync_method"}
