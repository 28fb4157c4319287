"""What must be true once every fault is healed, of one history and the cluster's logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.support.client import Client
from tests.support.cluster import Cluster, assert_all_in
from tests.support.history import History
from tests.support.linearizability import violations
from tests.support.logs import assert_chained, log_bytes


class Judge:
    """Judges one history after the other on a cluster whose log only grows."""

    def __init__(self, cluster: Cluster) -> None:
        """Nothing has been judged yet."""
        self._cluster = cluster
        self._judged = b""

    async def judge(self, history: History, client: Client) -> None:
        """Wait until all replicas are level; fail unless everything promised was kept."""
        assert_linearizable(history)
        await self._cluster.in_sync(client)
        log = self._one_log()
        entries = [json.loads(line) for line in log[len(self._judged) :].splitlines()]
        self._judged = log
        assert_one_leader_an_epoch(entries)
        assert_inserts(history, entries)
        served = {each["id"] for each in await client.all_forms()}
        assert_all_in((insert.key for insert in history.acknowledged), served)

    def _one_log(self) -> bytes:
        """The log of all replicas. What was judged before still is its beginning."""
        names = self._cluster.names
        log = log_bytes(self._cluster.data_dir(names[0]))
        for name in names[1:]:
            assert log_bytes(self._cluster.data_dir(name)) == log, f"{name}'s log differs"
        assert log.startswith(self._judged), "what was judged before has changed"
        assert_chained(self._cluster.data_dir(names[0]))
        return log


def assert_linearizable(history: History) -> None:
    """Every record's operations fit into one order."""
    found = violations(history.operations)
    assert not found, "\n".join(map(str, found[:3]))


def assert_one_leader_an_epoch(entries: Iterable[dict[str, Any]]) -> None:
    """No epoch was opened twice."""
    opened = Counter(entry["epoch"] for entry in entries if entry["operation"] == "epoch")
    assert not opened or max(opened.values()) == 1, opened


def assert_inserts(history: History, entries: Iterable[dict[str, Any]]) -> None:
    """What was acknowledged stands in the log, once, where its answer said; what was refused does
    not, nor does anything that nobody asked for.
    """
    ours = f"{history.prefix}-"
    stored = [e for e in entries if e["operation"] == "insert" and e["key"].startswith(ours)]
    keys = Counter(entry["key"] for entry in stored)
    assert not keys or max(keys.values()) == 1, keys.most_common(3)
    by_value = {entry["value"]["valor"]: entry for entry in stored}
    assert len(by_value) == len(stored), "one request was stored under two keys"
    for insert in history.inserts:
        entry = by_value.pop(insert.value, None)
        if insert.index is not None:
            assert entry is not None, f"acknowledged and lost: {insert}"
            assert (entry["key"], entry["index"]) == (insert.key, insert.index), insert
        if insert.refused is not None:
            assert entry is None, f"refused and stored: {insert}"
    assert not by_value, f"nobody asked for {by_value}"
