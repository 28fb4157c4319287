"""PostgreSQL with two synchronous standbys, behind a small HTTP service.

Root may not run it: it then runs as the user `postgres`, whom Debian's package makes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import orjson

from replicad.errors import StackError
from replicad.stack import packages
from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.processes import ProcessId, end, start_detached, wait_until
from tests.benchmarks.compare.forms import Template, form, forms, request
from tests.benchmarks.compare.peer import stream
from tests.benchmarks.compare.plan import COPY, INSERT_NEW
from tests.benchmarks.compare.services import end_service, start_service
from tests.benchmarks.system import BenchmarkError

_STANDBYS: Final = ("s1", "s2")
_USER: Final = "postgres"
_START_S: Final = 30.0
_END_S: Final = 20.0
_POLL_S: Final = 0.05
# The rest is as it comes. `on` waits until the named standbys have synced a commit to disk.
CONFIG: Final = """\
listen_addresses = '{address}'
unix_socket_directories = ''
synchronous_commit = on
synchronous_standby_names = '{count} ({standbys})'
"""


def _programs() -> Path:
    """Where initdb, postgres and pg_basebackup are; installed when they are missing."""
    for attempt in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if found:
            return found[-1].parent
        if attempt == 0 and packages.can_install():
            packages.install(("postgresql",))
    raise StackError("PostgreSQL is missing; as root, on Debian: apt-get install postgresql")


class PostgreSQL:
    """Implements Loader."""

    loads: tuple[str, ...] = (INSERT_NEW, COPY)

    def __init__(self, name: str) -> None:
        """Choose ports; nothing runs yet. `name` is POSTGRESQL or POSTGRESQL_RESET."""
        self.name = name
        names = ("service", "primary", *_STANDBYS)
        self._ports: dict[str, int] = {}
        for name in names:
            self._ports[name] = free_port(self._ports.values())
        self.url = f"http://{LOOPBACK}:{self._ports['service']}"
        self._programs = _programs()
        # setpriv becomes the program, so that its pid is the server's.
        ids = (f"--reuid={_USER}", f"--regid={_USER}", "--init-groups")
        self._as_user = [_which("setpriv"), *ids, "--"] if os.geteuid() == 0 else []
        self._directory = Path()
        self._processes: dict[str, ProcessId] = {}

    def up(self, directory: Path) -> None:
        """Make a primary, copy it twice, start all and the service."""
        self._directory = directory
        if self._as_user:
            directory.chmod(0o755)
            shutil.chown(directory, _USER)
        primary = str(directory / "primary")
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        self._run("initdb", f"--username={_USER}", *options, "-D", primary)
        with Path(primary, "postgresql.conf").open("a") as config:
            standbys, count = ", ".join(_STANDBYS), len(_STANDBYS)
            config.write(CONFIG.format(address=LOOPBACK, count=count, standbys=standbys))
        self._start("primary")
        for name in _STANDBYS:
            source = ("-h", LOOPBACK, "-p", str(self._ports["primary"]), "-U", _USER)
            options = ["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"]
            self._run("pg_basebackup", *source, *options, "-D", str(directory / name))
            self._start(name)
        asyncio.run(self._await_standbys())
        log = directory / "service.out"
        port = self._ports["service"]
        arguments = [str(port), self._dsn(), self.name]
        self._processes["service"] = start_service("postgresql_service", arguments, port, log)

    def down(self) -> None:
        """End the service, then the servers, the primary first: it waits for the standbys."""
        if "service" in self._processes:
            end_service(self._processes.pop("service"))
        for name in tuple(self._processes):
            end(self._processes.pop(name), signal.SIGINT, _END_S)

    def pids(self) -> dict[str, int]:
        """What runs, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def writes(self) -> list[Template]:
        """What the service takes."""
        host, path = self.url.removeprefix("http://"), (b"/forms",)
        return [request("POST", host, path, kind, "application/json") for kind in forms()]

    async def load(
        self, session: aiohttp.ClientSession, way: str, tag: str, numbers: range
    ) -> float:
        """One import: each form is stored or known for itself, or its batch fails with it."""
        call = "import" if way == INSERT_NEW else "copy"
        lines = (form(tag, number) + b"\n" for number in numbers)
        seconds, last = await stream(session, f"{self.url}/forms:{call}", lines)
        if orjson.loads(last) != {"tally": len(numbers)}:
            raise BenchmarkError(f"an import ended with {last.decode()}")
        return seconds

    def _start(self, name: str) -> None:
        port = self._ports[name]
        # By its cluster_name a standby is known to the primary.
        options = ("-c", f"port={port}", "-c", f"cluster_name={name}")
        command = [*self._as_user, str(self._programs / "postgres"), "-D"]
        log = self._directory / f"{name}.out"
        self._processes[name] = start_detached(
            [*command, str(self._directory / name), *options], self._environment(), log
        )
        asked = [str(self._programs / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port)]
        if not wait_until(lambda: subprocess.call(asked) == 0, _START_S):  # noqa: S603
            raise BenchmarkError(f"PostgreSQL's {name} does not answer: {log.read_text()[-2000:]}")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._programs / program), *arguments]
        done = subprocess.run(  # noqa: S603 - our own arguments
            command,
            env=self._environment(),
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{program}: {done.stderr[-2000:]}")

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return own | {"HOME": str(self._directory)}

    def _dsn(self) -> str:
        return f"postgresql://{_USER}@{LOOPBACK}:{self._ports['primary']}/postgres"

    async def _await_standbys(self) -> None:
        """Wait until the primary waits for both standbys.

        Raises:
            BenchmarkError: They do not come.
        """
        query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            connection = await asyncpg.connect(self._dsn())
            attached = await connection.fetchval(query)
            await connection.close()
            if attached == len(_STANDBYS):
                return
            await asyncio.sleep(_POLL_S)
        raise BenchmarkError(f"the standbys are not synchronous; see {self._directory}")


def _which(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise StackError(f"{program} is missing")
    return found
