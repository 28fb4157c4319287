"""The servers that a native stack needs, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import click

from replicad.errors import StackError
from replicad.stack import rabbitmq, zookeeper


def missing() -> tuple[str, ...]:
    """The Debian packages that are still to be installed."""
    wanted = {"rabbitmq-server": rabbitmq.is_installed(), "zookeeper": zookeeper.is_installed()}
    return tuple(package for package, is_there in wanted.items() if not is_there)


def can_install() -> bool:
    """Whether packages can be installed here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def ensure() -> None:
    """Install what is missing.

    Debian may start the packages' own services on their default ports; a stack uses its own
    processes and free ports, and leaves those alone.

    Raises:
        StackError: Something is missing and cannot be installed; the message says what to do.
    """
    packages = missing()
    if not packages:
        return
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if not can_install():
        raise StackError(
            f"a native stack needs {' and '.join(packages)}; as root, on Debian: {command} "
            "(or try: replicad stack up --backend embedded)"
        )
    install(packages)
    still = missing()
    if still:
        raise StackError(f"installed, yet not found: {' '.join(still)}")


def install(packages: Sequence[str]) -> None:
    """Install Debian packages; where `can_install` is true.

    Raises:
        StackError: apt-get failed; the message shows what it said.
    """
    click.echo(f"installing {' and '.join(packages)} ...", err=True)
    _apt_get("update", "-qq")
    _apt_get("install", "-y", "-qq", "--no-install-recommends", *packages)


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - fixed arguments
        ["/usr/bin/apt-get", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout[-2000:]}")
