"""How replicas and gateways have Python look for garbage: what they share."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (10_000, 20, 50)


def settle_collector() -> None:
    """Let the garbage collector leave alone what lives as long as the process; after the start.

    Requests make many objects and hardly any cycles: looking for them less often costs some
    megabytes, and looking through all code and schemas each time would cost a pause.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
