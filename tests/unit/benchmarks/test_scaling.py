"""The arithmetic behind docs/scaling.md, and that its tables are what it computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.benchmarks.scaling.load_probe import Spent, figures_of
from tests.benchmarks.scaling.model import (
    BUSY_MAX,
    Figures,
    Shape,
    coordinator_requests,
    limits,
    message_us,
    node_memory_mib,
    stampede_ms,
)
from tests.benchmarks.scaling.placement import (
    SLOTS,
    after_loss,
    busiest_share,
    even_map,
    groups_lost_share,
    in_sets,
    scattered,
    slot_of,
    zipf_keys,
)
from tests.benchmarks.scaling.tables import filled, with_figures

PAGE = Path(__file__).parents[3] / "docs/scaling.md"
FIGURES = Figures(**{field.name: 0.0 for field in fields(Figures)})
FIGURES = replace(
    FIGURES,
    gateway_us=100.0,
    leader_us=100.0,
    follower_us=50.0,
    rabbitmq_us=50.0,
    batch_writes=10.0,
    entry_bytes=500.0,
    syncs_1=1000.0,
    syncs_3=2000.0,
    syncs_10=3000.0,
    syncs_30=3000.0,
)


# -- the model ----------------------------------------------------------------------------------


def test_one_group_on_two_cores_is_bound_by_them() -> None:
    found = limits(FIGURES, Shape(groups=1, nodes=1, cores=2))
    assert min(found, key=lambda name: found[name]) == "cores"
    assert found["cores"] == pytest.approx(BUSY_MAX * 2e6 / 350)


def test_with_many_cores_the_leader_is_what_binds() -> None:
    found = limits(FIGURES, Shape(groups=1, nodes=3, cores=16))
    assert min(found, key=lambda name: found[name]) == "leaders"
    assert found["leaders"] == pytest.approx(BUSY_MAX * 10_000)


def test_more_groups_lift_the_leaders_limit_and_no_other() -> None:
    one, four = (limits(FIGURES, Shape(groups, nodes=1, cores=64)) for groups in (1, 4))
    assert four["leaders"] == 4 * one["leaders"]
    assert four["cores"] == one["cores"]
    assert four["RabbitMQ"] == one["RabbitMQ"]


def test_idle_groups_take_cores_away() -> None:
    busy = replace(FIGURES, idle_group_ms=20.0, idle_servers_ms=5.0)
    shape = Shape(groups=40, nodes=1, cores=2)
    lost = limits(FIGURES, shape)["cores"] - limits(busy, shape)["cores"]
    assert lost == pytest.approx(40 * 25_000 / 350)
    assert limits(busy, Shape(groups=100, nodes=1, cores=2))["cores"] == 0


def test_each_batch_is_a_sync_on_each_of_three_disks() -> None:
    shared = limits(FIGURES, Shape(groups=1, nodes=1, cores=2))["disk"]
    apart = limits(FIGURES, Shape(groups=1, nodes=3, cores=2))["disk"]
    assert shared == pytest.approx(2000 * 10 / 3)
    assert apart == pytest.approx(1000 * 10)


@pytest.mark.parametrize(
    ("processes", "expected"), [(0.5, 1000), (1, 1000), (2, 1500), (10, 3000), (90, 3000)]
)
def test_syncs_between_what_was_measured(processes: float, expected: float) -> None:
    assert FIGURES.syncs(processes) == expected


def test_a_message_costs_by_its_bytes() -> None:
    figures = replace(FIGURES, rabbitmq_message_us=60.0, rabbitmq_kib_us=2.0, entry_bytes=512.0)
    assert message_us(figures, 1) == 60
    assert message_us(figures, 20) == 60 + 9 * 2


def test_each_line_leaves_the_broker_twice() -> None:
    assert limits(FIGURES, Shape(30, 9, 64))["network"] == pytest.approx(BUSY_MAX * 125e6 / 1000)


def test_an_idle_group_pings_and_notes() -> None:
    assert coordinator_requests(groups=2, gateways=1) == 2 * (4 * 1.5 + 1)


def test_memory_grows_with_entries_and_replicas() -> None:
    figures = replace(FIGURES, replica_mib=60.0, cache_mib=64.0, gateway_mib=50.0)
    assert node_memory_mib(figures, Shape(3, 3, 2), entries=0) == 3 * 124 + 50
    grown = node_memory_mib(figures, Shape(1, 3, 2), entries=2**20) - 124 - 50
    assert grown == pytest.approx(40)


def test_more_gateways_read_more_after_a_loss() -> None:
    figures = replace(FIGURES, zookeeper_requests=100.0, zookeeper_request_us=50.0)
    assert stampede_ms(figures, Shape(10, 3, 2), gateways=1) == pytest.approx(10 * 5)
    assert stampede_ms(figures, Shape(10, 3, 2), gateways=5) == pytest.approx(10 * 10)


# -- placement ----------------------------------------------------------------------------------


def test_the_slot_of_a_record_never_changes() -> None:
    assert [slot_of("formularios", key) for key in ("a", "b", "00000001")] == [690, 85, 821]
    assert slot_of("ab", "c") != slot_of("a", "bc")


@pytest.mark.parametrize("groups", [1, 3, 10, 30])
def test_groups_have_equally_many_slots(groups: int) -> None:
    counts = Counter(even_map(groups))
    assert len(counts) == groups
    assert counts.total() == SLOTS
    assert max(counts.values()) - min(counts.values()) <= 1


def test_different_ids_spread_evenly_and_a_hot_one_does_not() -> None:
    assert busiest_share((f"{number:08d}" for number in range(20_000)), 10) < 1.1
    assert busiest_share(["x"] * 50 + [f"{number}" for number in range(50)], 10) > 5
    hot = busiest_share(zipf_keys(10_000, 10_000, 1.2, seed=1), 10)
    assert hot > busiest_share(zipf_keys(10_000, 10_000, 0.8, seed=1), 10)


@pytest.mark.parametrize("place", [scattered, in_sets])
@pytest.mark.parametrize(("groups", "nodes"), [(1, 3), (10, 6), (30, 9)])
def test_replicas_and_leaders_are_balanced(place: object, groups: int, nodes: int) -> None:
    assert callable(place)
    placement = place(groups, nodes)
    assert all(len(set(group)) == 3 for group in placement)
    held = Counter(node for group in placement for node in group)
    led = Counter(group[0] for group in placement)
    shape = Shape(groups, nodes, 2)
    assert max(held.values()) <= shape.replicas_a_node + 3
    assert max(led.values()) <= shape.leaders_a_node + 1


def test_leaders_stay_or_go_to_a_survivor_of_their_group() -> None:
    placement = scattered(10, 5)
    leaders = after_loss(placement, 0, seed=1)
    assert leaders.total() == 10
    assert leaders[0] == 0


def test_scattered_groups_are_lost_by_more_triples_of_nodes() -> None:
    assert groups_lost_share(in_sets(30, 9), 9) == pytest.approx(3 / 84)
    assert groups_lost_share(scattered(30, 9), 9) == pytest.approx(12 / 84)
    assert groups_lost_share(scattered(30, 6), 6) == 1


# -- the page -----------------------------------------------------------------------------------


def test_the_tables_are_those_that_the_first_one_gives() -> None:
    """If not: python -m tests.benchmarks.scaling tables."""
    page = PAGE.read_text()
    assert filled(page) == page
    assert page.count("<!-- computed: ") == 6


def test_figures_are_written_into_their_rows() -> None:
    page = with_figures(PAGE.read_text(), {"syncs_1": 12345.6, "rabbitmq_kib_us": 0.87654})
    figures = Figures.read(page)
    assert (figures.syncs_1, figures.rabbitmq_kib_us) == (12346, 0.8765)
    with pytest.raises(KeyError, match="nothing"):
        with_figures(page, {"nothing": 1.0})


def test_a_figure_that_is_missing_is_told() -> None:
    with pytest.raises(KeyError, match="leader_us"):
        Figures.read(PAGE.read_text().replace("`leader_us`", "`other_us`"))


# -- the load -----------------------------------------------------------------------------------


def test_costs_are_shared_among_the_writes() -> None:
    before = Spent(10, 1, 100, 1, 1, 1, 1)
    after = Spent(1010, 51, 500_100, 1.2, 1.1, 1.2, 1.05)
    spent = after.since(before)
    thin = Spent(1000, 100, 500_000, 0.4, 0.2, 0.4, 0.1)
    found = figures_of([spent], [spent], [thin])
    assert found == pytest.approx(
        {
            "gateway_us": 200,
            "leader_us": 100,
            "follower_us": 100,
            "rabbitmq_us": 50,
            "batch_writes": 20,
            "entry_bytes": 500,
            "two_groups_full": 1,
            "two_groups_thin": 2,
        }
    )
