"""replicad's native stack with its default settings, through one gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import aiohttp
import orjson

from replicad.stack import commands, readiness
from replicad.stack.description import Description
from tests.benchmarks.compare.forms import Template, form, forms, request
from tests.benchmarks.compare.peer import stream
from tests.benchmarks.compare.plan import LOCAL, NDJSON, OURS, STRONG
from tests.benchmarks.system import BenchmarkError

COLLECTION: Final = "/v1/collections/formularios"
_JSON: Final = "application/json"


class Replicad:
    """Implements Store."""

    name = OURS
    loads: tuple[str, ...] = (NDJSON,)

    def __init__(self, replicas: int = 3) -> None:
        """Nothing runs yet."""
        self.url = ""
        self._replicas = replicas
        self._directory = Path()

    def up(self, directory: Path) -> None:
        """`replicad stack up`."""
        self._directory = directory
        wishes = commands.Wishes(backend="native", replicas=self._replicas)
        self.url = commands.up(directory, wishes)["gateway"]["url"]

    def down(self) -> None:
        """`replicad stack down`."""
        commands.down(self._directory)

    def pids(self) -> dict[str, int]:
        """The leader by that name, the followers by theirs."""
        stack: Description = commands.status(self._directory)
        view = readiness.cluster_view(self.url)
        if view is None or stack["rabbitmq"] is None or stack["zookeeper"] is None:
            raise BenchmarkError("the stack does not run")
        found = {
            "gateway": stack["gateway"]["pid"],
            "RabbitMQ": stack["rabbitmq"]["pid"],
            "ZooKeeper": stack["zookeeper"]["pid"],
        }
        followers = 0
        for node in stack["nodes"]:
            followers += node["name"] != view["leader"]
            role = "leader" if node["name"] == view["leader"] else f"follower {followers}"
            found[role] = node["pid"]
        return {name: pid for name, pid in found.items() if pid is not None}

    def writes(self) -> list[Template]:
        """POST /API/IngresarFormulario: an insert."""
        path = (b"/API/IngresarFormulario",)
        return [request("POST", self._host, path, kind, _JSON) for kind in forms()]

    def updates(self) -> list[Template]:
        """PUT of a record."""
        path = (f"{COLLECTION}/records/".encode(), b"")
        return [request("PUT", self._host, path, kind, _JSON) for kind in forms()]

    def reads(self) -> dict[str, list[Template]]:
        """GET of a record: linearizable, or from any replica."""
        head = f"{COLLECTION}/records/".encode()
        tails = {STRONG: b"", LOCAL: b"?consistency=local"}
        return {what: [request("GET", self._host, (head, tail))] for what, tail in tails.items()}

    async def load(
        self, session: aiohttp.ClientSession, way: str, tag: str, numbers: range
    ) -> float:
        """One import."""
        lines = (form(tag, number) + b"\n" for number in numbers)
        url = f"{self.url}{COLLECTION}/records:import"
        seconds, last = await stream(session, url, lines)
        told = orjson.loads(last)
        if told.get("tally", {}).get("stored") != len(numbers):
            raise BenchmarkError(f"an import ended with {told}")
        return seconds

    @property
    def _host(self) -> str:
        return self.url.removeprefix("http://")
