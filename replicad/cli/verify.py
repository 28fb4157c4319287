"""`replicad verify` and `replicad repair`: do all replicas hold the same, and is it still right?"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click
import orjson

from replicad.cli.options import cluster_option, zookeeper_option

if TYPE_CHECKING:
    from replicad.cli.verification import Report

_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.command()
@click.option("--deep", is_flag=True, help="Let every replica read every byte again first.")
@_json_option
@cluster_option
@zookeeper_option
def verify(deep: bool, as_json: bool, cluster: str, zookeeper: str) -> None:
    """Compare all replicas: their logs, and the records that they made of them.

    Exit code 0: all configured replicas are there and hold the same. 1: not so.
    """
    report = asyncio.run(_verify(zookeeper, cluster, deep=deep))
    if as_json:
        click.echo(orjson.dumps(report.describe()))
    else:
        _show(report)
    sys.exit(0 if report.good else 1)


@click.command()
@click.argument("node")
@cluster_option
@zookeeper_option
def repair(node: str, cluster: str, zookeeper: str) -> None:
    """Let NODE read all that it has stored again, and make anew only what is wrong.

    Records are put back from its log. Where the log is damaged the replica repairs it from the
    others; wait until it is in sync again.
    """
    from replicad.cli.replicas import replicas_of
    from replicad.cli.verification import repair as repair_node

    async def run() -> list[str]:
        async with replicas_of(zookeeper, cluster) as replicas:
            return await repair_node(replicas, node)

    for line in asyncio.run(run()):
        click.echo(line)


async def _verify(zookeeper: str, cluster: str, *, deep: bool) -> Report:
    from replicad.cli.replicas import replicas_of
    from replicad.cli.verification import verify as verify_all

    async with replicas_of(zookeeper, cluster) as replicas:
        return await verify_all(replicas, deep=deep)


def _show(report: Report) -> None:
    click.echo(f"compared at entry {report.index}")
    for name, line in report.lines():
        click.echo(f"{name}: {line}")
    for problem in report.problems:
        click.echo(problem)
    click.echo("all replicas hold the same" if report.good else "NOT the same on all replicas")
