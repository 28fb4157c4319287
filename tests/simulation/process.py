"""A process that may be held up: paused, or blocked by its own disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tests.simulation.world import World


class Process:
    """Does things at once, or when it runs again, or never."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self._holds = 0
        self._held: dict[str, deque[Callable[[], None]]] = {}

    @property
    def is_held(self) -> bool:
        return self._holds > 0

    @property
    def is_behind(self) -> bool:
        """Whether more has come than what it is doing now."""
        return (
            self._holds > 0 or len(self._held) > 1 or any(len(a) > 0 for a in self._held.values())
        )

    def do(self, action: Callable[[], None], source: str) -> None:
        """Let the process do something about what has come from `source`."""
        if self._holds or self._held:
            self._held.setdefault(source, deque()).append(action)
        elif self.alive:
            action()

    def hold(self) -> None:
        """The process does nothing until as many `release`."""
        self._holds += 1

    def release(self) -> None:
        """What has come meanwhile is read from several sockets, in any order between them."""
        self._holds -= 1
        while self._held and not self._holds and self.alive:
            sources = list(self._held)
            source = sources[0] if len(sources) == 1 else self.world.rng.choice(sources)
            actions = self._held[source]
            action = actions.popleft()
            action()  # May hold the process again; what it brings about waits its turn.
            if not actions:
                del self._held[source]
