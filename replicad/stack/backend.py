"""What every way of running a stack can do. Implementations: native.py, embedded.py, compose.py."""

from __future__ import annotations

import signal
from typing import Protocol

from replicad.stack.record import Record


class StackBackend(Protocol):
    """Runs the processes of one stack. Names are those of the record: n1, gateway, rabbitmq, ..."""

    record: Record

    def prepare(self) -> None:
        """See to what must be there before anything of the stack is.

        Raises:
            StackError: It is not there and cannot be had; the message says what to do.
        """

    def bring_up(self) -> None:
        """Start whatever does not run, and make the cluster if it is new.

        Raises:
            StackError: Something cannot be started.
        """

    def pids(self) -> dict[str, int]:
        """The pid of everything that runs now, by name."""

    def failed(self) -> list[str]:
        """What was started and has ended by itself, by name."""

    def tail(self, name: str) -> str:
        """The last lines of a log."""

    def start(self, name: str) -> None:
        """Start one again. Waits out one that is exiting; leaves a running one alone."""

    def stop(self, name: str, number: signal.Signals) -> None:
        """Send a signal, and wait for the end if it is one that ends a process."""

    def down(self) -> None:
        """End everything that the stack started. Data stay."""
