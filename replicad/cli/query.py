"""`replicad query`: records that meet conditions."""

from __future__ import annotations

import click

from replicad.cli.connection import collection_option, connect, gateway_options, json_option
from replicad.cli.printing import print_json, print_records


@click.command()
@click.argument("conditions", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--sort", metavar="FIELD,...", help="-FIELD for descending.")
@click.option("--fields", metavar="FIELD,...", help="Only these.")
@click.option("--text", "text", metavar="WORDS", help="Full text, where the collection has it.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--all", "everything", is_flag=True, help="All pages, whatever --limit says.")
@click.option("--count", is_flag=True, help="Only how many there are.")
@click.option(
    "--consistency",
    type=click.Choice(["strong", "local"]),
    default="strong",
    show_default=True,
    help="How fresh.",
)
@collection_option
@gateway_options
@json_option
def query(
    conditions: tuple[str, ...],
    sort: str | None,
    fields: str | None,
    text: str | None,
    limit: int,
    everything: bool,
    count: bool,
    consistency: str,
    collection: str,
    urls: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show the records that meet all conditions.

    \b
    genero=Femenino              equal
    'edad[gte]=18'               also gt, lte, lt, ne
    'apellidos[prefix]=Gar'      begins with
    'estado[in]=NY,CA'           one of several
    'partido[exists]=false'      there, or not
    """  # noqa: D301 - click takes the backspace for "leave these lines as they are".
    from replicad.client import Reading

    params = dict(_split(condition) for condition in conditions)
    options = {"sort": sort, "fields": fields, "q": text, "limit": str(1 if count else limit)}
    params |= {name: value for name, value in options.items() if value is not None}
    reading = Reading(consistency)
    with connect(urls, timeout_s) as client:
        records = client.collection(collection)
        if count:
            click.echo(records.page({**params, "count": "true"}, reading=reading)["count"])
            return
        if everything:
            items = records.query(params, reading=reading)
            more = False
        else:
            page = records.page(params, reading=reading)
            items, more = iter(page["items"]), page["next"] is not None
        if as_json:
            for item in items:
                print_json(item)
        else:
            print_records(list(items))
    if more and not as_json:
        click.echo("there are more: --all, or a larger --limit")


def _split(condition: str) -> tuple[str, str]:
    name, equals, value = condition.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{condition!r} is not FIELD=VALUE")
    return name, value
