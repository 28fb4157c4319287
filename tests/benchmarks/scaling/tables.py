"""The tables of docs/scaling.md that are computed from its first one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from tests.benchmarks.figures import table
from tests.benchmarks.scaling.model import (
    Figures,
    Shape,
    coordinator_requests,
    limits,
    message_us,
    move_s,
    node_memory_mib,
    stampede_ms,
)
from tests.benchmarks.scaling.placement import (
    after_loss,
    busiest_share,
    groups_lost_share,
    in_sets,
    scattered,
    zipf_keys,
)

GROUPS: Final = (1, 3, 10, 30)
NODES: Final = (1, 3, 5, 9)
CORES: Final = (2, 16)
_GATEWAYS: Final = 3
_ENTRIES: Final = 1_000_000
_SEEDS: Final = 200
_PLACE: Final = re.compile(r"(<!-- computed: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with each computed table made anew."""
    figures = Figures.read(page)
    return _PLACE.sub(lambda at: f"{at[1]}{_TABLES[at[2]](figures)}\n{at[3]}", page)


def with_figures(page: str, found: Mapping[str, float]) -> str:
    """The page with these figures in its first table.

    Raises:
        KeyError: It has no row for one of them.
    """
    for name, value in found.items():
        row = re.compile(rf"^(\| [^|]*\| `{name}` \| )[\d.,]+", re.MULTILINE)
        page, count = row.subn(
            rf"\g<1>{value:,.4g}" if value < 1000 else rf"\g<1>{value:,.0f}", page
        )
        if count != 1:
            raise KeyError(name)
    return page


def one_group(figures: Figures) -> str:
    """What follows from the figures for a single group."""
    batch = figures.batch_writes
    loaded = figures.rabbitmq_us * batch
    requests = coordinator_requests(30, _GATEWAYS)
    rows = [
        ("processor time of a write, all processes", f"{figures.write_us:,.0f} µs"),
        ("a leader's one core is full at", f"{figures.leader_writes:,.0f} writes/s"),
        ("cores that the group then keeps busy", f"{figures.group_cores:.1f}"),
        ("batches a second then", f"{figures.leader_writes / batch:,.0f}"),
        (f"RabbitMQ, a batch of {batch:.0f} writes and all that goes with it", f"{loaded:,.0f} µs"),
        ("of that, the message with the writes", f"{message_us(figures, batch):,.0f} µs"),
        ("an idle group, and the servers for it, of a core", f"{figures.idle_us / 1e4:.1f} %"),
        ("idle groups that fill two cores", f"{2e6 / figures.idle_us:,.0f}"),
        ("30 idle groups, three gateways: requests a second to ZooKeeper", f"{requests:,.0f}"),
        ("that is, of a core", f"{requests * figures.zookeeper_request_us / 1e4:.1f} %"),
    ]
    return table(("one group", ""), rows)


def capacity(figures: Figures) -> str:
    """Writes a second over all groups, and what ends them."""
    rows = []
    for nodes in NODES:
        for groups in GROUPS:
            cells = []
            for cores in CORES:
                found = limits(figures, Shape(groups, nodes, cores))
                first, second = sorted(found, key=lambda name: found[name])[:2]
                cells.append(f"{found[first]:,.0f}: {first}")
                cells.append(f"{found[second]:,.0f}: {second}")
            rows.append((str(nodes), str(groups), *cells))
    head = ["nodes", "groups"]
    for cores in CORES:
        head += [f"{cores} cores a node", "then"]
    return table(head, rows)


def loss(figures: Figures) -> str:
    """What a node holds, and what its loss does."""
    rows = []
    for nodes in NODES[1:]:
        for groups in GROUPS:
            shape = Shape(groups, nodes, 2)
            placement = scattered(groups, nodes)
            left = nodes - 1
            worst = [max(after_loss(placement, 0, seed).values()) for seed in range(_SEEDS)]
            rows.append(
                (
                    str(nodes),
                    str(groups),
                    str(shape.replicas_a_node),
                    str(shape.leaders_a_node),
                    f"{node_memory_mib(figures, shape, _ENTRIES) / 1024:.1f}",
                    f"{stampede_ms(figures, shape, _GATEWAYS):,.0f}",
                    f"{sum(worst) / len(worst):.1f} (even: {groups / left:.1f})",
                )
            )
    head = (
        "nodes",
        "groups",
        "replicas a node",
        "leaders a node",
        "GiB a node",
        "ZooKeeper after a loss, ms of processor time",
        "leaders of the busiest node then",
    )
    return table(head, rows)


def placements(_: Figures) -> str:
    """Two ways to place groups, when three nodes are lost at once."""
    rows = [
        (
            str(nodes),
            str(groups),
            f"{100 * groups_lost_share(scattered(groups, nodes), nodes):.0f} %",
            f"{100 * groups_lost_share(in_sets(groups, nodes), nodes):.0f} %",
        )
        for nodes in (6, 9)
        for groups in (3, 10, 30)
    ]
    head = ("nodes", "groups", "scattered: some group loses all", "in fixed sets of three")
    return table(head, rows)


def skew(_: Figures) -> str:
    """The busiest group's share of accesses, over an even one."""
    even = [f"{number:08d}" for number in range(100_000)]
    kinds = {
        "100,000 ids in a row, each once": even,
        "Zipf 0.8 over 100,000 ids": zipf_keys(100_000, 100_000, 0.8, seed=1),
        "Zipf 0.99 over 100,000 ids (YCSB's)": zipf_keys(100_000, 100_000, 0.99, seed=1),
        "Zipf 1.2 over 100,000 ids": zipf_keys(100_000, 100_000, 1.2, seed=1),
    }
    groups = [number for number in GROUPS if number > 1]
    rows = [
        (what, *(f"{busiest_share(keys, each):.2f}" for each in groups))
        for what, keys in kinds.items()
    ]
    return table(("accesses", *(f"{each} groups" for each in groups)), rows)


def moving(figures: Figures) -> str:
    """From as many groups to twice as many: half of all records move."""
    rows = []
    for records in (1_000_000, 10_000_000):
        for groups in (1, 3, 10):
            each = records // 2 // groups
            rows.append(
                (
                    f"{records:,}",
                    f"{groups} to {2 * groups}",
                    f"{each:,}",
                    f"{move_s(figures, each):,.0f}",
                )
            )
    return table(("records", "groups", "each new group gets", "in seconds, at best"), rows)


_TABLES: Final[dict[str, Callable[[Figures], str]]] = {
    "one_group": one_group,
    "capacity": capacity,
    "loss": loss,
    "placements": placements,
    "skew": skew,
    "moving": moving,
}
