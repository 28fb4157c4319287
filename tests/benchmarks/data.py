"""`make bench-data`: imports, queries and exports of many records, and the memory they take."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import click
import orjson
import uvloop

from replicad.cli.stack import interruptible
from replicad.logs import configure_logging
from replicad.stack import commands
from replicad.stack.description import Description
from tests.benchmarks.data_report import (
    Cost,
    DataResults,
    ExportFigures,
    ImportFigures,
    QueryFigures,
)
from tests.benchmarks.machine import command_line, describe_machine
from tests.benchmarks.system import BenchmarkError, ask

_SIZES: Final = (10_000, 100_000, 1_000_000)
_STATES: Final = 50
_COLLECTION: Final = "formularios"
_DEFINITION: Final = {
    "schema": {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "nombres": {"type": "string"},
            "apellidos": {"type": "string"},
            "genero": {"type": "string"},
            "edad": {"type": "integer"},
            "estado": {"type": "string"},
            "puntaje": {"type": "number"},
            "nota": {"type": "string"},
        },
    },
    "indexes": ["edad", "estado"],
}
_QUERIES: Final = {
    "one record by id": "/{id}",
    "a page of 100 by an indexed field": "?estado=e07&limit=100",
    "a page of 100 in the order of an indexed field": "?sort=-edad&limit=100",
    "a page of 100 of an indexed range, sorted": "?edad[gte]=90&sort=edad&limit=100",
    "a page of 100 by a field without index": "?puntaje[lt]=0.05&limit=100",
    "how many have an indexed value": "?estado=e07&limit=1&count=true",
}
_ASKED: Final = 100
_QUERY_S: Final = 5.0
_SAMPLE_S: Final = 0.1
_BLOCK_BYTES: Final = 256 * 1024
_SYNC_S: Final = 120.0
_FORM_BYTES: Final = 300


@click.command()
@click.option("--records", type=click.IntRange(1_000), default=1_000_000, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="build/bench-data",
    show_default=True,
    help="Two files, .json and .md. The cluster's data are beside them while it runs.",
)
def data(records: int, out: Path) -> None:
    """Import, query and export records through one gateway; nothing else should run."""
    out.parent.mkdir(parents=True, exist_ok=True)
    results = DataResults(
        describe_machine(out.parent), command_line("tests.benchmarks.data"), _FORM_BYTES
    )
    sizes = sorted({*(size for size in _SIZES if size < records), records})
    with (
        interruptible(),
        _stack(out.parent) as (stack, directory),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_Bench(stack, directory, results).run(sizes))
    results.save(out)
    click.echo(results.markdown())
    click.echo(f"written to {out.with_suffix('.json')} and {out.with_suffix('.md')}", err=True)


@contextmanager
def _stack(beside: Path) -> Iterator[tuple[Description, Path]]:
    """A native stack of three, and a directory for files; both gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=beside))
    try:
        wishes = commands.Wishes(backend="native", replicas=3, gateways=1)
        yield commands.up(directory / "stack", wishes), directory
    finally:
        commands.down(directory / "stack")
        shutil.rmtree(directory)


def form(number: int) -> dict[str, Any]:
    """A form of _FORM_BYTES, always the same for one number."""
    draw = Random(number)  # noqa: S311 - nothing secret
    fields = {
        "id": f"{number:09d}",
        "nombres": f"Nombre{draw.randrange(10_000)}",
        "apellidos": f"Apellido{draw.randrange(100_000)}",
        "genero": draw.choice(("Femenino", "Masculino", "Otro")),
        "edad": draw.randrange(100),
        "estado": f"e{draw.randrange(_STATES):02d}",
        "puntaje": round(draw.random(), 4),
        "nota": "",
    }
    fields["nota"] = "x" * (_FORM_BYTES - len(orjson.dumps(fields)))
    return fields


def write_forms(path: Path, first: int, end: int) -> None:
    """The forms from `first` until before `end`, a line each."""
    with path.open("wb") as file:
        for number in range(first, end):
            file.write(orjson.dumps(form(number)) + b"\n")


@dataclass(slots=True)
class _Processes:
    """What processes take: the most resident memory, and processor time."""

    pids: dict[str, int]
    most: dict[str, float]
    began: dict[str, float]

    @classmethod
    @asynccontextmanager
    async def watched(cls, pids: dict[str, int]) -> AsyncIterator[_Processes]:
        processes = cls(pids, {}, {})
        processes.begin()
        task = asyncio.create_task(processes._sample())
        try:
            yield processes
        finally:
            task.cancel()

    async def _sample(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_SAMPLE_S)

    def look(self) -> None:
        for name, pid in self.pids.items():
            status = Path(f"/proc/{pid}/status").read_text()
            resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            self.most[name] = max(self.most.get(name, 0.0), resident)

    def begin(self) -> None:
        """Measure from now on."""
        self.most.clear()
        self.began = {name: _cpu_s(pid) for name, pid in self.pids.items()}

    def end(self) -> Cost:
        """What was taken since `begin`."""
        self.look()
        spent = {name: _cpu_s(pid) - self.began[name] for name, pid in self.pids.items()}
        return Cost(dict(self.most), spent)


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class _Bench:
    def __init__(self, stack: Description, directory: Path, results: DataResults) -> None:
        self._url = stack["gateway"]["url"]
        self._path = f"/v1/collections/{_COLLECTION}"
        self._directory = directory
        self._results = results
        self._nodes = {node["name"]: _pid(node["pid"]) for node in stack["nodes"]}
        self._others = {"gateway": _pid(stack["gateway"]["pid"])}
        if stack["rabbitmq"] is not None:
            self._others["RabbitMQ"] = _pid(stack["rabbitmq"]["pid"])

    async def run(self, sizes: list[int]) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(self._url, timeout=timeout) as session:
            async with session.put(self._path, json=_DEFINITION) as answer:
                if answer.status not in (200, 201):
                    raise BenchmarkError(f"definition: {answer.status} {await answer.text()}")
            leader = (await ask(session, f"{self._url}/v1/cluster"))["leader"]
            follower = next(name for name in self._nodes if name != leader)
            pids = {
                **self._others,
                "leader": self._nodes[str(leader)],
                "follower": self._nodes[follower],
                "client": os.getpid(),
            }
            async with _Processes.watched(pids) as processes:
                for first, end in zip([0, *sizes], sizes, strict=False):
                    await self._import(session, processes, first, end)
                    for what, query in _QUERIES.items():
                        await self._query(session, what, query, end)
                for kind in ("application/x-ndjson", "text/csv"):
                    await self._export(session, processes, kind, sizes[-1])

    async def _import(
        self, session: aiohttp.ClientSession, processes: _Processes, first: int, end: int
    ) -> None:
        path = self._directory / "forms.ndjson"
        await asyncio.to_thread(write_forms, path, first, end)
        processes.begin()
        url, headers = f"{self._path}/records:import", {"Content-Type": "application/x-ndjson"}
        began = time.perf_counter()
        last = b""
        async with session.post(url, data=_blocks(path), headers=headers) as answer:
            async for chunk in answer.content.iter_any():
                last = (last + chunk)[-1000:]
        seconds = time.perf_counter() - began
        told = orjson.loads(last.splitlines()[-1])
        if told.get("tally", {}).get("stored") != end - first:
            raise BenchmarkError(f"an import ended with {told}")
        self._results.imports.append(ImportFigures(end - first, end, seconds, processes.end()))
        await self._until_level(session)

    async def _until_level(self, session: aiohttp.ClientSession) -> None:
        """Followers may still apply what they have stored."""
        deadline = time.monotonic() + _SYNC_S
        while time.monotonic() < deadline:
            view: dict[str, Any] = await ask(session, f"{self._url}/v1/cluster")
            if len({(each["last_index"], each["applied_index"]) for each in view["replicas"]}) == 1:
                return
            await asyncio.sleep(_SAMPLE_S)
        raise BenchmarkError("the replicas did not become level")

    async def _query(
        self, session: aiohttp.ClientSession, what: str, query: str, records: int
    ) -> None:
        draw = Random(records)  # noqa: S311 - picks records
        took: list[float] = []
        deadline = time.monotonic() + _QUERY_S
        while len(took) < _ASKED and time.monotonic() < deadline:
            asked = query.replace("{id}", f"{draw.randrange(records):09d}")
            began = time.perf_counter()
            async with session.get(f"{self._path}/records{asked}") as answer:
                body = await answer.read()
            took.append(1000 * (time.perf_counter() - began))
            if answer.status != 200:
                problem = orjson.loads(body)["type"].rpartition(":")[2]
                self._results.queries.append(QueryFigures(what, records, (), problem))
                return
        self._results.queries.append(QueryFigures(what, records, tuple(took)))

    async def _export(
        self, session: aiohttp.ClientSession, processes: _Processes, kind: str, records: int
    ) -> None:
        processes.begin()
        url = f"{self._path}/records:export"
        began, size, lines = time.perf_counter(), 0, 0
        async with session.get(url, headers={"Accept": kind}) as answer:
            async for chunk in answer.content.iter_any():
                size += len(chunk)
                lines += chunk.count(b"\n")
        seconds = time.perf_counter() - began
        if lines != records + (kind == "text/csv"):
            raise BenchmarkError(f"an export as {kind} had {lines} lines")
        self._results.exports.append(ExportFigures(kind, records, size, seconds, processes.end()))


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _pid(pid: int | None) -> int:
    if pid is None:
        raise BenchmarkError("a process of the stack does not run")
    return pid


if __name__ == "__main__":
    configure_logging()
    data()
