"""Whether a recorded history is linearizable: a Wing-Gong-Lowe search, one for each record.

Linearizability is local (Herlihy and Wing, 1990): a history is linearizable if and only if its
part about each record is. So records are judged one by one, which keeps the searches small.

The search takes operations in an order that respects real time: only one that was invoked before
the first return among those left may come next, and only if the record's state allows it. When
nothing may come next it takes the last one back (Wing and Gong, 1993). What it remembers is the
set of operations taken together with the state they led to: another order to the same pair leads
nowhere new (Lowe, "Testing for linearizability", 2017).

A record here is absent or holds a value, and only an insert changes it, once. So a search has few
choices to make, and takes about as many steps as there are operations.
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ABSENT = None
"""The state of a record that nobody has stored yet; otherwise the state is its value."""


class Kind(enum.Enum):
    """What an operation asks for."""

    INSERT = "insert"
    READ = "read"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one record, as its client saw it.

    Attributes:
        client: Who did it; for people only.
        key: The record.
        kind: What was asked for.
        invoked: When it was sent, in seconds of one clock for the whole history.
        returned: When its outcome was known; None if it never was. Such an insert may take effect
            at any later time, or never. A read whose outcome is not known says nothing: leave it
            out.
        value: Of an insert, what it stores; of a read, what it found, None for nothing.
        succeeded: Of an insert, whether it was stored; False says that the record was there. Of a
            verification, whether the record was there. Without meaning for a read.
    """

    client: int
    key: str
    kind: Kind
    invoked: float
    returned: float | None
    value: str | None = None
    succeeded: bool = True


@dataclass(frozen=True, slots=True)
class Violation:
    """A record whose history no order explains.

    Attributes:
        key: The record.
        longest: The most operations that could be put into an order.
        stuck: Completed operations, none of which could follow, by the time of their return.
        history: All operations on the record, by the time of their invocation.
    """

    key: str
    longest: tuple[Operation, ...]
    stuck: tuple[Operation, ...]
    history: tuple[Operation, ...]

    def __str__(self) -> str:
        """A few lines for a person: what was explained last, and what could not follow."""
        shown = [f"record {self.key}: {len(self.longest)} of {len(self.history)} explained, up to"]
        shown += [f"    {_describe(operation)}" for operation in self.longest[-5:]]
        shown.append("  after which none of these is possible:")
        shown += [f"    {_describe(operation)}" for operation in self.stuck[:5]]
        return "\n".join(shown)


def violations(history: Iterable[Operation]) -> list[Violation]:
    """Every record whose part of the history is not linearizable, by name; none is good."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    found = (_judge(key, operations) for key, operations in sorted(by_key.items()))
    return [violation for violation in found if violation is not None]


def next_state(state: str | None, operation: Operation) -> tuple[bool, str | None]:
    """Whether an operation may find a record in this state, and the state after it."""
    match operation.kind:
        case Kind.INSERT if operation.returned is None or operation.succeeded:
            # Of one without outcome only the effect matters; without any it need not happen.
            return state is ABSENT, operation.value
        case Kind.INSERT:
            return state is not ABSENT, state
        case Kind.VERIFY:
            return operation.succeeded == (state is not ABSENT), state
        case Kind.READ:
            return operation.value == state, state


@dataclass(slots=True, eq=False)
class _Edge:
    """One end of an operation, in a list that is ordered by time and can be unlinked."""

    number: int
    is_invocation: bool
    before: _Edge | None = None
    after: _Edge | None = None
    returns: _Edge | None = None


@dataclass(slots=True)
class _Search:
    """One record's search.

    Attributes:
        operations: The record's, by the time of their invocation.
        head: Stands before the first edge.
    """

    operations: Sequence[Operation]
    head: _Edge = field(default_factory=lambda: _Edge(-1, is_invocation=False))
    taken: list[tuple[_Edge, str | None]] = field(default_factory=list)
    longest: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        ends: list[tuple[float, bool, _Edge]] = []
        for number, operation in enumerate(self.operations):
            returns = _Edge(number, is_invocation=False)
            invokes = _Edge(number, is_invocation=True, returns=returns)
            returned = math.inf if operation.returned is None else operation.returned
            # At the same instant invocations come first: those operations overlap.
            ends += [(operation.invoked, False, invokes), (returned, True, returns)]
        last = self.head
        for _, _, edge in sorted(ends, key=lambda end: end[:2]):
            last.after, edge.before = edge, last
            last = edge

    def run(self) -> bool:
        """Whether some order explains every completed operation."""
        state: str | None = ABSENT
        done = 0  # A bit for each operation taken.
        seen: set[tuple[int, str | None]] = set()
        edge = self.head.after
        while edge is not None:
            if edge.is_invocation:
                possible, after = next_state(state, self.operations[edge.number])
                reached = (done | 1 << edge.number, after)
                if possible and reached not in seen:
                    seen.add(reached)
                    self.taken.append((edge, state))
                    done, state = reached
                    _unlink(edge)
                    edge = self.head.after
                else:
                    edge = edge.after
                continue
            if self.operations[edge.number].returned is None:
                return True  # Only such are left: they may take effect later, or never.
            if len(self.taken) > len(self.longest):
                self.longest = [taken.number for taken, _ in self.taken]
            # Back to the last choice. To take what changes nothing is none: whatever order
            # explains the rest with it later explains it with it here.
            changed = False
            while not changed:
                if not self.taken:
                    return False
                undone, before = self.taken.pop()
                changed, state = before != state, before
                done &= ~(1 << undone.number)
                _link(undone)
            edge = undone.after
        return True


def _judge(key: str, operations: list[Operation]) -> Violation | None:
    history = sorted(operations, key=lambda operation: operation.invoked)
    search = _Search(history)
    if search.run():
        return None
    longest = tuple(history[number] for number in search.longest)
    left = [o for n, o in enumerate(history) if n not in set(search.longest)]
    stuck = sorted((o for o in left if o.returned is not None), key=lambda o: o.returned or 0.0)
    return Violation(key, longest, tuple(stuck), tuple(history))


def _unlink(invokes: _Edge) -> None:
    for edge in (invokes, invokes.returns):
        if edge is not None and edge.before is not None:
            edge.before.after = edge.after
            if edge.after is not None:
                edge.after.before = edge.before


def _link(invokes: _Edge) -> None:
    """Undo the last `_unlink`: the edges still know between which they stood."""
    for edge in (invokes.returns, invokes):
        if edge is not None and edge.before is not None:
            edge.before.after = edge
            if edge.after is not None:
                edge.after.before = edge


def _describe(operation: Operation) -> str:
    until = "?" if operation.returned is None else f"{operation.returned:.6f}"
    what = operation.kind.value
    match operation.kind:
        case Kind.INSERT if operation.returned is None:
            what += f" {operation.value}: outcome unknown"
        case Kind.INSERT:
            what += f" {operation.value}: {'stored' if operation.succeeded else 'was there'}"
        case Kind.VERIFY:
            what += f": {'there' if operation.succeeded else 'absent'}"
        case Kind.READ:
            what += f": {operation.value or 'absent'}"
    return f"{operation.invoked:.6f} to {until}, client {operation.client}: {what}"
