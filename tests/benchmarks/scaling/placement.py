"""Keys over groups, groups over nodes, and what the loss of nodes does: pure, from seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import combinations
from random import Random
from typing import Final

SLOTS: Final = 1024


def slot_of(collection: str, key: str) -> int:
    """The slot of a record: the first 10 bits of the SHA-256 of its collection, a zero, its id."""
    digest = sha256(f"{collection}\0{key}".encode()).digest()
    return int.from_bytes(digest[:2]) >> 6


def even_map(groups: int) -> list[int]:
    """The group of each slot, all with as many as can be."""
    return [slot * groups // SLOTS for slot in range(SLOTS)]


def busiest_share(keys: Iterable[str], groups: int) -> float:
    """What the busiest group gets of these accesses, over an even share."""
    home = even_map(groups)
    counts = Counter(home[slot_of("formularios", key)] for key in keys)
    return max(counts.values()) * groups / counts.total()


def zipf_keys(keys: int, accesses: int, exponent: float, seed: int) -> list[str]:
    """Accesses of which the n-th most wanted key gets a share as 1 / n**exponent."""
    weights = [1 / rank**exponent for rank in range(1, keys + 1)]
    chosen = Random(seed).choices(range(keys), weights, k=accesses)  # noqa: S311 - a simulation
    return [f"{number:08d}" for number in chosen]


Placement = Sequence[tuple[int, ...]]
"""The nodes of each group's replicas; the first one is to lead."""


def scattered(groups: int, nodes: int, replicas: int = 3) -> Placement:
    """All sets of nodes in turn, those that share the fewest pairs first; leaders take turns."""
    chosen: list[tuple[int, ...]] = []
    pairs: Counter[frozenset[int]] = Counter()
    held: Counter[int] = Counter()
    led: Counter[int] = Counter()
    for _ in range(groups):
        best = min(
            combinations(range(nodes), replicas),
            key=lambda some: (
                sum(held[node] for node in some),
                sum(pairs[frozenset(pair)] for pair in combinations(some, 2)),
                some,
            ),
        )
        held.update(best)
        pairs.update(frozenset(pair) for pair in combinations(best, 2))
        first = min(best, key=lambda node: (led[node], node))
        led[first] += 1
        chosen.append((first, *(node for node in best if node != first)))
    return chosen


def in_sets(groups: int, nodes: int, replicas: int = 3) -> Placement:
    """Nodes in fixed sets of as many as there are replicas; each group on one of them."""
    sets = [tuple(range(first, first + replicas)) for first in range(0, nodes, replicas)]
    whole = [some for some in sets if some[-1] < nodes]
    placed = []
    for group in range(groups):
        some = whole[group % len(whole)]
        turn = group // len(whole) % replicas
        placed.append((*some[turn:], *some[:turn]))
    return placed


def after_loss(placement: Placement, lost: int, seed: int) -> Counter[int]:
    """Leaders by node after the loss of one; a random survivor of its group wins each election."""
    rng = Random(seed)  # noqa: S311 - a simulation
    leaders: Counter[int] = Counter()
    for group in placement:
        survivors = [node for node in group if node != lost]
        leaders[group[0] if group[0] != lost else rng.choice(survivors)] += 1
    return leaders


def groups_lost_share(placement: Placement, nodes: int, lost: int = 3) -> float:
    """In which share of all losses of as many nodes at once some group loses every replica."""
    held = {frozenset(group) for group in placement}
    losses = [set(some) for some in combinations(range(nodes), lost)]
    return sum(any(group <= some for group in held) for some in losses) / len(losses)
