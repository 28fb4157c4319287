"""`replicad disk`: what an operator decides about a damaged data directory."""

from __future__ import annotations

from pathlib import Path

import click

from replicad.errors import ConfigurationError


@click.group()
def disk() -> None:
    """Decide about a damaged data directory."""


@disk.command()
@click.argument("data_dir", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--name", envvar="REPLICAD_NAME", required=True, help="The replica's name.")
@click.option(
    "--cluster-id",
    help="Only if replica.json is lost; `replicad cluster status` shows it.",
)
@click.option("--yes", is_flag=True, help="Do it; without this it only says what it would do.")
def quarantine(data_dir: Path, name: str, cluster_id: str | None, yes: bool) -> None:
    """Give up what is damaged in DATA_DIR, whose replica must not be running.

    For the only in-sync replica, which does not repair itself, since nobody else may hold what it
    held. What is good up to the damage stays; the rest is set aside, and the disk gets a new id. It
    is in sync no more: somebody has to lead, see `replicad cluster recover`.
    """
    from replicad.node.offline import Survey, give_up_damage

    def confirm(survey: Survey) -> None:
        click.echo(
            f"{data_dir}: {survey.reason}\n"
            f"kept: the log up to entry {survey.last_good}\n"
            f"set aside: all that follows, in {survey.quarantine}\n"
            f"disk {survey.disk_id or '(id lost)'} gets a new id and is in sync no more"
        )
        if not yes:
            raise ConfigurationError("nothing was changed; add --yes to do this")

    click.echo(f"done: disk {give_up_damage(data_dir.absolute(), name, cluster_id, confirm)}")
