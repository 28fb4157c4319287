"""Replay one seed and tell its story: `python -m tests.simulation SEED [MISTAKE]`.

With the name of a mistake of `planted.py`, the core makes it.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from tests.simulation.planted import planted
from tests.simulation.simulation import Simulation


def main() -> None:
    seed, *mistakes = sys.argv[1:]
    simulation = Simulation(int(seed))
    try:
        with planted(mistakes[0]) if mistakes else nullcontext():
            simulation.play()
    finally:
        sys.stdout.write("\n".join([*simulation.world.trace, ""]))


if __name__ == "__main__":
    main()
