"""`replicad cluster recover` and `replicad cluster status`: when all in-sync disks are lost."""

from __future__ import annotations

import asyncio
import getpass
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import orjson

from replicad.cli.options import cluster_option, zookeeper_option
from replicad.core.cluster import ClusterState, Disk, View
from replicad.errors import ConfigurationError

if TYPE_CHECKING:
    from replicad.cli.replicas import Replicas
    from replicad.coordination.port import Coordinator
    from replicad.core.bootstrap import Recovery


@click.command()
@cluster_option
@zookeeper_option
@click.option("--lead", metavar="NODE", required=True, help="The replica that is to lead.")
@click.option("--accept-loss", is_flag=True, help="Say that you know what is lost.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def recover(cluster: str, zookeeper: str, lead: str, accept_loss: bool, yes: bool) -> None:
    """Let NODE lead although it is not in sync, because no in-sync disk will come back.

    Acknowledged records that only the lost disks held are gone. Refused while an in-sync replica
    is running, or one whose log ends higher. What is done is kept in ZooKeeper for ever.
    """

    def confirm(plan: Recovery) -> None:
        click.echo(
            f"{lead} alone will be in sync, with its log up to entry {plan.last_index}, in epoch "
            f"{plan.state.epoch}.\nGiven up, with every record that only they hold: "
            + ", ".join(f"{disk.node} (disk {disk.disk_id})" for disk in plan.given_up),
            err=True,
        )
        if not yes:
            click.confirm("Write this to ZooKeeper?", abort=True, err=True)

    if not accept_loss:
        raise click.UsageError("--accept-loss is needed: acknowledged records may be lost")
    asyncio.run(_recover(zookeeper, cluster, lead, confirm))
    click.echo(f"cluster {cluster}: {lead} will lead")


@click.command()
@cluster_option
@zookeeper_option
def status(cluster: str, zookeeper: str) -> None:
    """Show what ZooKeeper holds: configuration, state, living replicas, past recoveries."""
    view, notes = asyncio.run(_read(zookeeper, cluster))
    if view.config is None or view.state is None:
        raise ConfigurationError(f"ZooKeeper knows no cluster {cluster!r}")
    config, state = view.config, view.state
    click.echo(f"cluster id {config.cluster_id}  min_in_sync {config.min_in_sync}")
    click.echo(f"epoch {state.epoch}  leader {state.leader or '-'}  version {view.version}")
    in_sync = set(state.isr)
    for name in config.replicas:
        member = next((m for m in view.members if m.node == name), None)
        disk_id = member.disk_id if member else "-"
        where = member.url if member else "not registered"
        synced = "in sync" if member and Disk(name, disk_id) in in_sync else "not in sync"
        click.echo(f"{name:10} {where:30} disk {disk_id:32} {synced}")
    for disk in state.isr:
        if not any((m.node, m.disk_id) == disk for m in view.members):
            click.echo(f"in sync, but not registered: {disk.node} (disk {disk.disk_id})")
    for note in notes:
        click.echo(f"recovery: {note.decode(errors='replace')}")


async def _recover(
    zookeeper: str, cluster: str, lead: str, confirm: Callable[[Recovery], None]
) -> None:
    from replicad.cli.replicas import replicas_of
    from replicad.coordination.zookeeper import ZooKeeperCoordinator

    async with replicas_of(zookeeper, cluster) as replicas:
        view = await _with_present_positions(replicas)
    coordinator = ZooKeeperCoordinator(zookeeper, cluster)
    await coordinator.start(lambda _: None)
    try:
        await recover_cluster(coordinator, view, lead, confirm)
    finally:
        await coordinator.stop()


async def recover_cluster(
    coordinator: Coordinator, view: View, lead: str, confirm: Callable[[Recovery], None]
) -> None:
    """Decide, ask, and write.

    Args:
        coordinator: Started.
        view: What it holds; each member's log position as it is now.
        lead: The replica that is to lead.
        confirm: Called with what is about to be written; raises to prevent it.

    Raises:
        ConfigurationError: It is refused; see `plan_recovery`. Nothing was written.
        CoordinationError: ZooKeeper does not answer; `replicad cluster status` tells.
    """
    from replicad.core.bootstrap import plan_recovery

    plan = plan_recovery(view, lead, nonce=secrets.token_hex(8))
    confirm(plan)
    await coordinator.read()  # So that the transaction checks the configuration, too.
    if not await coordinator.recover(plan.state, view.version, _note(plan, view.state, lead)):
        raise ConfigurationError("the state has changed meanwhile: nothing was written; look again")


def _note(plan: Recovery, before: ClusterState | None, lead: str) -> bytes:
    """For whoever asks later: who did what, when, and what was given up."""
    return orjson.dumps(
        {
            "time": datetime.now(UTC),
            "by": f"{getpass.getuser()}@{socket.gethostname()}",
            "lead": lead,
            "epoch": plan.state.epoch,
            "last_index": plan.last_index,
            "isr_before": [list(disk) for disk in plan.given_up],
            "epoch_before": before.epoch if before else None,
        }
    )


async def _with_present_positions(replicas: Replicas) -> View:
    """The view with each member's log as it ends now: what was registered may be long ago.

    Raises:
        ReplicaUnavailableError: A registered replica does not answer, or has not recovered its log.
    """
    members = []
    for member in replicas.view.members:
        status = await replicas.call("GET", f"{member.url}/internal/status")
        if "last_epoch" not in status:
            raise ConfigurationError(f"{member.node} is not ready: {status.get('reason')}")
        members.append(
            replace(
                member,
                last_index=status["last_index"],
                last_epoch=status["last_epoch"],
                epoch=status["epoch"],
            )
        )
    return replace(replicas.view, members=tuple(members))


async def _read(zookeeper: str, cluster: str) -> tuple[View, list[bytes]]:
    from replicad.coordination.zookeeper import ZooKeeperCoordinator

    coordinator = ZooKeeperCoordinator(zookeeper, cluster)
    await coordinator.start(lambda _: None)
    try:
        return await coordinator.read(), await coordinator.recoveries()
    finally:
        await coordinator.stop()
