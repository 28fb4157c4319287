"""What is measured is durable: the order of system calls in the very stack that benchmarks build.

Before the leader answers, and before a follower sends its ack, all of the log that this speaks of
was written and synced; and each answer rests on the acks of all replicas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Final

import pytest

from tests.benchmarks.compare.replicad import Replicad
from tests.support.durability import Replica
from tests.support.syscalls import calls, tracing
from tests.support.work import write_many

WRITES: Final = 300
ROLES: Final = {"leader", "follower 1", "follower 2"}
ANSWER: Final = re.compile(rb'"status":"committed","index":(\d+)')
ACK: Final = re.compile(rb'"disk_id":"[^"]*","index":(\d+)')


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Replicad]:
    """As `make bench` starts it."""
    system = Replicad()
    system.up(tmp_path / "stack")
    yield system
    system.down()


async def test_what_is_acknowledged_was_synced_everywhere_before(
    system: Replicad, tmp_path: Path
) -> None:
    pids = {role: pid for role, pid in system.pids().items() if role in ROLES}
    replicas = {role: Replica.found(role, pid) for role, pid in pids.items()}
    assert replicas.keys() == ROLES
    notes = tmp_path / "calls"
    async with tracing(pids.values(), notes):
        answers = await write_many(system.url, WRITES)
    traced = calls(notes)

    leader = replicas.pop("leader")
    answered = leader.said(traced, ANSWER)
    leader.assert_said_when_durable(traced, answered)
    acked = [follower.said(traced, ACK) for follower in replicas.values()]
    for follower, said in zip(replicas.values(), acked, strict=True):
        follower.assert_said_when_durable(traced, said)

    answered_at = {index: position for position, index in answered}
    for answer in answers:
        told = BytesParser().parsebytes(answer.partition(b"\r\n")[2], headersonly=True)
        assert told["X-Replicad-Acks"] == "n1,n2,n3"
        stored = int(told["X-Replicad-Index"])
        position = answered_at[stored]
        for said in acked:
            assert any(at < position and index >= stored for at, index in said)
