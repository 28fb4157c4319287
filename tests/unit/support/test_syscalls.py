"""strace's notes are read as the calls that they are."""

from __future__ import annotations

from pathlib import Path

from tests.support.syscalls import Call, calls

NOTES = r"""
71 write(9</d/log/1.jsonl>, "{\"index\":1}\n", 12) = 12
71 fdatasync(9</d/log/1.jsonl> <unfinished ...>
80 fsync(11</d/synced>) = -1 EIO (Input/output error)
71 <... fdatasync resumed>)          = 0
71 sendmsg(7<socket:[5]>, {msg_iov=[{iov_base="a\0\377", iov_len=3}, {iov_base="b"}]}, 0) = 4
71 --- SIGINT {si_signo=SIGINT} ---
80 write(7<socket:[5]>, "", 0 <detached ...>
"""


def test_order_data_and_results(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text(NOTES.lstrip())
    log = "/d/log/1.jsonl"
    assert calls(notes) == [
        Call(71, "write", log, b'{"index":1}\n', 12, 0, 0),
        Call(80, "fsync", "/d/synced", b"", -1, 2, 2),
        Call(71, "fdatasync", log, b"", 0, 1, 3),
        Call(71, "sendmsg", "socket:[5]", b"a\0\xffb", 4, 4, 4),
    ]
    assert [call.syncs for call in calls(notes)] == [False, False, True, False]
