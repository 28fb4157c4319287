"""Play many seeds, or one and tell its story: see `--help`, or `make sim`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext

from tests.simulation.planted import MISTAKES, planted
from tests.simulation.plays import judge_many, play_of

PROGRESS_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--seed", type=int, help="play this one alone and print its trace")
    parser.add_argument("--verbose", action="store_true", help="with every message and event")
    parser.add_argument("--mistake", choices=MISTAKES, help="let the core make it")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _tell(arguments.seed, arguments.mistake, verbose=arguments.verbose)
    return _play_many(range(arguments.first, arguments.first + arguments.seeds), arguments.jobs)


def _tell(seed: int, mistake: str | None, *, verbose: bool) -> int:
    """Let a violation end the program, after the story that led to it."""
    with planted(mistake) if mistake else nullcontext():
        play = play_of(seed, verbose=verbose)
        try:
            play.play()
        finally:
            sys.stdout.write("\n".join([*play.world.trace, ""]))
    return 0


def _play_many(seeds: range, jobs: int) -> int:
    began = said = time.monotonic()
    failed = acknowledged = reads = 0
    for played, verdict in enumerate(judge_many(seeds, jobs), start=1):
        acknowledged += verdict.acknowledged
        reads += verdict.reads
        if verdict.failure:
            failed += 1
            story = "\n    ".join(verdict.story)
            sys.stdout.write(
                f"\nseed {verdict.seed}: {verdict.failure}\n    {story}\n"
                f"replay it with: make sim SEED={verdict.seed}\n\n"
            )
        now = time.monotonic()
        if now - said >= PROGRESS_S or played == len(seeds):
            said = now
            sys.stdout.write(
                f"{played} of {len(seeds)} seeds, {played / (now - began):.1f} a second, "
                f"{acknowledged} writes acknowledged, {reads} strong reads, {failed} failures\n"
            )
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
