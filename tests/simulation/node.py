"""The driver of one core: runs its effects on the simulated disk, network and coordinator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster import Disk as DiskName
from replicad.core.cluster import Member
from replicad.core.context import Context, Identity, Settings
from replicad.core.effects import (
    AnswerRead,
    AnswerTransfer,
    AnswerWrites,
    AppendLines,
    Apply,
    Channel,
    Effect,
    Halt,
    Left,
    Level,
    PersistEpoch,
    Probe,
    Propose,
    ReadState,
    Report,
    RoleChanged,
    Send,
    SendFromLog,
    SyncLog,
    TruncateLog,
)
from replicad.core.entry import WriteRequest
from replicad.core.events import (
    AppendFailed,
    BrokerChanged,
    DiskChanged,
    Event,
    Found,
    LogSynced,
    MessageReceived,
    ReadArrived,
    Tick,
    WritesArrived,
)
from replicad.core.messages import Ack, Message
from replicad.core.replica import Replica
from tests.simulation.disk import CLUSTER_ID, Disk

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

# Longer than the daemon's: plays are made of faults, not of ticks.
TICK_S = 0.1


class Node:
    """One run of one process."""

    def __init__(self, simulation: Simulation, disk: Disk, incarnation: str) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.disk = disk
        self.name = disk.node
        self.incarnation = incarnation
        self.alive = True
        self.paused = False
        self._held: dict[str, list[Callable[[], None]]] = {}
        self._sync_planned = False
        index, commit, last_time = disk.recover()
        simulation.judge.commits(disk, 0, commit)
        identity = Identity(DiskName(disk.node, disk.disk_id), incarnation, f"http://{disk.node}")
        self.context = Context(
            identity,
            simulation.coordinator.config,
            index,
            epoch=disk.epoch,
            commit=commit,
            applied=commit,
            last_time=last_time,
            settings=Settings(),
            rng=Random(self.world.rng.getrandbits(64)),  # noqa: S311 - reproducible
        )
        self.core = Replica(self.context)
        member = Member(
            disk.node,
            incarnation,
            identity.url,
            disk.disk_id,
            index.last,
            index.last_epoch,
            index.last_point.digest.hex() if index.last else "",
            disk.epoch,
            CLUSTER_ID,
        )
        simulation.coordinator.connect(member, self.feed)
        self.world.after(0.01, lambda: self.feed(BrokerChanged(up=True)))
        self.world.after(0.02, self._tick)

    @property
    def leads(self) -> bool:
        return self.alive and self.core.leads

    def stop(self) -> None:
        self.alive = False
        self.simulation.coordinator.leave(self.incarnation)

    def pause(self, seconds: float) -> None:
        self.paused = True
        self.simulation.coordinator.cut(self.incarnation, seconds)
        self.world.after(seconds, self.resume)

    def resume(self) -> None:
        """What has come meanwhile is read from several sockets, in any order between them."""
        self.paused = False
        held, self._held = self._held, {}
        while any(held.values()):
            source = self.world.rng.choice([name for name, actions in held.items() if actions])
            self._do(held[source].pop(0), source)

    def feed(self, event: Event) -> None:
        """From the coordinator, or from the process itself."""
        self._do(lambda: self._step(event), "coordinator")

    def write(self, token: int, writes: tuple[WriteRequest, ...], epoch: int) -> None:
        """A request arrives; while the process is paused it waits in the socket."""

        def arrive() -> None:
            found = tuple(
                Found((w.collection, w.key) in self.disk.records, self.disk.requests.get(w.request))
                for w in writes
            )
            self._step(WritesArrived(token, epoch, writes, found, self.disk.applied))

        self._do(arrive, "clients")

    def read(self, token: int, epoch: int) -> None:
        self._do(lambda: self._step(ReadArrived(token, epoch)), "clients")

    def receive(self, message: Message) -> None:
        self._do(lambda: self._step(MessageReceived(message)), "broker")

    def _do(self, action: Callable[[], None], source: str) -> None:
        """Now, or when the process runs again, or never."""
        if self.paused:
            self._held.setdefault(source, []).append(action)
        elif self.alive:
            action()

    def _step(self, event: Event) -> None:
        unix_ms = int(1_700_000_000_000 + self.world.now * 1000 + self.simulation.skew[self.name])
        self._run(self.core.step(event, now=self.world.now, unix_ms=unix_ms))

    def _tick(self) -> None:
        if self.alive:
            if not self.paused:
                self.feed(Tick())
            self.world.after(TICK_S * self.world.rng.uniform(0.9, 1.1), self._tick)

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            if not self.alive:
                return
            if self.world.chance(self.simulation.crash_between_effects):
                self.simulation.crash(self, power=self.world.chance(0.5))
                return
            if isinstance(effect, AppendLines) and self.disk.full:
                self.feed(AppendFailed(effect.first))
                self.world.after(0.5, lambda: self.feed(DiskChanged(writable=True)))
                return
            self._run_one(effect)

    def _run_one(self, effect: Effect) -> None:
        match effect:
            case PersistEpoch():
                self.disk.epoch = effect.epoch
            case AppendLines():
                assert effect.first == len(self.disk.lines) + 1
                self.disk.append(effect.lines)
            case SyncLog():
                self._plan_sync()
            case TruncateLog():
                self.world.log(f"{self.name} truncates from {effect.first}")
                self.disk.truncate(effect.first)
                self.simulation.check_electable()
            case Apply():
                self.simulation.judge.commits(self.disk, self.disk.applied, effect.index)
                self.disk.apply(effect.index)
            case Send():
                if isinstance(effect.message, Ack):
                    self.simulation.judge.confirms(self.disk, effect.message.epoch)
                self.simulation.network.send(self.name, effect.to, effect.message)
            case SendFromLog():
                append = effect.append
                lines = self.disk.read(append.previous.index + 1, append.count)
                message: Message = replace(append, lines=lines)
                self.simulation.network.send(self.name, effect.to, message)
            case Propose():
                coordinator = self.simulation.coordinator
                coordinator.propose(
                    self.incarnation, effect.state, effect.expected_version, self.feed
                )
            case Probe():
                self.simulation.network.probe(self.name, effect, self.feed)
            case Left() | AnswerTransfer():
                self.world.log(f"{self.name} {effect}")
            case ReadState():
                self.simulation.coordinator.read(self.incarnation, effect.token, self.feed)
            case RoleChanged():
                if effect.leading:
                    self.simulation.judge.leads(self.context.epoch, self.incarnation)
                    self.simulation.judge.confirms(self.disk, self.context.epoch)
            case AnswerWrites():
                self.simulation.clients.on_writes(self, effect)
            case AnswerRead():
                self.simulation.clients.on_read(self, effect)
            case Report():
                if effect.level is not Level.INFO or effect.channel is Channel.DAEMON:
                    self.world.log(f"{self.name} {effect.event} {effect.fields}")
            case Halt():
                raise AssertionError(f"{self.name} halted: {effect.reason}")

    def _plan_sync(self) -> None:
        if self._sync_planned:
            return
        self._sync_planned = True
        slow = self.world.chance(0.02)
        delay = self.world.rng.uniform(0.05, 0.4) if slow else self.world.rng.uniform(0, 0.002)
        self.world.after(delay, lambda: self._do(self._sync, "disk"))

    def _sync(self) -> None:
        self._sync_planned = False
        self._step(LogSynced(self.disk.sync()))
