"""`replicad transfer`: make another replica lead, without a failed request."""

from __future__ import annotations

import asyncio

import click

from replicad.cli.options import cluster_option, zookeeper_option


@click.command()
@click.argument("node", required=False)
@cluster_option
@zookeeper_option
def transfer(node: str | None, cluster: str, zookeeper: str) -> None:
    """Hand the lead to NODE, or to whichever follower is best."""
    leader, epoch = asyncio.run(_transfer(zookeeper, cluster, node))
    click.echo(f"{leader} leads epoch {epoch}")


async def _transfer(zookeeper: str, cluster: str, node: str | None) -> tuple[str, int]:
    from replicad.cli.replicas import replicas_of

    async with replicas_of(zookeeper, cluster) as replicas:
        url, epoch = replicas.leader()
        answer = await replicas.call(
            "POST", f"{url}/internal/transfer", body={"to": node}, epoch=epoch
        )
        return str(answer["leader"]), int(answer["epoch"])
