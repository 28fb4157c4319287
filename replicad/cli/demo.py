"""`replicad demo`: a whole cluster with the example forms in it."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from replicad.cli.options import directory_option
from replicad.cli.stack import foreground, hold, interruptible
from replicad.errors import ReplicadError, StackError
from replicad.stack import commands
from replicad.stack.description import Description
from replicad.stack.readiness import cluster_view
from replicad.stack.record import BACKENDS, Backend

_EQUAL_S: Final = 15.0


@click.command()
@directory_option
@click.option(
    "--backend", type=click.Choice([*BACKENDS, "auto"]), default="auto", show_default=True
)
@click.option("--once", is_flag=True, help="End after the load and the check.")
def demo(directory: Path, backend: str, once: bool) -> None:
    """Start a cluster, load the example forms, and show that all replicas hold them."""
    known: dict[str, Backend] = {name: name for name in BACKENDS}
    console = Console()
    wishes = commands.Wishes(backend=known.get(backend))
    console.print(f"starting the cluster in {directory} ...")
    with interruptible():
        if commands.is_running(directory):
            show_stack(commands.up(directory, wishes), console)
            console.print("\nIt ran before, and is left running.")
            return
        with foreground(directory):
            show_stack(commands.up(directory, wishes), console)
            if not once:
                console.print("\n[bold]Ctrl-C ends it; its data stay.[/bold]")
                hold(directory)


def show_stack(stack: Description, console: Console) -> None:
    """Fill the cluster and show it."""
    load_examples(stack, console)
    show_cluster(stack, console)
    show_addresses(stack, console)


def load_examples(stack: Description, console: Console) -> None:
    """Store the example forms, with a progress bar."""
    from replicad.cli.loading import example_forms, load

    forms = example_forms()
    url = stack["gateway"]["url"]
    view = cluster_view(url)
    if view is None:
        raise StackError("the gateway does not answer")
    last_index = max(replica["last_index"] or 0 for replica in view["replicas"])
    columns = (TextColumn("loading forms"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(forms))
        loaded = asyncio.run(load(url, forms, last_index, lambda: progress.advance(task)))
    rate = len(forms) / (time.monotonic() - started)
    console.print(
        f"{loaded.stored:,} forms stored, {loaded.already_there:,} were already there "
        f"({rate:,.0f} a second)"
    )


def show_cluster(stack: Description, console: Console) -> None:
    """Show who leads, who is in sync, and that all logs are one.

    Raises:
        ReplicadError: The replicas' logs differ.
    """
    hashes = _equal_hashes(stack)
    view = cluster_view(stack["gateway"]["url"])
    if view is None:
        raise StackError("the gateway does not answer")
    table = Table("replica", "role", "in sync", "last index", "log's SHA-256")
    for replica in view["replicas"]:
        name = replica["name"]
        in_sync = "yes" if name in view["isr"] else "no"
        table.add_row(
            name, replica["role"], in_sync, str(replica["last_index"]), f"{hashes[name][:16]}..."
        )
    console.print(table)
    console.print(
        f"leader {view['leader']}, epoch {view['epoch']}, min_in_sync {view['min_in_sync']}"
    )
    if len(set(hashes.values())) > 1:
        raise ReplicadError("the logs differ")
    console.print(
        f"[green]the {len(hashes)} logs are equal, byte for byte; their SHA-256 is[/green]"
    )
    console.print(hashes[stack["nodes"][0]["name"]], highlight=False, soft_wrap=True)


def _equal_hashes(stack: Description) -> dict[str, str]:
    """The hash of each replica's log, waiting a while for a follower that is a batch behind."""
    deadline = time.monotonic() + _EQUAL_S
    while True:
        hashes = {node["name"]: log_hash(Path(node["data_dir"])) for node in stack["nodes"]}
        if len(set(hashes.values())) == 1 or time.monotonic() > deadline:
            return hashes
        time.sleep(0.1)


def log_hash(data_dir: Path) -> str:
    """SHA-256 of a replica's whole log: `cat DATA_DIR/log/*.jsonl | sha256sum`."""
    total = sha256()
    for segment in sorted((data_dir / "log").glob("*.jsonl")):
        with segment.open("rb") as file:
            while piece := file.read(1 << 20):
                total.update(piece)
    return total.hexdigest()


def show_addresses(stack: Description, console: Console) -> None:
    """Print where to look, and what to try."""
    url = stack["gateway"]["url"]
    console.print(f"\ngateway     {url}", highlight=False, soft_wrap=True)
    if stack["rabbitmq"] is not None:
        amqp = urlsplit(stack["rabbitmq"]["amqp"])
        console.print(
            f"RabbitMQ    {stack['rabbitmq']['management']}  "
            f"user {amqp.username}  password {amqp.password}",
            highlight=False,
            soft_wrap=True,
        )
    for line in (
        "\ntry:",
        f"  curl {url}/v1/cluster",
        f"  curl {url}/API/ObtenerUnFormulario/A000360",
        f"  curl -i {url}/API/IngresarFormulario -H 'Content-Type: application/json' "
        '-d \'{"id":"mi-formulario-1","nombres":"Ada","genero":"Femenino"}\'',
        f"  curl {url}/API/VerificaFormularioDuplicado/mi-formulario-1",
        f"  cat {stack['nodes'][0]['data_dir']}/log/*.jsonl | sha256sum",
    ):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
