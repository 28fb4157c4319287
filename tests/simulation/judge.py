"""What may never happen, checked while it would happen."""

from __future__ import annotations

from collections.abc import Iterable

from replicad.core.cluster import ClusterState
from replicad.core.effects import Committed
from replicad.core.entry import DIGEST_BYTES
from tests.simulation.disk import Disk


class Judge:
    """Knows every acknowledged write and every committed entry."""

    def __init__(self) -> None:
        self.committed: list[bytes] = []
        self.acknowledged: dict[str, Committed] = {}
        self.known_keys: dict[str, None] = {}
        """Keys that were acknowledged or seen by a strong read, oldest first."""
        self._highest: Committed | None = None
        self._leaders: dict[int, str] = {}
        self._promised: dict[str, int] = {}

    def leads(self, epoch: int, incarnation: str) -> None:
        """One leader an epoch, for ever (rule 4)."""
        assert self._leaders.setdefault(epoch, incarnation) == incarnation, f"two in {epoch}"

    def confirms(self, disk: Disk, epoch: int) -> None:
        """Whoever confirmed an epoch never helps a lower one again, in no process (rule 4)."""
        before = self._promised.get(disk.disk_id, 0)
        assert epoch >= before, f"{disk.node} acks in epoch {epoch} after epoch {before}"
        self._promised[disk.disk_id] = epoch

    def commits(self, disk: Disk, before: int, index: int) -> None:
        """Committed prefixes are equal."""
        for at in range(before + 1, index + 1):
            digest = _digest(disk, at)
            if at <= len(self.committed):
                assert self.committed[at - 1] == digest, f"{disk.node} committed other entry {at}"
            else:
                assert at == len(self.committed) + 1
                self.committed.append(digest)

    def acknowledges(self, request: str, key: str, result: Committed) -> None:
        """A request has one outcome for ever, and it is a committed entry (rules 1 and 10)."""
        assert self.acknowledged.setdefault(request, result) == result, "two outcomes"
        assert self.committed[result.index - 1] == result.digest, f"{request} is not committed"
        self.known_keys[key] = None
        if self._highest is None or result.index > self._highest.index:
            self._highest = result

    def check_electable(self, state: ClusterState | None, disks: Iterable[Disk]) -> None:
        """Whoever may be elected holds every acknowledged write, synced.

        Digests are chained: a disk that holds the highest acknowledged entry holds them all.
        """
        highest = self._highest
        if state is None or highest is None:
            return
        members = {member.disk_id for member in state.isr}
        for disk in disks:
            if disk.disk_id in members:
                index = highest.index
                held = index <= disk.synced and _digest(disk, index) == highest.digest
                assert held, f"{disk.node} is electable without the acknowledged entry {index}"

    def check_read(self, key: str, *, found: bool, known: bool) -> None:
        """A strong read sees what was acknowledged or read before it began (rule 11)."""
        assert found or not known, f"stale read: {key} is missing"
        if found:
            self.known_keys.setdefault(key)

    def check_duplicate(self, disk: Disk, key: str) -> None:
        """Nobody is told that a record exists before it is committed."""
        assert ("c", key) in disk.records, f"{key} is no duplicate of anything committed"


def _digest(disk: Disk, index: int) -> bytes:
    return bytes.fromhex(disk.lines[index - 1][-2 * DIGEST_BYTES - 2 : -2].decode())
