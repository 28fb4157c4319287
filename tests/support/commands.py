"""The system's own programs, run and believed only when they succeed."""

from __future__ import annotations

import subprocess

_TIMEOUT_S = 60.0


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a program and return what it prints; fail, showing what it said, when it fails."""
    done = subprocess.run(  # noqa: S603 - the tests' own arguments
        command, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout
