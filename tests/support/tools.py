"""The programs and privileges that tests need: told by name when one is missing.

`python -m tests.support.tools` installs what is missing, from Debian's packages, if run as root.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from replicad.errors import StackError
from replicad.stack import packages

FIU_PRELOAD: Final = (
    Path("/usr/lib/fiu/fiu_run_preload.so"),
    Path("/usr/lib/fiu/fiu_posix_preload.so"),
)
_FAKETIME: Final = "libfaketime.so.1"
# A program, or a library by its absolute path or pattern, and the package that has it.
_FOR_FAULTS: Final = {
    "ip": "iproute2",
    "iptables": "iptables",
    "setpriv": "util-linux",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "strace": "strace",
    str(FIU_PRELOAD[0]): "libfiu0",
    "fiu-ctrl": "fiu-utils",
    "faketime": "faketime",
}
_FOR_PAGES: Final = {"chromium": "chromium"}


def missing(needed: Mapping[str, str]) -> list[str]:
    """The Debian packages that are still to be installed."""
    return [package for tool, package in needed.items() if not _is_there(tool)]


def require() -> None:
    """Fail, naming what is missing, unless every fault can be injected here."""
    assert os.geteuid() == 0, (
        "fault tests make network namespaces and mount file systems: they must be run as root"
    )
    lacking = missing(_FOR_FAULTS)
    assert not lacking, f"fault tests need Debian's packages {' '.join(lacking)}: make fault-tools"


def require_browser() -> None:
    """Fail, naming what is missing, unless there is a browser."""
    lacking = missing(_FOR_PAGES)
    assert not lacking, f"tests of pages need Debian's {' '.join(lacking)}: make fault-tools"


def faketime_library() -> Path:
    """The library that shifts a process's clock."""
    return next(Path("/usr/lib").glob(f"*/faketime/{_FAKETIME}"))


def _is_there(tool: str) -> bool:
    return Path(tool).exists() if tool.startswith("/") else shutil.which(tool) is not None


def main() -> None:
    """Install what is missing; end with 1 and name it where that cannot be done."""
    lacking = missing(_FOR_FAULTS | _FOR_PAGES)
    if not lacking:
        return
    if not packages.can_install():
        sys.exit(f"tests need {' '.join(lacking)}: install them as root")
    try:
        packages.install(lacking)
    except StackError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
