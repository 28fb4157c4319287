"""Links cut by the packet filter. Each replica runs under a group of its own, by which the filter
knows whose connections they are, although all of them share one loopback.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final

from tests.support.commands import run
from tests.support.waiting import eventually

_COUNTED: Final = re.compile(r"\[(\d+):\d+\] -A OUTPUT .*--comment (\S+) ")

# A packet that carries nothing: 20 bytes of IP and up to 60 of TCP.
_BARE_BYTES_MAX: Final = 80


class Way(Enum):
    """Which packets of a link are dropped."""

    BOTH = "both"
    THERE = "there"
    """From the replica to the server."""
    BACK = "back"
    """From the server to the replica."""


class Firewall:
    """Rules in this thread's network namespace; none but ours may be there.

    Attributes:
        groups: The group under which each replica runs.
    """

    def __init__(self, groups: Mapping[str, int]) -> None:
        """Take the groups; set no rule yet."""
        self.groups = dict(groups)
        self._cuts = 0

    def mark(self) -> None:
        """Mark from now on every connection that a replica opens with its group."""
        for group in self.groups.values():
            _iptables(
                *("-t", "mangle", "-A", "OUTPUT", "-m", "owner", "--gid-owner", str(group)),
                *("-m", "conntrack", "--ctstate", "NEW"),
                *("-j", "CONNMARK", "--set-mark", str(group)),
            )

    @asynccontextmanager
    async def cut(self, replica: str, port: int, way: Way = Way.BOTH) -> AsyncIterator[None]:
        """Drop what a replica and a server's port exchange, for as long as the block runs.

        Returns once packets have been dropped: the fault has taken effect.
        """
        group = str(self.groups[replica])
        # By the connection's mark, not by its owner: what a process had sent when it was killed is
        # sent again by the kernel, and then belongs to nobody.
        mark = ("-m", "connmark", "--mark", group)
        there = ("-p", "tcp", "--dport", str(port), *mark)
        back = ("-p", "tcp", "--sport", str(port), *mark)
        rules = {Way.BOTH: (there, back), Way.THERE: (there,), Way.BACK: (back,)}[way]
        async with self._dropping(rules):
            yield

    @asynccontextmanager
    async def mute(self, replica: str, port: int) -> AsyncIterator[None]:
        """Drop what a replica answers on its own port to whoever connects to it.

        Its kernel still takes their connections and all that they send.
        """
        group = str(self.groups[replica])
        answers = ("-m", "length", "--length", f"{_BARE_BYTES_MAX + 1}:")
        rule = ("-p", "tcp", "--sport", str(port), "-m", "owner", "--gid-owner", group, *answers)
        async with self._dropping((rule,)):
            yield

    @property
    def dropped(self) -> int:
        """How many packets the last cut has dropped."""
        counted = _COUNTED.findall(run("iptables-save", "--counters", "-t", "filter"))
        named = f"cut-{self._cuts}"
        return sum(int(packets) for packets, comment in counted if comment == named)

    @asynccontextmanager
    async def _dropping(self, rules: tuple[tuple[str, ...], ...]) -> AsyncIterator[None]:
        self._cuts += 1
        drop = ("-m", "comment", "--comment", f"cut-{self._cuts}", "-j", "DROP")
        for rule in rules:
            await asyncio.to_thread(_iptables, "-A", "OUTPUT", *rule, *drop)
        try:
            await eventually(lambda: self.dropped > 0)
            yield
        finally:
            for rule in rules:
                await asyncio.to_thread(_iptables, "-D", "OUTPUT", *rule, *drop)

    def heal(self) -> None:
        """Drop nothing any more."""
        _iptables("-F", "OUTPUT")


def _iptables(*arguments: str) -> None:
    run("iptables", "--wait", *arguments)
