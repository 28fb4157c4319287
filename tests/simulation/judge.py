"""What may never happen, checked while it would happen."""

from __future__ import annotations

from collections.abc import Iterable

from replicad.core.effects import Committed
from replicad.core.entry import DIGEST_BYTES
from tests.simulation.coordinator import Coordinator
from tests.simulation.disk import Disk


class Judge:
    """Knows every acknowledged write and every committed entry."""

    def __init__(self) -> None:
        self.committed: list[bytes] = []
        self.acknowledged: dict[str, Committed] = {}
        self.acknowledged_keys: set[str] = set()
        self._leaders: dict[int, str] = {}

    def leads(self, epoch: int, incarnation: str) -> None:
        """One leader an epoch, for ever."""
        assert self._leaders.setdefault(epoch, incarnation) == incarnation, f"two in {epoch}"

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
        """A request has one outcome for ever."""
        assert self.acknowledged.setdefault(request, result) == result, "two outcomes"
        self.acknowledged_keys.add(key)

    def check_electable(self, coordinator: Coordinator, disks: Iterable[Disk]) -> None:
        """Whoever may be elected holds every acknowledged write, synced."""
        if coordinator.state is None or not self.acknowledged:
            return
        by_id = {(d.node, d.disk_id): d for d in disks}
        for member in coordinator.state.isr:
            disk = by_id.get((member.node, member.disk_id))
            if disk is None:
                continue  # Wiped: it cannot be elected.
            for request, result in self.acknowledged.items():
                held = result.index <= disk.synced and _digest(disk, result.index) == result.digest
                assert held, f"{disk.node} is electable without {request} at {result.index}"

    def check_read(self, key: str, *, found: bool, known_before: frozenset[str]) -> None:
        """A strong read sees every write that was acknowledged before it began."""
        assert found or key not in known_before, f"stale read: {key} is missing"

    def check_duplicate(self, disk: Disk, key: str) -> None:
        """Nobody is told that a record exists before it is committed."""
        assert ("c", key) in disk.records, f"{key} is no duplicate of anything committed"


def _digest(disk: Disk, index: int) -> bytes:
    return bytes.fromhex(disk.lines[index - 1][-2 * DIGEST_BYTES - 2 : -2].decode())
