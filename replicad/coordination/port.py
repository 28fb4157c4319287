"""What the daemon and the gateway need of a coordinator. Adapters: `zookeeper.py`, `memory.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from replicad.core.cluster import ClusterConfig, ClusterState, Member, View
from replicad.core.messages import Point

__all__ = ["Coordinator", "View"]


class Coordinator(Protocol):
    """Holds config, state and members. All callbacks run on the event loop's thread."""

    async def start(self, on_view: Callable[[View], None]) -> None:
        """Connect and deliver a View at once and after each change.

        After a lost connection or session everything is read again after a `sync`.

        Raises:
            CoordinationError: No connection within the deadline.
        """

    async def register(self, describe: Callable[[], Member]) -> None:
        """Create the ephemeral member, and again after each expired session.

        `describe` is called each time: what a member says of its log must be true when it says it.
        A registration of the same node with the same disk id is superseded.

        Raises:
            NodeNameTakenError: The name is taken by a living process with another disk id.
            CoordinationError: No answer.
        """

    async def read(self) -> View:
        """A linearizable read: a `sync`, then everything read, both begun after the call.

        Raises:
            CoordinationError: No answer within the deadline.
        """

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        """Replace the state if its version is `expected_version` and config has not changed.

        Returns:
            The new version, or None when the versions differ: this change did not happen.

        Raises:
            CoordinationError: The outcome is unknown; the change may even happen later.
        """

    async def create_cluster(self, config: ClusterConfig, state: ClusterState) -> bool:
        """Create config and state together. Returns False when they are already there."""

    async def recover(self, state: ClusterState, expected_version: int, note: bytes) -> bool:
        """Replace the state as `propose` does, and keep a note of that for ever, in one step.

        Only an operator's command does so: the new state names who was not in sync.

        Returns:
            False when the versions differ: nothing happened.

        Raises:
            CoordinationError: The outcome is unknown; `recoveries` tells.
        """

    async def recoveries(self) -> list[bytes]:
        """The notes of all recoveries, oldest first.

        Raises:
            CoordinationError: No answer within the deadline.
        """

    async def published(self) -> Point | None:
        """Up to which entry changes were published to other systems; None if never.

        Raises:
            CoordinationError: No answer within the deadline.
        """

    async def note_published(self, point: Point, state_version: int) -> bool:
        """Replace that, if the state still has this version.

        Returns:
            False when the versions differ: nothing happened.

        Raises:
            CoordinationError: The outcome is unknown.
        """

    async def stop(self) -> None:
        """End the session: the member disappears at once."""
