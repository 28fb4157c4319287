from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicad.cli.importing import ImportSourceError, Source
from tests.unit.cli.conftest import Terminal


async def test_import_tells_of_each_line(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "records.ndjson"
    file.write_text('{"id":"a"}\n\n[]\n{"id":"a"}\n')
    told = await terminal.run("import", str(file), "--json", code=1)
    lines = [json.loads(line) for line in told.splitlines()]
    assert [(line.get("line"), line.get("status")) for line in lines[:-1]] == [
        (1, "stored"),
        (3, "invalid"),
        (4, "duplicate"),
    ]
    assert lines[-1]["tally"] == {"stored": 1, "duplicate": 1, "invalid": 1, "unknown": 0}
    again = await terminal.run("import", str(file), code=1)
    assert "line 3: invalid: no object" in again
    assert "0 stored, 2 duplicate, 1 invalid, 0 unknown" in again


async def test_import_goes_on_where_it_was_broken_off(terminal: Terminal, tmp_path: Path) -> None:
    file, state = tmp_path / "records.ndjson", tmp_path / "state"
    file.write_text("".join(f'{{"id":"k{number}"}}\n' for number in range(2500)))
    terminal.gateway.import_lines.append(1700)
    terminal.gateway.breaks_for_good = True
    options = ("import", str(file), "--state", str(state), "--timeout", "0.3")
    await terminal.run(*options, code=5)
    answered = int(state.read_text())
    assert answered <= 1701
    terminal.gateway.faults.clear()
    assert f"799 stored, {1701 - answered} duplicate" in await terminal.run(*options)
    assert not state.exists()
    state.write_text("much")
    assert "was not written by an import" in await terminal.run(*options, code=1)


async def test_export_is_whole_or_not_there(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.run("put", "a", typed='{"id":"a"}')
    file = tmp_path / "out.ndjson"
    terminal.gateway.import_lines.append(0)
    assert "broke off" in await terminal.run("export", str(file), code=1)
    assert not file.exists()
    terminal.gateway.import_lines.clear()
    await terminal.run("export", str(file))
    assert file.read_text() == '{"id":"a"}\n'
    assert await terminal.run("export", "-") == '{"id":"a"}\n'


def test_rows_of_csv_may_have_several_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'id,nota\r\na,"una\r\n""dos"""\r\n\r\nb,x')
    with file.open("rb") as opened:
        source = Source(opened, csv=True)
        source.begin()
        assert source.header == b"id,nota\r\n"
        assert list(source.records()) == [b'a,"una\r\n""dos"""\r\n', b"b,x"]
        assert source.lines == {1: 2, 2: 5}
        assert source.read_bytes == source.size


def test_a_next_run_skips_nothing_that_has_no_answer(tmp_path: Path) -> None:
    """Answers may come out of order where an import broke off and went on."""
    file = tmp_path / "records.ndjson"
    file.write_bytes(b"{}\n" * 6)
    with file.open("rb") as opened:
        source = Source(opened, csv=False, skip=2)
        assert len(list(source.records())) == 4
        del source.lines[1], source.lines[3]
        assert source.answered == 3
        del source.lines[2], source.lines[4]
        assert source.answered == 6


@pytest.mark.parametrize("text", [b"\n", b"", b"id,s\ra,x\rb,y\r"])
def test_csv_needs_a_header(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "bad.csv").write_bytes(text)
    with (tmp_path / "bad.csv").open("rb") as opened, pytest.raises(ImportSourceError):
        Source(opened, csv=True).begin()


def test_a_quote_that_never_closes_holds_no_more_than_a_record(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'id,nota\na,"una\n' + b"b,x\n" * 600_000)
    with file.open("rb") as opened:
        source = Source(opened, csv=True)
        source.begin()
        first, *rest = source.records()
    assert 1024 * 1024 < len(first) < 1024 * 1024 + 100
    assert len(rest) > 300_000
