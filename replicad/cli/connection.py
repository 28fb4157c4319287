"""What the commands that talk to gateways share: options, the client, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from replicad.errors import ReplicadError

if TYPE_CHECKING:
    from replicad.client import SyncClient

FAILED: Final = 1
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
UNKNOWN: Final = 6

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")
collection_option = click.option(
    "--collection",
    "-c",
    envvar="REPLICAD_COLLECTION",
    default="formularios",
    show_default=True,
    metavar="NAME",
    help="Whose records.",
)
key_option = click.option(
    "--idempotency-key",
    "key",
    metavar="KEY",
    help="Makes the command safe to run again: it happens once.",
)


def gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--url` and `--timeout`, from which `connect` makes a client."""
    options = (
        click.option(
            "--url",
            "urls",
            envvar="REPLICAD_URL",
            required=True,
            metavar="URL[,URL...]",
            help="Gateways that stand in for each other, such as http://127.0.0.1:8080.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0, min_open=True),
            default=10.0,
            show_default=True,
            help="Seconds for each request, all attempts together.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def connect(urls: str, timeout_s: float) -> SyncClient:
    """A client of the gateways; to be used in a `with` block.

    Raises:
        click.UsageError: There is no URL, or something is none.
    """
    from replicad.client import SyncClient

    several = [url.strip() for url in urls.split(",") if url.strip()]
    if not several or not all(url.startswith(("http://", "https://")) for url in several):
        raise click.UsageError(f"--url: {urls!r} is not http://HOST:PORT[,http://HOST:PORT...]")
    return SyncClient(several, timeout_s=timeout_s)


def exit_code_of(error: ReplicadError) -> int:
    """What a command that fails with this error exits with: see docs/cli.md."""
    from replicad import client

    match error:
        case client.NotFoundError() | client.GoneError():
            return NOT_FOUND
        case client.ConflictError() | client.PreconditionFailedError() | client.KeyReusedError():
            return CONFLICT
        case client.UnavailableError():
            return UNAVAILABLE
        case client.OutcomeUnknownError():
            return UNKNOWN
    return FAILED
