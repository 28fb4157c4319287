"""`python -m replicad.cli`, which is how a stack starts its daemons."""

from __future__ import annotations

from replicad.cli import main

main()
