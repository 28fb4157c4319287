"""`replicad node` and `replicad gateway`: one process each, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from replicad.cli.options import (
    Address,
    OriginType,
    cluster_option,
    listen_option,
    zookeeper_option,
)
from replicad.logs import configure_logging


@click.command()
@click.option("--name", envvar="REPLICAD_NAME", required=True, help="The replica's name.")
@cluster_option
@click.option(
    "--data-dir",
    envvar="REPLICAD_DATA_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The replica's own data; made when missing, locked while it runs.",
)
@zookeeper_option
@click.option(
    "--amqp",
    envvar="REPLICAD_AMQP",
    required=True,
    metavar="URL",
    help="RabbitMQ. It holds a password: give it by the environment, not as an argument.",
)
@listen_option
@click.option(
    "--advertise",
    envvar="REPLICAD_ADVERTISE",
    required=True,
    metavar="URL",
    help="The address at which gateways reach it.",
)
@click.option(
    "--keep-log-mib",
    envvar="REPLICAD_KEEP_LOG_MIB",
    type=click.IntRange(min=1),
    help="Drop old segments, once a snapshot covers them, from a log longer than this.",
)
@click.option(
    "--keep-log-days",
    envvar="REPLICAD_KEEP_LOG_DAYS",
    type=click.FloatRange(min=0, min_open=True),
    help="Drop segments, once a snapshot covers them, that are older than this.",
)
def node(
    name: str,
    cluster: str,
    data_dir: Path,
    zookeeper: str,
    amqp: str,
    listen: Address,
    advertise: str,
    keep_log_mib: int | None,
    keep_log_days: float | None,
) -> None:
    """Run one replica until SIGTERM or SIGINT."""
    from replicad.core.retention import Retention
    from replicad.node.daemon import NodeSettings
    from replicad.node.process import run_node

    configure_logging(cluster=cluster, node=name)
    run_node(
        NodeSettings(
            name=name,
            cluster=cluster,
            data_dir=data_dir.absolute(),
            zookeeper=zookeeper,
            amqp=amqp,
            host=listen.host,
            port=listen.port,
            url=advertise,
            retention=Retention(
                None if keep_log_mib is None else keep_log_mib * 1024 * 1024,
                None if keep_log_days is None else keep_log_days * 86_400,
            ),
        )
    )


@click.command()
@cluster_option
@zookeeper_option
@listen_option
@click.option(
    "--in-flight-max",
    envvar="REPLICAD_IN_FLIGHT_MAX",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="Requests answered at one time, feeds and streams included; beyond that: 429.",
)
@click.option(
    "--rate-per-client",
    envvar="REPLICAD_RATE_PER_CLIENT",
    type=click.FloatRange(min=0, min_open=True),
    help="Requests a second from one address, or one IPv6 /64; beyond that: 429. [default: any]",
)
@click.option(
    "--rate-burst",
    envvar="REPLICAD_RATE_BURST",
    type=click.IntRange(min=1),
    help="Requests that one address may make at once after a pause. [default: a second's worth]",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    envvar="REPLICAD_CORS_ORIGINS",
    type=OriginType(),
    multiple=True,
    help="An origin whose pages may use this gateway from a browser, or *; may be repeated. "
    "In the environment: several, separated by spaces.",
)
def gateway(
    cluster: str,
    zookeeper: str,
    listen: Address,
    in_flight_max: int,
    rate_per_client: float | None,
    rate_burst: int | None,
    cors_origins: tuple[str, ...],
) -> None:
    """Run one gateway until SIGTERM or SIGINT."""
    from api_gateway.main import GatewaySettings, run_gateway
    from api_gateway.web.limits import Limits

    if rate_burst is not None and rate_per_client is None:
        raise click.UsageError("--rate-burst needs --rate-per-client")
    configure_logging(cluster=cluster)
    run_gateway(
        GatewaySettings(
            cluster=cluster,
            zookeeper=zookeeper,
            host=listen.host,
            port=listen.port,
            limits=Limits(in_flight_max, rate_per_client, rate_burst),
            cors_origins=frozenset(cors_origins),
        )
    )
