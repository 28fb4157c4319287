"""The driver of one core: runs its effects on the simulated disk, broker and coordinator."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, assert_never

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
    FetchSnapshot,
    Halt,
    HandingOver,
    InstallSnapshot,
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
from replicad.core.events import (
    AppendFailed,
    BrokerChanged,
    DiskChanged,
    Event,
    LogSynced,
    MessageReceived,
    ReadArrived,
    ReadFinished,
    SnapshotFetched,
    SnapshotInstalled,
    StopAsked,
    Tick,
    TransferAsked,
    ViewSeen,
    WritesArrived,
)
from replicad.core.messages import Ack, Append, Message
from replicad.core.replica import Replica
from replicad.core.write import WriteRequest
from replicad.storage.logbase import Base
from tests.simulation.broker import Connection
from tests.simulation.disk import CLUSTER_ID, Disk, Recovered
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

MARK_INTERVAL_S = 1.0
LEAVE_S = 1.5


class Node(Process):
    """One run of one process.

    Attributes:
        connection: What it believes to be its connection to the broker.
        leaving: It was asked to stop.
        hears_all: It gets what goes to all, which a leader does not.
        joined: It has read the coordinator: it takes nothing from the broker before that.
    """

    def __init__(
        self, simulation: Simulation, disk: Disk, recovered: Recovered, incarnation: str
    ) -> None:
        super().__init__(simulation.world)
        self.simulation = simulation
        self.disk = disk
        self.name = disk.node
        self.incarnation = incarnation
        self.connection: Connection | None = None
        self.leaving = False
        self.joined = False
        self._seen: ViewSeen | None = None
        self.paused = False
        self.hears_all = self._wants_all = True
        self._installed: Base | None = None
        self._sync_planned = False
        self._marked_at = self.world.now
        identity = Identity(DiskName(disk.node, disk.disk_id), incarnation, f"http://{disk.node}")
        self.context = Context(
            identity,
            simulation.coordinator.config,
            recovered.log,
            epoch=disk.epoch,
            commit=recovered.commit,
            applied=recovered.commit,
            last_time=recovered.last_time,
            settings=Settings(),
            rng=Random(self.world.rng.getrandbits(64)),  # noqa: S311 - reproducible
        )
        self.core = Replica(self.context)

    def boot(self) -> None:
        """Register, connect, and begin once the coordinator was read."""
        simulation = self.simulation
        simulation.judge.boots(self.disk, self.context)
        log = self.context.log
        member = Member(
            self.name,
            self.incarnation,
            self.context.me.url,
            self.disk.disk_id,
            log.last,
            log.last_epoch,
            log.last_point.digest.hex() if log.last else "",
            self.disk.epoch,
            CLUSTER_ID,
        )
        simulation.coordinator.connect(member, self.see)
        simulation.broker.connect(self)
        self._join()
        self.world.after(self.world.rng.uniform(0.0, simulation.tick_s), self._tick)

    def _join(self) -> None:
        def on_read(finished: ReadFinished) -> None:
            if not self.alive or self.joined:
                return
            if finished.view is None or finished.view.state is None:
                self._join()
                return
            self.joined = True
            self.feed(BrokerChanged(self.connection is not None))
            self.feed(ViewSeen(finished.view))
            if self._seen is not None:
                self.feed(self._seen)

        self.simulation.coordinator.read(self.incarnation, 0, on_read)

    @property
    def leads(self) -> bool:
        return self.alive and self.core.leads

    def end(self) -> None:
        """Nothing happens here any more."""
        self.alive = False

    def pause(self, seconds: float) -> None:
        self.paused = True
        self.hold()
        self.simulation.coordinator.cut(self.incarnation, seconds)
        self.world.after(seconds, self._resume)

    def block(self, seconds: float) -> None:
        """Its disk hangs: it does nothing, while its connections stay."""
        self.world.log(f"the disk of {self.name} hangs for {seconds:.1f} s")
        self.hold()
        self.world.after(seconds, self.release)

    def _resume(self) -> None:
        self.paused = False
        self.release()

    # -- what comes in ------------------------------------------------------------------------

    def feed(self, event: Event, source: str = "itself") -> None:
        self.do(lambda: self._step(event), source)

    def see(self, seen: ViewSeen) -> None:
        if self.joined:
            self.feed(seen, "coordinator")
        else:
            self._seen = seen

    def on_broker(self, *, up: bool) -> None:
        if self.joined:
            self.feed(BrokerChanged(up), "broker")

    def receive(self, message: Message) -> None:
        if self.joined:
            self.feed(MessageReceived(message), "broker")

    def write(self, token: int, writes: tuple[WriteRequest, ...], epoch: int) -> None:
        """A request arrives; while the process is held up it waits in the socket."""

        def arrive() -> None:
            disk = self.disk
            found = tuple(map(disk.look_up, writes))
            self._step(WritesArrived(token, epoch, writes, found, disk.applied))

        self.do(arrive, "clients")

    def read(self, token: int, epoch: int) -> None:
        self.feed(ReadArrived(token, epoch), "clients")

    def transfer(self, token: int, to: str | None) -> None:
        self.feed(TransferAsked(token, to), "operator")

    def ask_stop(self) -> None:
        """SIGTERM: it ends when the core says so, or when time is up."""
        if self.leaving:
            return
        self.leaving = True
        self.feed(StopAsked(), "operator")
        self.world.after(LEAVE_S, lambda: self.simulation.stopped(self))

    # -- running ------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        if not self.alive:
            return
        if self.world.verbose and not isinstance(event, Tick):
            self.world.log(f"  {self.name} <- {event}")
        unix_ms = int(1_700_000_000_000 + self.world.now * 1000 + self.simulation.skew[self.name])
        self._run(self.core.step(event, now=self.world.now, unix_ms=unix_ms))
        if self.alive:
            self.simulation.judge.check_step(self.disk, self.context, leads=self.core.leads)

    def _tick(self) -> None:
        if not self.alive:
            return
        if not self.is_held and self.joined:
            self._step(Tick())
            if self.world.now - self._marked_at >= MARK_INTERVAL_S:
                self._marked_at = self.world.now
                self.disk.mark_synced(self.context.log)
            self._tend_log()
        self.world.after(self.simulation.tick_s * self.world.rng.uniform(0.9, 1.1), self._tick)

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            if self.world.chance(self.simulation.crash_between_effects):
                self.simulation.crash(self, power=self.world.chance(0.5))
            if not self.alive:
                return
            if isinstance(effect, AppendLines) and self.disk.full:
                self._step(AppendFailed(effect.first))
                self.world.after(0.5, lambda: self.feed(DiskChanged(writable=True), "disk"))
                return
            self._run_one(effect)
        if self._installed is not None:
            base, self._installed = self._installed, None
            self._step(SnapshotInstalled(base.point, base.time))

    def _run_one(self, effect: Effect) -> None:
        judge, world = self.simulation.judge, self.world
        match effect:
            case PersistEpoch():
                self.disk.epoch = effect.epoch
            case AppendLines():
                assert effect.first == self.disk.last + 1
                self.disk.append(effect.lines)
            case SyncLog():
                self._plan_sync()
            case TruncateLog():
                world.log(f"{self.name} truncates from {effect.first}")
                self.disk.truncate(effect.first, self.context.log)
                self.simulation.check_electable()
            case Apply():
                judge.check_commit(self.disk, self.context, effect.index, leads=self.core.leads)
                judge.check_applied(self.disk, self.disk.apply(effect.index))
            case Send():
                self._send(effect.to, effect.message)
            case SendFromLog():
                self._send_from_log(effect)
            case Propose():
                self.simulation.coordinator.propose(
                    self.incarnation,
                    effect.state,
                    effect.expected_version,
                    lambda finished: self.feed(finished, "coordinator"),
                )
            case Probe():
                self.simulation.broker.probe(self, effect)
            case Left():
                world.log(f"{self.name} may stop")
                world.after(world.rng.uniform(0.0, 0.1), lambda: self.simulation.stopped(self))
            case ReadState():
                self.simulation.coordinator.read(
                    self.incarnation,
                    effect.token,
                    lambda finished: self.feed(finished, "coordinator"),
                )
            case FetchSnapshot():
                self._fetch_snapshot(effect.at_least)
            case InstallSnapshot():
                self._install(effect)
            case HandingOver():
                self._bind(hears_all=effect.active)
            case RoleChanged():
                self._bind(hears_all=not effect.leading)
                if effect.leading:
                    judge.leads(self.context.epoch, self.incarnation)
                    judge.confirms(self.disk, self.context.epoch)
            case AnswerWrites():
                self.simulation.clients.on_writes(self, effect)
            case AnswerRead():
                self.simulation.clients.on_read(self, effect)
            case AnswerTransfer():
                self.simulation.on_transfer(self, effect)
            case Report():
                if effect.level is not Level.INFO or effect.channel is Channel.DAEMON:
                    world.log(f"{self.name} {effect.event}: {_brief(effect.fields)}")
            case Halt():
                raise AssertionError(f"{self.name} halted: {effect.reason}")
            case _:
                assert_never(effect)

    def _send(self, to: str | None, message: Message) -> None:
        if isinstance(message, Ack):
            self.simulation.judge.confirms(self.disk, message.epoch)
        elif isinstance(message, Append):
            self.simulation.judge.leads(message.epoch, self.incarnation)
        if self.world.verbose:
            self.world.log(f"  {self.name} -> {to or 'all'}: {message}")
        self.simulation.broker.send(self, to, message)

    def _send_from_log(self, effect: SendFromLog) -> None:
        append = effect.append
        disk = self.disk
        if disk.damaged and not disk.is_good(
            append.previous.index + 1, append.count, self.context.log
        ):
            self.world.log(f"{self.name} finds its log damaged")
            self.simulation.crash(self, power=False)
            return
        lines = self.disk.read(append.previous.index + 1, append.count)
        self._send(effect.to, replace(append, lines=lines))

    def _bind(self, *, hears_all: bool) -> None:
        """The broker is told, and changes the binding a moment later."""
        self._wants_all = hears_all

        def bind() -> None:
            self.hears_all = self._wants_all

        self.world.after(self.world.rng.uniform(0.001, 0.02), bind)

    # -- snapshots ----------------------------------------------------------------------------

    def _tend_log(self) -> None:
        """Build a snapshot, or drop what one covers, when that is on."""
        if self.disk.damaged or not self.world.chance(self.simulation.retention[self.name]):
            return
        self.disk.build_snapshot(self.context.log)
        if self.world.chance(0.5):
            self.disk.drop(self.context.log)

    def _fetch_snapshot(self, at_least: int) -> None:
        """From any other process; it may take long, or nobody may have one."""

        def finish() -> None:
            if not self.alive:
                return
            peers = [node.disk.snapshot for node in self.simulation.nodes.values()]
            found = [s for s in peers if s.base.point.index >= at_least]
            if self.disk.snapshot.base.point.index >= at_least:
                found = [self.disk.snapshot]  # It was fetched before, and not taken.
            elif not found or self.world.chance(0.1):
                self.feed(SnapshotFetched(None, 0), "peers")
                return
            snapshot = self.world.rng.choice(found)
            if snapshot is not self.disk.snapshot:
                self.disk.keep(snapshot, self.context.log)
            self.feed(SnapshotFetched(snapshot.base.point, snapshot.base.epoch), "peers")

        self.world.after(self.world.rng.uniform(0.01, 1.0), finish)

    def _install(self, effect: InstallSnapshot) -> None:
        """It may be interrupted: then the log is the old one, or a front part of it, or new."""
        disk, snapshot = self.disk, self.disk.snapshot
        assert snapshot.base.point == effect.point
        self.world.log(f"{self.name} takes a snapshot up to {effect.point.index}")
        if self.world.chance(self.simulation.torn_installs):
            how = self.world.rng.randrange(3)
            if how == 1:
                disk.truncate(min(disk.last + 1, effect.point.index), self.context.log)
            elif how == 2:
                disk.begin_after(snapshot.base)
            self.simulation.crash(self, power=self.world.chance(0.5))
            return
        disk.install(snapshot)
        self.context.log.reset(snapshot.base.point, snapshot.base.epoch, start=0)
        self._installed = snapshot.base
        self.simulation.judge.check_rows(disk)

    # -- syncing ------------------------------------------------------------------------------

    def _plan_sync(self) -> None:
        """Sync a moment later, what has been appended by then; nothing else happens meanwhile."""
        if self._sync_planned:
            return
        self._sync_planned = True
        delay = self.world.rng.uniform(0, 0.0005)
        self.world.after(delay, lambda: self.do(self._begin_sync, "itself"))

    def _begin_sync(self) -> None:
        self._sync_planned = False
        rng = self.world.rng
        slow = self.name in self.simulation.slow_disks
        seconds = rng.uniform(0.01, 0.08) if slow else rng.uniform(0.0, 0.002)
        if self.world.chance(self.simulation.slow_syncs):
            seconds = rng.uniform(0.05, 0.4)
        elif self.world.chance(self.simulation.hung_syncs):
            seconds = rng.uniform(0.5, 4.0)
            self.world.log(f"the disk of {self.name} hangs for {seconds:.1f} s")
        self.hold()
        self.world.after(seconds, self._end_sync)

    def _end_sync(self) -> None:
        if not self.alive:
            return
        if self.simulation.may_fail_sync(self):
            self.simulation.fail_sync(self)
            return
        self._step(LogSynced(self.disk.sync()))
        self.release()


def _brief(fields: dict[str, object]) -> str:
    """Digests are cut to what people compare."""
    return ", ".join(f"{name} {str(value)[:60]}" for name, value in fields.items())
