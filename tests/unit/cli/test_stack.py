"""Signals that end a command in the foreground."""

from __future__ import annotations

import signal

import pytest

from replicad.cli.stack import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_the_command_even_if_it_was_inherited_as_ignored(
    number: signal.Signals,
) -> None:
    """A shell starts its background jobs with SIGINT ignored."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
