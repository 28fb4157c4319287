"""A stack for tests, driven as scripts do: through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BACKENDS = os.environ.get("REPLICAD_TEST_BACKENDS", "embedded native").split()
_UP_S = 600  # A compose stack builds its images first.


@dataclass(slots=True)
class Stack:
    """One stack's directory, backend, and what `up` said last.

    Attributes:
        wrapper: The executable by which the stack starts its processes; none when empty.
    """

    directory: Path
    backend: str
    description: dict[str, Any] = field(default_factory=dict)
    wrapper: str = ""

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `replicad stack ...`. Returns only when nobody holds its pipes any more."""
        command = [sys.executable, "-m", "replicad.cli", "stack", *arguments]
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*command, "--dir", str(self.directory)],
            capture_output=True,
            text=True,
            timeout=_UP_S,
            env=os.environ | {"REPLICAD_STACK_WRAPPER": self.wrapper},
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def up(self, *options: str) -> dict[str, Any]:
        """Start it detached; returns what it prints."""
        done = self.run("up", "--backend", self.backend, "--detach", "--json", *options)
        self.description = json.loads(done.stdout.splitlines()[-1])
        return self.description

    def status(self) -> dict[str, Any]:
        """What `status` prints."""
        description: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return description

    def down(self) -> None:
        """End it."""
        self.run("down")

    def pids(self) -> dict[str, int | None]:
        """The pid of every part, by name."""
        now = self.status()
        gateways = now.get("gateways", [now["gateway"]])
        names = ["gateway", *(f"gateway{number}" for number in range(2, len(gateways) + 1))]
        pids = {name: each["pid"] for name, each in zip(names, gateways, strict=True)}
        pids |= {node["name"]: node["pid"] for node in now["nodes"]}
        servers = {name: now[name] for name in ("rabbitmq", "zookeeper")}
        return pids | {name: each["pid"] for name, each in servers.items() if each is not None}
