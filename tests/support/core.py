"""Builds a core for one test, steps it, and finds what it wants done."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TypeVar

from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member, View
from replicad.core.context import Context, Identity, Settings
from replicad.core.effects import Effect, Propose, Send
from replicad.core.events import (
    Event,
    Found,
    LogSynced,
    MessageReceived,
    Outcome,
    ProposalFinished,
    Tick,
    ViewSeen,
    WritesArrived,
)
from replicad.core.log import LogIndex
from replicad.core.messages import Ack, Append, Echo, Point
from replicad.core.replica import Replica
from replicad.core.write import WriteRequest
from tests.support.entries import LogBuilder

E = TypeVar("E")

NODES = ("n1", "n2", "n3")
SETTINGS = Settings(candidate_delay_max_s=0.0)
TICK_S = 0.05
UNIX_MS = 1_700_000_000_000


def disk(node: str, generation: int = 1) -> Disk:
    """The disk of a node; another generation is what it has after a wipe."""
    return Disk(node, f"{node}-disk{generation}")


def disks(*nodes: str) -> tuple[Disk, ...]:
    return tuple(map(disk, nodes))


def state_of(
    epoch: int, leader: str | None, isr: Iterable[Disk] = disks(*NODES), *, nonce: str = "seen"
) -> ClusterState:
    """A stored state; the leader's incarnation is `run-<name>`."""
    run, url = (f"run-{leader}", f"http://{leader}") if leader else (None, None)
    return ClusterState(epoch, leader, run, url, tuple(isr), nonce)


def member(node: str, generation: int = 1) -> Member:
    named = disk(node, generation)
    return Member(node, f"run-{node}", f"http://{node}", named.disk_id, 0, 0, "", 0, "")


def view_of(
    state: ClusterState, version: int, living: Iterable[str] = NODES, *, min_in_sync: int = 2
) -> View:
    return View(config_of(min_in_sync), state, version, tuple(map(member, living)))


def config_of(min_in_sync: int = 2, nodes: tuple[str, ...] = NODES) -> ClusterConfig:
    return ClusterConfig("test", nodes, min_in_sync)


def context_of(
    node: str = "n1",
    log: LogIndex | None = None,
    *,
    epoch: int = 0,
    commit: int = 0,
    min_in_sync: int = 2,
    settings: Settings = SETTINGS,
) -> Context:
    """A recovered replica whose broker is up; its whole log is synced."""
    log = log or LogBuilder().index
    context = Context(
        Identity(disk(node), f"run-{node}", f"http://{node}"),
        config_of(min_in_sync),
        log,
        epoch=epoch,
        commit=commit,
        applied=commit,
        last_time="",
        settings=settings,
        rng=Random(1),  # noqa: S311 - reproducible
    )
    context.broker_up = True
    return context


class Stepper:
    """Steps one replica; `effects` are those of the last step."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.replica = Replica(context)
        self.now = 0.0
        self.effects: list[Effect] = []

    def step(self, event: Event, *, after: float = 0.0) -> list[Effect]:
        self.now += after
        self.effects = self.replica.step(event, now=self.now, unix_ms=UNIX_MS)
        return self.effects

    def see(self, state: ClusterState, version: int, living: Iterable[str] = NODES) -> list[Effect]:
        return self.step(ViewSeen(view_of(state, version, living)))

    def finish(self, proposal: Propose, outcome: Outcome) -> list[Effect]:
        version = proposal.expected_version + 1 if outcome is Outcome.ACCEPTED else -1
        return self.step(ProposalFinished(proposal.state.nonce, outcome, version))

    def every(self, kind: type[E]) -> list[E]:
        return every(self.effects, kind)

    def only(self, kind: type[E]) -> E:
        return only(self.effects, kind)


def every(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def only(effects: Iterable[Effect], kind: type[E]) -> E:
    """The one effect of this kind."""
    found = every(effects, kind)
    assert len(found) == 1, found
    return found[0]


def ack_from(context: Context, follower: Disk, index: int, *, round_: int = 0) -> Ack:
    """An ack in the leader's epoch, with the leader's digest at `index`."""
    return Ack(context.epoch, *follower, context.log.point(index), round_)


def append_of(
    previous: Point,
    lines: bytes = b"",
    *,
    epoch: int = 1,
    leader: str = "n2",
    commit: Point | None = None,
    last: int | None = None,
    round_: int = 1,
    acked: dict[str, int] | None = None,
) -> Append:
    """What a leader sends; it commits nothing and has nothing more unless told otherwise."""
    count = lines.count(b"\n")
    return Append(
        epoch=epoch,
        leader=leader,
        incarnation=f"run-{leader}",
        previous=previous,
        count=count,
        lines=lines,
        commit=commit or Point(0, b""),
        last=previous.index + count if last is None else last,
        round=round_,
        acked={} if acked is None else acked,
    )


def arriving(
    context: Context, *writes: WriteRequest, token: int = 1, found: Found | None = None
) -> WritesArrived:
    """Writes in the replica's own epoch, looked up in its latest state: empty, if not `found`."""
    seen = tuple(found or Found((0,) * len(write.operations), None) for write in writes)
    return WritesArrived(token, context.epoch, writes, seen, context.applied)


def leading(
    context: Context, *, isr: Iterable[Disk] = disks(*NODES), opened: bool = True
) -> Stepper:
    """A replica that was elected above its own epoch with this ISR; state version is 1.

    Args:
        context: Of a recovered replica.
        isr: As stored.
        opened: Whether the epoch's first entry is synced, matched by the whole ISR and committed.
    """
    stepper = Stepper(context)
    # Its epoch is named by nobody alive, so it stands at the first tick.
    stepper.see(state_of(context.epoch, None, isr), 0, ())
    stepper.step(Tick())
    stepper.finish(stepper.only(Propose), Outcome.ACCEPTED)
    if opened:
        stepper.step(LogSynced(context.log.last))
        for other in isr:
            if other != context.me.disk:
                stepper.step(MessageReceived(ack_from(context, other, context.log.last)))
        assert context.commit == context.log.last
    return stepper


def pass_time(stepper: Stepper, seconds: float, answering: Iterable[Disk] = ()) -> list[Effect]:
    """Tick through `seconds` while the broker carries echoes and these followers answer all.

    Returns:
        The effects of all steps.
    """
    effects: list[Effect] = []
    context = stepper.context
    for _ in range(round(seconds / TICK_S)):
        effects += stepper.step(Tick(), after=TICK_S)
        sent = every(stepper.effects, Send)
        for message in (send.message for send in sent):
            if isinstance(message, Echo):
                effects += stepper.step(MessageReceived(message))
            elif isinstance(message, Append):
                for follower in answering:
                    ack = ack_from(context, follower, message.last, round_=message.round)
                    effects += stepper.step(MessageReceived(ack))
    return effects
