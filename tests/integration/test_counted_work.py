"""What batches save is not lost unnoticed: counted work, not time.

64 connections store forms, each the next one as soon as it is answered. What costs most on the way
to the disks is shared by all writes that are under way together: requests, messages, syncs and
transactions. How many share it depends on the machine, but a slow one only lets more of them wait:
16 to 60 were seen. The limits allow 8; with nothing shared there is 1,000 of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from replicad.stack.record import CLUSTER
from tests.support.client import Client
from tests.support.cluster import Cluster
from tests.support.syscalls import calls, tracing
from tests.support.waiting import eventually
from tests.support.work import Work, counted, write_many

pytestmark = pytest.mark.processes

WRITES: Final = 1000
LIMIT: Final = 125
"""Of each kind of work."""

REQUESTS: Final = "replicad_gateway_batch_size_count,write"
SYNCS: Final = "replicad_log_sync_seconds_count"
TRANSACTIONS: Final = "replicad_records_transactions_total"
CHANGES: Final = "replicad_changes_published_total"
APPENDS: Final = "replicad_messages_sent_total,append"
HEARTBEATS: Final = "replicad_messages_sent_total,heartbeat"
ACKS: Final = "replicad_messages_sent_total,ack"


def work_done(work: Work) -> dict[str, float]:
    """How often each kind of work was done that writes are to share."""
    leader = work.replicas[work.leader]
    done = {
        "requests": work.gateway[REQUESTS],
        "appends": leader[APPENDS],
        "changes published": leader[CHANGES],
    }
    for name, counters in work.replicas.items():
        done[f"syncs of {name}"] = counters[SYNCS]
        done[f"transactions of {name}"] = counters[TRANSACTIONS]
    for name in work.followers:
        # Heartbeats are acked as well, and come with time, not with writes.
        done[f"acks of {name}"] = work.replicas[name][ACKS] - leader[HEARTBEATS]
    return done


async def test_writes_share_their_work(client: Client, cluster: Cluster) -> None:
    async with counted(cluster, client) as work:
        await write_many(client.url, WRITES)
    done = work_done(work)
    assert {kind: count for kind, count in done.items() if count > LIMIT} == {}
    # One message for all followers: one for each would be twice as many.
    assert done["appends"] <= 1.5 * done["requests"]


async def test_a_single_connection_has_nobody_to_share_with(
    client: Client, cluster: Cluster
) -> None:
    """So what is not shared is counted: already after a quarter of the writes there is too much.

    Transactions and changes are not seen here: they wait a moment for others to come.
    """
    async with counted(cluster, client) as work:
        await write_many(client.url, WRITES // 4, connections=1)
    shared = ("transactions", "changes")
    done = {kind: n for kind, n in work_done(work).items() if not kind.startswith(shared)}
    assert len(done) == 7
    assert min(done.values()) > LIMIT


async def test_counters_tell_the_truth(client: Client, cluster: Cluster, tmp_path: Path) -> None:
    """The kernel sees as many syncs, and whoever taps the broker as many messages."""
    notes = tmp_path / "calls"
    pids = [pid for name, pid in cluster.stack.pids().items() if pid and name in cluster.names]
    async with tapped(cluster) as seen:
        async with tracing(pids, notes), counted(cluster, client) as work:
            await write_many(client.url, WRITES // 2)
        acks = {name: work.replicas[name][ACKS] for name in work.followers}
        await eventually(lambda: all(seen[name, "ack"] >= sent for name, sent in acks.items()))
        assert seen[work.leader, "append"] == work.replicas[work.leader][APPENDS]
    traced = calls(notes)
    for name, counters in work.replicas.items():
        log = f"{cluster.data_dir(name)}/log/"
        synced = [c for c in traced if c.syncs and c.file.startswith(log) and "jsonl" in c.file]
        assert len(synced) == counters[SYNCS]


@asynccontextmanager
async def tapped(cluster: Cluster) -> AsyncIterator[Counter[tuple[str, str]]]:
    """Count the messages that the broker carries, by sender and type; heartbeats apart."""
    seen: Counter[tuple[str, str]] = Counter()

    async def count(message: AbstractIncomingMessage) -> None:
        kind = message.type if message.type != "append" or message.body else "heartbeat"
        seen[str(message.app_id), str(kind)] += 1

    async with await aio_pika.connect(cluster.stack.description["rabbitmq"]["amqp"]) as tap:
        channel = await tap.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(f"replicad.{CLUSTER}", "#")
        await queue.consume(count, no_ack=True)
        yield seen
