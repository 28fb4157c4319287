"""File systems of one replica each: filled up, cut off from power, failing or slow, and damaged."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from replicad.stack.processes import wait_until
from tests.support.commands import run
from tests.support.waiting import eventually

_BYTES: Final = 512 << 20
_UNMOUNT_S: Final = 5.0
_FILLER: Final = "filler"
# EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH: from now on nothing reaches the disk any
# more, neither data nor journal, and every call fails, as when the power is gone.
_SHUTDOWN: Final = 0x8004587D
_NO_FLUSH: Final = 2
_EIO: Final = 5


class Disk:
    """An ext4 file system in a file, mounted where a replica keeps its data.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, image: Path, path: Path) -> None:
        """Take the names; nothing is made yet."""
        self.path = path
        self._image = image
        self._has_power = True

    def make(self) -> None:
        """Make and mount an empty file system."""
        with self._image.open("wb") as file:
            file.truncate(_BYTES)
        run("mkfs.ext4", "-q", "-F", str(self._image))
        self.path.mkdir(parents=True, exist_ok=True)
        self._mount()
        self.path.chmod(0o700)

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.path))

    def remove(self) -> None:
        """Unmount it and delete the file."""
        run("umount", "--lazy", str(self.path))
        self._image.unlink()

    def cut_power(self) -> None:
        """Lose at once whatever was not synced. Nothing works on it until `power_on`."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self._has_power = False
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(descriptor)
        with pytest.raises(OSError, match="Input/output error"):
            (self.path / "probe").write_bytes(b"x")

    def power_on(self) -> None:
        """Mount it again, with what the disk holds. Whoever used it must have ended."""
        # A process that was killed closes its files some time after its first thread is gone.
        assert wait_until(lambda: _unmounts(self.path), _UNMOUNT_S), f"{self.path} is in use"
        self._mount()
        self._has_power = True

    def fill(self, free_bytes: int = 0) -> None:
        """Leave no more room than this."""
        available = self.free_bytes()
        with (self.path / _FILLER).open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, available - free_bytes)
            except OSError:  # What is left is what the file system keeps for its own tables.
                while self.free_bytes() > free_bytes:
                    file.write(bytes(4096))
                    file.flush()
        assert self.free_bytes() <= free_bytes + 4096, self.free_bytes()

    def mend(self) -> None:
        """Give power and room back, whatever was taken."""
        if not self._has_power:
            self.power_on()
        self.free()

    def free(self) -> None:
        """Give the room back."""
        (self.path / _FILLER).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """How much may still be written."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def flip_bit(self, file: Path, offset: int) -> None:
        """Damage one byte of a file, as a disk does: its length and times tell nothing."""
        with file.open("r+b") as damaged:
            times = os.fstat(damaged.fileno())
            damaged.seek(offset)
            (byte,) = damaged.read(1)
            damaged.seek(offset)
            damaged.write(bytes([byte ^ 0x10]))
            damaged.flush()
            os.fsync(damaged.fileno())
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    def segments(self) -> list[Path]:
        """The files of the log, in order."""
        return sorted((self.path / "log").glob("*.jsonl"))


def _unmounts(path: Path) -> bool:
    done = subprocess.run(["/usr/bin/umount", str(path)], capture_output=True, check=False)  # noqa: S603
    return done.returncode == 0


def fail_syncs(control: Path, pid: int) -> None:
    """Let every further fsync and fdatasync of a process fail with EIO, by libfiu."""
    for call in ("fsync", "fdatasync"):
        command = f"enable name=posix/io/sync/{call},failinfo={_EIO}"
        run("fiu-ctrl", "-f", str(control), "-c", command, str(pid))


@asynccontextmanager
async def traced(pid: int, output: Path, *injection: str) -> AsyncIterator[None]:
    """Tamper with a process's system calls, by strace, for as long as the block runs.

    Args:
        pid: The process, of which all threads are traced.
        output: Where strace notes the calls.
        injection: Such as `--trace=fdatasync`, `--inject=fdatasync:delay_enter=30s`.
    """
    messages = output.with_suffix(".err")
    with messages.open("wb") as errors:
        tracer = subprocess.Popen(  # noqa: S603, ASYNC220 - it returns at once
            ["/usr/bin/strace", "-f", "-p", str(pid), "-o", str(output), *injection],
            stderr=errors,
        )
    try:
        await eventually(lambda: "attached" in messages.read_text())
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)  # It lets the process go on.
        await asyncio.to_thread(tracer.wait, 10)


@asynccontextmanager
async def slow_syncs(pid: int, output: Path, delay_ms: int) -> AsyncIterator[None]:
    """Let every fdatasync take longer; returns once one has."""
    inject = f"--inject=fdatasync:delay_enter={delay_ms * 1000}"
    async with traced(pid, output, "--trace=fdatasync", inject):
        await eventually(lambda: "fdatasync(" in output.read_text())
        yield


@asynccontextmanager
async def killed_at_sync(pid: int, output: Path) -> AsyncIterator[None]:
    """Kill a process as it asks for a sync: appended, not synced. Returns once it is dead."""
    inject = "--inject=fdatasync:signal=SIGKILL"
    async with traced(pid, output, "--trace=fdatasync", inject):
        await eventually(lambda: "killed by SIGKILL" in output.read_text())
        yield
