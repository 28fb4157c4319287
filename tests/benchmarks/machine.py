"""On what something was measured."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import replicad

_PACKAGES: Final = (
    "rabbitmq-server",
    "erlang-base",
    "zookeeper",
    "etcd-server",
    "postgresql-15",
    "wrk",
)
_LIBRARIES: Final = ("aiohttp", "uvloop", "orjson", "aio-pika", "aiormq", "asyncpg")


def describe_machine(directory: Path) -> dict[str, str]:
    """Machine, versions and date; `directory` is where the data were."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{memory / 2**30:.0f} GiB",
        "busy before": f"{os.getloadavg()[0]:.1f} processes, mean of the last minute",
        "file system": _run("findmnt", "-no", "FSTYPE", "-T", str(directory)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}, {Path(sys.executable).resolve()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "commit": _commit(),
    }
    return found | {package: _version(package) for package in _PACKAGES}


def command_line(module: str) -> str:
    """The command by which `module` was run, to be run again from the checkout's top."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def _commit() -> str:
    top = str(Path(replicad.__file__).parents[1])
    commit = _run("git", "-C", top, "rev-parse", "--short", "HEAD")
    changed = _run("git", "-C", top, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} and changes" if changed else commit


def _version(package: str) -> str:
    return _run("dpkg-query", "--show", "--showformat=${Version}", package)


def _run(*command: str) -> str:
    """What a command prints; empty where there is no such program, or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return done.stdout.strip() if done.returncode == 0 else ""
