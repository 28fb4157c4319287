"""`replicad cluster`: the steps that only an operator may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import click

from replicad.cli.options import MinInSyncType, cluster_option, zookeeper_option
from replicad.core.bootstrap import Beginning
from replicad.core.cluster import majority


def _replica_names(_context: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        cluster_option,
        click.option(
            "--replicas",
            envvar="REPLICAD_REPLICAS",
            required=True,
            callback=_replica_names,
            metavar="NAME,...",
            help="The names of all replicas.",
        ),
        click.option(
            "--min-in-sync",
            envvar="REPLICAD_MIN_IN_SYNC",
            type=MinInSyncType(),
            help="Never acknowledge with fewer replicas in sync.  [default: a majority]",
        ),
        zookeeper_option,
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0, min_open=True),
            default=60.0,
            show_default=True,
            help="Seconds to wait until every replica is registered.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def cluster() -> None:
    """Begin a cluster, look at it, or continue one that lost its state or its disks."""


@cluster.command()
@_cluster_options
def init(
    cluster: str,
    replicas: tuple[str, ...],
    min_in_sync: int | str | None,
    zookeeper: str,
    timeout_s: float,
) -> None:
    """Begin a new cluster, once every replica is running with an empty data directory."""
    from replicad.coordination.bootstrap import initialise
    from replicad.coordination.zookeeper import ZooKeeperCoordinator

    minimum = _minimum(min_in_sync, replicas)
    coordinator = ZooKeeperCoordinator(zookeeper, cluster)
    if asyncio.run(initialise(coordinator, replicas, minimum, timeout_s)):
        click.echo(f"cluster {cluster} begun: {', '.join(replicas)}, min_in_sync {minimum}")
    else:
        click.echo(f"cluster {cluster} was already there")


@cluster.command()
@_cluster_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(
    cluster: str,
    replicas: tuple[str, ...],
    min_in_sync: int | str | None,
    zookeeper: str,
    timeout_s: float,
    yes: bool,
) -> None:
    """Continue a cluster from its replicas' data, after ZooKeeper lost its own.

    Every replica must be running. Those with the longest log become the in-sync ones.
    """
    from replicad.coordination.bootstrap import adopt as adopt_cluster
    from replicad.coordination.zookeeper import ZooKeeperCoordinator

    def confirm(plan: Beginning) -> None:
        in_sync = ", ".join(disk.node for disk in plan.state.isr)
        click.echo(
            f"cluster {cluster}, id {plan.config.cluster_id}: epoch {plan.state.epoch}, "
            f"in sync {in_sync}; the others will be made equal to them",
            err=True,
        )
        if not yes:
            click.confirm("Write this to ZooKeeper?", abort=True, err=True)

    minimum = _minimum(min_in_sync, replicas)
    coordinator = ZooKeeperCoordinator(zookeeper, cluster)
    asyncio.run(adopt_cluster(coordinator, replicas, minimum, timeout_s, confirm))
    click.echo(f"cluster {cluster} adopted")


def _minimum(wish: int | str | None, replicas: tuple[str, ...]) -> int:
    if wish is None:
        return majority(len(replicas))
    return len(replicas) if isinstance(wish, str) else wish
