"""What lives as long as the process is left alone by the garbage collector."""

from __future__ import annotations

import gc

from replicad.garbage import settle_collector


def test_what_is_there_is_frozen() -> None:
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        settle_collector()
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold() > thresholds
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
