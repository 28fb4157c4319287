"""How a leader hands over without failing a request (rule 5).

It takes no new writes, waits until all that it took is committed, and invites a follower that
holds its whole log to stand for election. The election is an ordinary one: it moves `state` to a
higher epoch, and may be refused or lost like any other. So nothing here concerns safety.
"""

from __future__ import annotations

from replicad.core.cluster import Disk
from replicad.core.context import Context
from replicad.core.effects import AnswerTransfer, HandingOver, Level, Send
from replicad.core.events import TransferAsked
from replicad.core.followers import Followers
from replicad.core.isr import InSyncSet
from replicad.core.messages import HandOver


class Transfer:
    """One leader's attempt to make another replica lead.

    Attributes:
        begun: Whether there is anything to advance.
    """

    def __init__(self, context: Context, isr: InSyncSet, followers: Followers) -> None:
        """Nobody has asked for it."""
        self._context = context
        self._isr = isr
        self._followers = followers
        self._asked: TransferAsked | None = None
        self._until = float("-inf")
        self._invited_at = float("-inf")
        self._invitations = 0
        self.begun = False

    @property
    def active(self) -> bool:
        """Whether new writes are for the successor."""
        return self._context.now < self._until

    @property
    def possible(self) -> bool:
        """Whether anybody in sync is there to take over."""
        others = (disk for disk in self._isr.confirmed.isr if disk != self._context.me.disk)
        return any(not self._followers.lags(disk) for disk in others)

    def ask(self, asked: TransferAsked) -> None:
        """An operator wants another leader."""
        refusal = self._refusal(asked.to)
        if refusal or asked.to == self._context.me.node:
            leader = None if refusal else asked.to
            self._context.emit(AnswerTransfer(asked.token, leader, refusal))
            return
        self._asked = asked
        self._begin()

    def leave(self) -> None:
        """This process is about to stop: anybody may take over."""
        if not self.active:
            self._begin()

    def advance(self) -> None:
        """Invite a successor once it could take over; give up when time is up. Only if begun."""
        context = self._context
        if not self.active:
            self._give_up()
            return
        retry_at = self._invited_at + context.settings.hand_over_retry_s
        if context.commit < context.log.last or context.now < retry_at:
            return
        successors = self._successors()
        if successors:
            # Another one each time, in case that one does not answer.
            node = successors[self._invitations % len(successors)].node
            self._invitations += 1
            self._invited_at = context.now
            last = context.log.last_point
            invitation = HandOver(context.epoch, context.me.node, last, context.leaving)
            context.report(Level.INFO, "handing over", to=node, last=last.index)
            context.emit(Send(node, invitation))

    def end(self, leader: str | None) -> None:
        """This leader was deposed. To be told again until it is known who leads now."""
        asked = self._asked
        if asked is None:
            return
        if leader is None:
            if not self.active:
                self._answer(None, "this replica leads no more")
        elif leader == self._context.me.node or asked.to not in (None, leader):
            self._answer(None, f"{leader} leads now")
        else:
            self._answer(leader, "")

    def _begin(self) -> None:
        self._until = self._context.now + self._context.settings.hand_over_s
        self._invited_at = float("-inf")
        self.begun = True
        self._context.emit(HandingOver(active=True))
        self.advance()

    def _give_up(self) -> None:
        self.begun = False
        self._context.emit(HandingOver(active=False))
        self._answer(None, "no follower took over in time")

    def _answer(self, successor: str | None, reason: str) -> None:
        if self._asked is not None:
            self._context.emit(AnswerTransfer(self._asked.token, successor, reason))
            self._asked = None

    def _refusal(self, to: str | None) -> str:
        if self._asked is not None or self.active:
            return "another transfer is under way"
        in_sync = {disk.node for disk in self._isr.confirmed.isr}
        if to is not None and to not in in_sync:
            return f"{to} is not in sync"
        if in_sync == {self._context.me.node}:
            return "no other replica is in sync"
        return ""

    def _successors(self) -> list[Disk]:
        """Who holds the whole log, in sync, the freshest first."""
        context = self._context
        wanted = self._asked.to if self._asked is not None else None
        level = [
            disk
            for disk in self._isr.confirmed.isr
            if disk != context.me.disk
            and wanted in (None, disk.node)
            and not self._followers.lags(disk)
            and self._followers.matched(disk) == context.log.last
        ]
        return sorted(level, key=self._followers.heard_at, reverse=True)
