from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from replicad.errors import StackError
from replicad.stack.ports import LOOPBACK
from replicad.stack.processes import ProcessId
from replicad.stack.record import Record, Settings, load

SETTINGS = Settings("native", 3, 2, 2, lists_gateways=True, gateway_port=None)


def test_a_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    record = Record(tmp_path, SETTINGS, ports={"n1": 20001}, processes={"n1": ProcessId(7, "b:1")})
    record.save()
    assert load(tmp_path) == record


def test_it_holds_a_password_and_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Record(tmp_path, SETTINGS).save()
    finally:
        os.umask(before)
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


def test_no_file_is_no_stack(tmp_path: Path) -> None:
    assert load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", '{"settings":{}}', "[]"])
def test_a_foreign_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(StackError, match=r"stack\.json cannot be read"):
        load(tmp_path)


def test_names() -> None:
    assert SETTINGS.node_names == ("n1", "n2", "n3")
    assert SETTINGS.gateway_names == ("gateway", "gateway2")


def test_ports_are_kept_unless_they_were_taken_meanwhile(tmp_path: Path) -> None:
    record = Record(tmp_path, SETTINGS)
    record.choose_ports(("n1", "n2"))
    before = dict(record.ports)
    with socket.create_server((LOOPBACK, before["n1"])):
        record.choose_ports(("n1", "n2"))
    assert record.ports["n1"] != before["n1"]
    assert record.ports["n2"] == before["n2"]
    assert load(tmp_path) == record


def test_a_gateway_port_that_was_given_is_never_exchanged(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        record = Record(tmp_path, replace(SETTINGS, gateway_port=taken))
        with pytest.raises(StackError, match=f"port {taken} is taken"):
            record.choose_ports(("gateway",))


def test_a_pid_counts_only_with_its_start_time(tmp_path: Path) -> None:
    record = Record(tmp_path, SETTINGS, processes={"n1": ProcessId(os.getpid(), "b:1")})
    assert record.pid("n1") is None
    assert record.pid("n2") is None
