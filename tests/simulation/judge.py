"""What may never happen, checked while it would happen."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from replicad.core.cluster import ClusterConfig, ClusterState
from replicad.core.context import Context
from replicad.core.effects import Committed, Rejected
from replicad.core.entry import Entry
from replicad.core.write import WriteRequest
from tests.simulation.disk import Disk, decode
from tests.simulation.reference import Name, Reference
from tests.simulation.wishes import BIG


class Judge:
    """Knows what clients have sent, every committed entry, and what was promised to whom."""

    def __init__(self) -> None:
        self.committed: list[bytes] = []
        """The digest of every committed entry."""
        self.acknowledged: dict[str, int] = {}
        """The index that a request was told."""
        self.sent: dict[str, list[WriteRequest]] = {}
        """What clients have ever asked for, by request id, each in all forms of its attempts."""
        self.reference = Reference()
        self.floor = 0
        """Somebody has seen the state at this index: nobody may see an older one from now on."""
        self.known_keys: dict[str, None] = {}
        """Keys that were acknowledged or seen by a strong read, oldest first."""
        self._committed_at: list[float] = []
        self._callers: dict[str, set[str]] = {}
        self._rejected: set[str] = set()
        self._done: set[str] = set()
        self._leaders: dict[int, str] = {}
        self._epochs: dict[str, int] = {}
        self._promised: dict[str, int] = {}
        self._commits: dict[str, int] = {}
        self._known: dict[str, int] = {}

    # -- epochs -------------------------------------------------------------------------------

    def leads(self, epoch: int, incarnation: str) -> None:
        """One leader an epoch, for ever (rule 4)."""
        assert self._leaders.setdefault(epoch, incarnation) == incarnation, f"two in {epoch}"

    def check_state(self, state: ClusterState | None, config: ClusterConfig) -> None:
        """What is stored never names too few (rule 3), nor a second leader for an epoch."""
        if state is not None:
            assert len(state.isr) >= config.min_in_sync, f"stored with {len(state.isr)} in sync"
            assert len({disk.node for disk in state.isr}) == len(state.isr), "a node twice in sync"
            if state.incarnation is not None:
                self.leads(state.epoch, state.incarnation)

    def confirms(self, disk: Disk, epoch: int) -> None:
        """Whoever confirmed an epoch never helps a lower one again, in no process (rule 4)."""
        before = self._promised.get(disk.disk_id, 0)
        assert epoch >= before, f"{disk.node} acks in epoch {epoch} after epoch {before}"
        assert epoch <= disk.epoch, f"{disk.node} acks in epoch {epoch} before it is persisted"
        self._promised[disk.disk_id] = epoch

    # -- the log and what follows from it -----------------------------------------------------

    def ends(self, disk: Disk) -> None:
        """A process has ended, perhaps with its machine."""
        self._known[disk.disk_id] = max(disk.applied, disk.named_commit)

    def boots(self, disk: Disk, context: Context) -> None:
        """A process starts: what its disk once had synced it still knows."""
        before = self._epochs.get(disk.disk_id, 0)
        assert context.epoch >= before, f"{disk.node} forgot epoch {before}"
        known = self._known.get(disk.disk_id, 0)
        assert context.commit >= known, f"{disk.node} forgot that {known} was committed"
        self._commits[disk.disk_id] = 0
        self._check_numbers(disk, context, leads=False)
        self.check_rows(disk)

    def check_step(self, disk: Disk, context: Context, *, leads: bool) -> None:
        """After each step of a replica: its numbers fit, and never go back within one run."""
        self._check_numbers(disk, context, leads=leads)
        stale_s = context.stale_s(context.now)
        if stale_s is not None:
            # Nothing that was committed longer ago than it admits is missing (rule 11).
            wanted = bisect_left(self._committed_at, context.now - stale_s)
            assert context.applied >= wanted, f"{disk.node} is staler than the {stale_s} s it says"

    def _check_numbers(self, disk: Disk, context: Context, *, leads: bool) -> None:
        assert context.log.last == disk.last, f"{disk.node} lost count of its log"
        assert context.applied <= context.synced <= disk.synced, f"{disk.node} is not synced"
        assert context.applied <= context.commit
        assert context.applied == disk.applied
        assert context.log.last_epoch <= context.epoch, f"{disk.node} is ahead of its epoch"
        before = self._commits[disk.disk_id]
        assert context.commit >= before, f"{disk.node} forgot a commit"
        if context.commit > before:
            self.check_commit(disk, context, context.commit, leads=leads)
        epoch = self._epochs.get(disk.disk_id, 0)
        assert context.epoch >= epoch, f"{disk.node} went back from epoch {epoch}"
        if context.epoch > epoch:
            self._epochs[disk.disk_id] = context.epoch

    def check_commit(self, disk: Disk, context: Context, index: int, *, leads: bool) -> None:
        """Committed prefixes are equal, and it is a leader that commits first (rule 1)."""
        # What is before the base came with a snapshot, and is compared row by row.
        known = max(self._commits[disk.disk_id], context.log.base.index - 1)
        for at in range(max(known, 0) + 1, index + 1):
            digest = context.log.digest_at(at)
            if at <= len(self.committed):
                assert self.committed[at - 1] == digest, f"{disk.node} committed other entry {at}"
            else:
                assert leads, f"{disk.node} committed entry {at} before any leader"
                self._extend(disk.line(at), digest)
                self._committed_at.append(context.now)
        self._commits[disk.disk_id] = max(known, index)

    def _extend(self, line: bytes, digest: bytes) -> None:
        """The reference: one more entry is committed, which some client asked for, once."""
        self.committed.append(digest)
        at = len(self.committed)
        entry = decode(line)
        assert entry.index == at
        if entry.request is not None:
            calls = {w.call for w in self.sent[entry.request] if self._does(w, entry)}
            assert calls, f"nobody asked for entry {at}, or it could not be"
            self._callers[entry.request] = calls - self._rejected
            assert self._callers[entry.request], f"entry {at} was rejected before"
        self.reference.extend(entry)

    def _does(self, write: WriteRequest, entry: Entry) -> bool:
        """Whether the entry is what the write does to what is committed before it."""
        done = "".join(change.operation[0] for change in entry.changes)
        return (
            (write.collection, write.fingerprint) == (entry.collection, entry.fingerprint)
            and [(o.key, o.value) for o in write.operations]
            == [(change.key, change.value) for change in entry.changes]
            and self.reference.outcome(write, entry.index - 1) == done
        )

    def check_applied(self, disk: Disk, names: Iterable[Name]) -> None:
        """The records of these names, which were just written, are the reference's."""
        for name in names:
            expected = self.reference.record(name, disk.applied)
            assert disk.records.get(name) == expected, f"{disk.node} applied {name} otherwise"
        total = self.reference.total(disk.applied)
        assert len(disk.records) == total, f"{disk.node} has other records"

    def check_rows(self, disk: Disk) -> None:
        """The whole record store is the reference's at its index."""
        self.check_applied(disk, disk.records)
        known = self.reference.requests
        assert all(known[name] == earlier for name, earlier in disk.requests.items())
        assert len(disk.requests) == sum(e.at <= disk.applied for e in known.values())

    def check_electable(self, state: ClusterState | None, disks: Iterable[Disk]) -> None:
        """Whoever may be elected holds every committed entry, synced.

        Digests are chained: a disk that holds the last committed entry holds them all. A disk
        whose damage nobody has noticed is one of those that a cluster may lose.
        """
        if state is None or not self.committed:
            return
        members = {member.disk_id for member in state.isr}
        index, digest = len(self.committed), self.committed[-1]
        for disk in disks:
            if disk.disk_id in members and not disk.damaged:
                held = disk.holds(index, digest)
                assert held, f"{disk.node} is electable without the committed entry {index}"

    # -- what clients are told ----------------------------------------------------------------

    def acknowledges(self, write: WriteRequest, result: Committed, *, floor: int) -> None:
        """A request has one outcome for ever, and it is a committed entry (rules 1 and 10)."""
        request = write.request
        index = self.acknowledged.setdefault(request, result.index)
        assert index == result.index, f"{request} has two outcomes"
        assert index <= len(self.committed), f"{request} is not committed"
        # Of an entry that the log holds no more the digest is not known.
        assert result.digest in (self.committed[index - 1], b""), f"{request} is another entry"
        earlier = self.reference.requests[request]
        told = index, write.fingerprint, result.done
        assert earlier == told, f"{request} was {earlier} and is told {told}"
        if not result.again:
            assert request not in self._done, f"{request} is done twice"
            assert index > floor, f"{request} is done at {index}: {floor} was seen before"
            self._done.add(request)
        self.floor = max(self.floor, index)
        if write.collection == BIG:
            self.known_keys.update(dict.fromkeys(o.key for o in write.operations))

    def check_read(self, disk: Disk, key: str, *, floor: int) -> None:
        """A strong read shows a committed state, none older than any seen before it began."""
        assert disk.applied >= floor, f"stale read at {disk.applied}: {floor} was seen before"
        name = BIG, key
        expected = self.reference.record(name, disk.applied)
        assert disk.records.get(name) == expected, f"{key} is read otherwise"
        self.floor = max(self.floor, disk.applied)
        if expected is not None:
            self.known_keys.setdefault(key)

    def check_rejection(
        self, disk: Disk, write: WriteRequest, result: Rejected, *, floor: int
    ) -> None:
        """A rejection is a strong read: it was true since `floor`, of what is committed."""
        assert disk.applied >= floor, f"stale rejection at {disk.applied}: {floor} was seen before"
        moments = self.reference.moments(write, floor)
        true = (at for at in moments if self.reference.outcome(write, at) == result)
        at = next(true, None)
        assert at is not None, f"{write.request} was never to be told {result}"
        self.floor = max(self.floor, at)

    def rejects(self, write: WriteRequest) -> None:
        """The client is told: its call never was done, and never will be (rule 10)."""
        self._rejected.add(write.call)
        callers = self._callers.get(write.request)
        if callers:
            callers.discard(write.call)
            assert callers, f"{write.request} was done and is rejected"
