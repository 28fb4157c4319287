"""What one machine keeps through crashes: synced bytes for sure, unsynced ones by luck.

Lines stand for bytes. What a restart may cut and what it must call corruption follows
`replicad/storage/recovery.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from replicad.core.entry import (
    INSERT,
    decode_entry,
    decode_head,
    genesis_digest,
    split_lines,
    verify_line,
)
from replicad.core.events import Earlier, Found
from replicad.core.log import LogIndex
from replicad.core.messages import Point
from replicad.core.write import DEFINITIONS, WriteRequest
from replicad.errors import MalformedEntryError
from replicad.storage.logbase import Base
from tests.simulation.reference import Name, Record

CLUSTER_ID = "simulated"
GENESIS = Base(Point(0, genesis_digest(CLUSTER_ID)))
SEGMENT_ENTRIES = 16
"""Snapshots end where segments do, and whole segments are dropped."""

decode = lru_cache(maxsize=4096)(decode_entry)
"""Every replica decodes the same lines."""


@dataclass(frozen=True)
class Snapshot:
    """The record store as it was at an entry, durable and verified."""

    base: Base
    records: dict[Name, Record]
    requests: dict[str, Earlier]


NO_SNAPSHOT = Snapshot(GENESIS, {}, {})


@dataclass(frozen=True)
class Recovered:
    """What a restart learns from the disk."""

    log: LogIndex
    commit: int
    last_time: str
    torn: int
    """How many lines were cut as a torn tail."""


@dataclass(frozen=True, slots=True)
class _Applied:
    """What an entry replaced, so that it can be undone."""

    at: int
    request: str
    before: dict[Name, Record | None]


class DamagedError(Exception):
    """The log is damaged where no power cut explains it.

    `at` is the first damaged line; 0 means that nothing of the log is of use.
    """

    def __init__(self, at: int, why: str) -> None:
        super().__init__(f"entry {at}: {why}")
        self.at = at


class Disk:
    """A log with its sync mark, the persisted epoch, the record store, and snapshots.

    Attributes:
        base: What the first line follows: what stood before was dropped, and is in a snapshot.
        synced: The entries up to here survive a power cut.
        snapshot, spare: The newest one, and the one before it.
        failed: A sync has failed; what lies behind the sync mark may not be on the disk at all.
        damaged: Some synced line was garbled, and nobody has noticed yet.
        epoch_lost: The file with the persisted epoch was garbled.
    """

    def __init__(self, node: str, disk_id: str) -> None:
        self.node = node
        self.disk_id = disk_id
        self.epoch = 0
        self.base = GENESIS
        self.lines: list[bytes] = []
        self.synced = 0
        self.snapshot = self.spare = NO_SNAPSHOT
        self.records: dict[Name, Record] = {}
        self.requests: dict[str, Earlier] = {}
        self.applied = 0
        self._loaded = 0
        self._undo: list[_Applied] = []
        self.full = False
        self.failed = False
        self.damaged = False
        self.epoch_lost = False
        self._mark = self._durable_mark = GENESIS.point

    # -- the log ------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        return self.base.point.index + len(self.lines)

    def line(self, index: int) -> bytes:
        return self.lines[index - self.base.point.index - 1]

    def append(self, blob: bytes) -> None:
        self.lines.extend(split_lines(blob))

    def sync(self) -> int:
        """Returns what the process is told, which after a failed sync is not the truth."""
        if not self.failed:
            self.synced = self.last
        return self.last

    def mark_synced(self, log: LogIndex) -> None:
        """Write down, without a sync, how far the log is synced."""
        self._durable_mark = self._mark
        self._mark = log.point(self.synced)

    def truncate(self, first_gone: int, log: LogIndex) -> None:
        """Cut; the mark never speaks of what is gone."""
        self.cut(first_gone)
        if self._mark.index > self.synced:
            self._mark = self._durable_mark = log.point(self.synced)

    def cut(self, first_gone: int) -> None:
        del self.lines[first_gone - self.base.point.index - 1 :]
        self.synced = min(self.synced, self.last)

    def read(self, first: int, count: int) -> bytes:
        return b"".join(self.line(at) + b"\n" for at in range(first, first + count))

    def holds(self, index: int, digest: bytes) -> bool:
        """Whether the entry is synced here; what is before the base was committed."""
        if index <= self.base.point.index:
            return index < self.base.point.index or digest == self.base.point.digest
        return index <= self.synced and self.line(index).endswith(b'%b"}' % digest.hex().encode())

    def is_good(self, first: int, count: int, log: LogIndex) -> bool:
        """Whether these lines are still what was written."""
        try:
            for at in range(first, first + count):
                verify_line(self.line(at), log.digest_at(at - 1))
        except MalformedEntryError:
            return False
        return True

    # -- the record store ---------------------------------------------------------------------

    def look_up(self, write: WriteRequest) -> Found:
        """What the applied state knows about a write."""
        versions = tuple(self._version(write.collection, o.key) for o in write.operations)
        earlier = self.requests.get(write.request)
        if write.collection != DEFINITIONS:
            return Found(versions, earlier, self._version(DEFINITIONS, write.collection))
        emptied = {o.key for o in write.operations if o.value is None or write.if_empty}
        return Found(versions, earlier, 0, sum(name in emptied for name, _ in self.records))

    def _version(self, collection: str, key: str) -> int:
        record = self.records.get((collection, key))
        return record.index if record else 0

    def apply(self, index: int) -> set[Name]:
        """Take committed entries into the record store; returns the names of what they wrote."""
        names: set[Name] = set()
        for at in range(self.applied + 1, index + 1):
            entry = decode(self.line(at))
            if entry.collection is None or entry.request is None or entry.fingerprint is None:
                continue
            assert entry.request not in self.requests, "request id applied twice"
            before: dict[Name, Record | None] = {}
            for change in entry.changes:
                name = entry.collection, change.key
                before[name] = self.records.pop(name, None)
                is_there = before[name] is not None
                assert is_there == (change.operation != INSERT), f"{change.operation} of {name}"
                if change.value is not None:
                    self.records[name] = Record(at, change.value)
            names |= before.keys()
            done = "".join(change.operation[0] for change in entry.changes)
            self.requests[entry.request] = Earlier(at, entry.fingerprint, done)
            self._undo.append(_Applied(at, entry.request, before))
        self.applied = index
        return names

    def _unapply(self, index: int) -> None:
        """Let the record store fall back to what it was at `index`, or begin anew."""
        if index < self._loaded:
            self._load(NO_SNAPSHOT)
        while self._undo and self._undo[-1].at > index:
            applied = self._undo.pop()
            del self.requests[applied.request]
            _restore(self.records, applied)
        self.applied = min(self.applied, index)

    @property
    def named_commit(self) -> int:
        """The commit index that the last synced line names: no power cut takes that away."""
        base = self.base.point.index
        return _named(self.line(self.synced)) if self.synced > base else base

    # -- snapshots and retention --------------------------------------------------------------

    def build_snapshot(self, log: LogIndex) -> None:
        """Of what is applied up to the end of a segment; keeps the two newest."""
        end = self.applied // SEGMENT_ENTRIES * SEGMENT_ENTRIES
        if end <= max(self.snapshot.base.point.index, self.base.point.index):
            return
        entry = decode(self.line(end))
        records = dict(self.records)
        for applied in reversed(self._undo):
            if applied.at > end:
                _restore(records, applied)
        requests = {name: earlier for name, earlier in self.requests.items() if earlier.at <= end}
        base = Base(log.point(end), entry.epoch, entry.time)
        self.keep(Snapshot(base, records, requests), log)

    def keep(self, snapshot: Snapshot, log: LogIndex) -> None:
        """Make it the newest one, durably. The newest that the log goes on from stays."""
        if log.holds(self.snapshot.base.point):
            self.spare = self.snapshot
        self.snapshot = snapshot

    def drop(self, log: LogIndex) -> None:
        """Give up the segments that the older snapshot covers."""
        base = self.spare.base
        if self.base.point.index < base.point.index < log.last and log.holds(base.point):
            del self.lines[: base.point.index - self.base.point.index]
            self.base = base
            log.rebase(base.point.index)

    def install(self, snapshot: Snapshot) -> None:
        """Let it take the place of the log and the record store."""
        self.begin_after(snapshot.base)
        self._load(snapshot)

    def begin_after(self, base: Base) -> None:
        """Give up the whole log; the record store may be behind now."""
        self.base = base
        self.lines.clear()
        self.synced = self.last
        self._mark = self._durable_mark = base.point

    def _load(self, snapshot: Snapshot) -> None:
        self.records = dict(snapshot.records)
        self.requests = dict(snapshot.requests)
        self.applied = self._loaded = snapshot.base.point.index
        self._undo.clear()

    # -- what goes wrong ----------------------------------------------------------------------

    def lose_power(self, rng: Random) -> None:
        """Of the unsynced lines some are gone and some garbled; the record store falls back."""
        synced = self.synced
        self.cut(rng.randint(synced, self.last) + 1)
        garbled = rng.choice((0.0, 0.0, 0.3, 1.0))
        for at in range(synced + 1, self.last + 1):
            if rng.random() < garbled:
                self._garble(at, rng)
        self._mark = self._durable_mark = rng.choice((self._mark, self._durable_mark))
        self._unapply(rng.randint(0, self.applied))

    def damage(self, rng: Random) -> None:
        """Garble the persisted epoch, or one line that is known to be committed or synced.

        Known from the disk, even after a power cut: damage to what was synced a moment before a
        power cut looks like a torn tail (docs/guarantees.md, "Assumptions").
        """
        base = self.base.point.index
        known = min(max(self._durable_mark.index, self.named_commit), self.applied)
        if known <= base or rng.random() < 0.2:
            self.epoch_lost = True
        else:
            self._garble(rng.randint(base + 1, known), rng)
        self.damaged = True

    def _garble(self, at: int, rng: Random) -> None:
        line = self.line(at)
        if rng.random() < 0.5:
            self.fill(at, b"\0" * len(line))
        else:  # Its head can still be read.
            middle = len(line) // 2
            self.fill(at, line[:middle] + bytes((line[middle] ^ 1,)) + line[middle + 1 :])

    # -- a restart ----------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """As a restarting process does: verify, cut a torn tail, sync what is left.

        Raises:
            DamagedError: This is no torn tail. Nothing was changed.
        """
        index, named, last_time, damage = self._scan()
        if self.is_suspect:
            raise DamagedError(self.last + 1, "the disk failed")
        if damage:
            for line in self.lines[index.last - self.base.point.index :]:
                named = max(named, _named(line))
        for floor, why in self._floors(named):
            if index.last < floor:
                raise DamagedError(index.last + 1, f"{damage or 'the log ends'}, but {why}")
        if self._mark.index > self.base.point.index and not index.holds(self._mark):
            raise DamagedError(self._mark.index, "another entry was synced")
        if self.applied < self.base.point.index:
            self._load(self._fitting(index))
        torn = self.last - index.last
        self.cut(index.last + 1)
        self.sync()
        self._mark = self._durable_mark = index.last_point
        commit = max(self.applied, named)
        self.apply(commit)
        self.damaged = False  # Whatever was damaged is gone: all that there is was verified.
        return Recovered(index, commit, last_time, torn)

    def replace(self, disk_id: str, epoch: int) -> None:
        """Begin the repair of a suspect disk: a new id, and nothing known but the lines.

        `epoch` is the coordinator's. After a failed sync nothing behind the sync mark is believed.
        """
        self.disk_id = disk_id
        self.epoch = epoch if self.epoch_lost else max(self.epoch, epoch)
        if self.failed:
            self.cut(self._mark.index + 1)
        self.failed = self.damaged = self.epoch_lost = False
        self._mark = self._durable_mark = GENESIS.point
        self._unapply(0)

    def fill(self, at: int, line: bytes) -> None:
        """Put a peer's line in the place of a damaged one."""
        self.lines[at - self.base.point.index - 1] = line

    @property
    def is_suspect(self) -> bool:
        """Whether the disk is known to have failed, whatever its log looks like."""
        return self.failed or self.epoch_lost

    def _fitting(self, log: LogIndex) -> Snapshot:
        """The newest snapshot that the log can go on from."""
        for snapshot in (self.snapshot, self.spare):
            if log.holds(snapshot.base.point):
                return snapshot
        raise DamagedError(0, "no snapshot holds what was dropped")

    def _floors(self, named: int) -> tuple[tuple[int, str], ...]:
        """Up to where the log cannot be torn."""
        return (
            (self.applied, "it was applied"),
            (self._mark.index, "it was synced"),
            (named, "it was committed"),
        )

    def _scan(self) -> tuple[LogIndex, int, str, str]:
        """Verify up to the first damage: the index, commit index named, last time, and damage."""
        base = self.base
        index = LogIndex(base.point, base.epoch)
        named, last_time = base.point.index, base.time
        for line in self.lines:
            try:
                digest = verify_line(line, index.last_point.digest)
            except MalformedEntryError:
                return index, named, last_time, "the line is garbled"
            number, epoch, time, commit = decode_head(line)
            assert number == index.last + 1, "sealed with a wrong index"
            assert epoch >= index.last_epoch, "sealed with an epoch that went back"
            assert time >= last_time, "sealed with a time that went back"
            index.append(epoch, len(line) + 1, digest)
            named, last_time = max(named, commit), time
        return index, named, last_time, ""


def _restore(records: dict[Name, Record], applied: _Applied) -> None:
    for name, record in applied.before.items():
        if record is None:
            del records[name]
        else:
            records[name] = record


def _named(line: bytes) -> int:
    """The commit index that something like an entry's head names."""
    try:
        return decode_head(line)[3]
    except MalformedEntryError:
        return 0
