"""Who should leave and who should join the ISR (rules 2 and 3). Decides; `isr.py` keeps account."""

from __future__ import annotations

from replicad.core.cluster import Disk
from replicad.core.context import Context
from replicad.core.effects import Level
from replicad.core.events import ProbeFinished
from replicad.core.followers import Followers, Progress
from replicad.core.isr import InSyncSet
from replicad.core.messages import Ack
from replicad.core.probing import Probes


class Membership:
    """The leader's care for its followers."""

    def __init__(self, context: Context, isr: InSyncSet, followers: Followers) -> None:
        """Watches `followers` and proposes changes to `isr`."""
        self._context = context
        self._isr = isr
        self._followers = followers
        self._began_at = context.now
        self._missing: list[str] = []
        self._probes = Probes(context)

    def tend(self, first: int) -> None:
        """Propose one change if one is due. `first` is the epoch's first index."""
        self._isr.drop_joiners(self._followers.lags)
        for disk in self._isr.others:
            self._probes.tend(disk.node, self._followers.heard_at(disk))
        if self._context.now - self._began_at > self._context.settings.lag_max_s:
            self._report_missing()
        lagging = self._lagging()
        if not self._isr.may_propose:
            return
        remaining = len(self._isr.confirmed.isr) - len(lagging)
        # A shrink that leaves too few, or that leaves out only some of the dead, helps nobody.
        if lagging and remaining >= self._context.config.min_in_sync:
            self._isr.propose_shrink(lagging)
            return
        for disk in self._outsiders():
            if self._followers.matched(disk) >= max(self._context.commit, first):
                self._isr.propose_admission(disk)
                return
            self._isr.join(disk)
        if self._isr.in_doubt:
            self._isr.propose_settling()

    def on_probe(self, finished: ProbeFinished) -> None:
        """A follower that is not connected any more need not be waited for until it lags."""
        for disk, progress in self._followers.progress.items():
            if disk.node != finished.node or progress.gone:
                continue
            if self._probes.proves_death(finished, progress.heard_at):
                self._followers.note_gone(disk)
                self._context.report(Level.WARNING, "follower gone", node=disk.node)

    def report_match(self, ack: Ack, progress: Progress) -> None:
        """Tell sync.log that a follower matched: when it is back, and else now and then."""
        now = self._context.now
        back = ack.node in self._missing and not self._followers.lags(Disk(ack.node, ack.disk_id))
        due = now - progress.reported_at >= self._context.settings.report_interval_s
        if not back and not (due and progress.matched > progress.reported):
            return
        if back:
            self._missing.remove(ack.node)
        progress.reported_at = now
        progress.reported = progress.matched
        digest = ack.matched.digest.hex()
        self._context.report_sync(
            Level.INFO,
            "follower's digest matched",
            node=ack.node,
            index=ack.matched.index,
            digest=digest,
            leader_digest=digest,
        )

    def _lagging(self) -> tuple[Disk, ...]:
        me = self._context.me.disk
        return tuple(d for d in self._isr.confirmed.isr if d != me and self._followers.lags(d))

    def _outsiders(self) -> tuple[Disk, ...]:
        """Followers outside the ISR that keep up: the disk of each node that was heard last."""
        latest: dict[str, Disk] = {}
        for disk in sorted(self._followers.progress, key=self._followers.heard_at):
            latest[disk.node] = disk
        return tuple(
            disk
            for disk in latest.values()
            if disk not in self._isr.confirmed.isr
            and disk.node in self._context.config.replicas
            and not self._followers.lags(disk)
        )

    def _report_missing(self) -> None:
        """Tell sync.log once of each configured replica that has been behind for too long."""
        present = {d.node for d in self._followers.progress if not self._followers.lags(d)}
        present.add(self._context.me.node)
        for node in self._context.config.replicas:
            if node in present or node in self._missing:
                continue
            self._missing.append(node)
            matched = self._followers.highest_match(node)
            known = matched >= self._context.log.first
            self._context.report_sync(
                Level.ERROR,
                "follower missing",
                node=node,
                index=matched or None,
                digest=self._context.log.digest_at(matched).hex() if known else None,
                leader_index=self._context.log.last,
                leader_digest=self._context.log.last_point.digest.hex(),
            )
