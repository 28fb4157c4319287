"""Samples of stacks become shares of functions."""

from __future__ import annotations

from tests.benchmarks.flames import Share, shares

FOLDED = """\
run (/usr/lib/python3.11/asyncio/runners.py:86);step (replicad/node/driver.py:280) 6
run (/usr/lib/python3.11/asyncio/runners.py:86);step (replicad/node/driver.py:280);loads (<built-in>) 3
run (/usr/lib/python3.11/asyncio/runners.py:86);walk (/x/site-packages/a/b.py:1);walk (/x/site-packages/a/b.py:1) 1
"""  # noqa: E501 - as they come


def test_own_time_and_that_of_what_was_called() -> None:
    assert shares(FOLDED.splitlines()) == [
        Share("step (replicad/node/driver.py)", 0.6, 0.9),
        Share("loads (<built-in>)", 0.3, 0.3),
        Share("walk (a/b.py)", 0.1, 0.1),
        Share("run (asyncio/runners.py)", 0.0, 1.0),
    ]


def test_no_samples() -> None:
    assert shares([]) == []
