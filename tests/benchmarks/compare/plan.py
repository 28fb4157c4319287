"""What is measured: parts, their names in tables, and numbers."""

from __future__ import annotations

from typing import Final

WRITES: Final = "writes"
READS: Final = "reads"
BULK: Final = "bulk"
REPLICAS: Final = "replicas"
STORED: Final = "stored"
FAILOVER: Final = "failover"
IN_TURNS: Final = (WRITES, READS, BULK)
PARTS: Final = (*IN_TURNS, REPLICAS, STORED, FAILOVER)

OURS: Final = "replicad"
ETCD: Final = "etcd"
POSTGRESQL: Final = "postgresql"
POSTGRESQL_RESET: Final = "postgresql-reset"
FLOOR: Final = "floor"
LOWERED_FLOOR: Final = "lowered-floor"
CEILING: Final = "ceiling"

WRITE: Final = "write"
WRITE_CONNECTIONS: Final = (1, 16, 64, 256)
ONLY_CONNECTIONS: Final = {FLOOR: (1,), LOWERED_FLOOR: (1,), POSTGRESQL_RESET: (64,)}
"""Of systems that are there for one comparison only; they do nothing but write."""
GROUPS: Final = (3, 5)
GROUP_CONNECTIONS: Final = (64,)

STRONG: Final = "strong"
LOCAL: Final = "local"
READ_CONNECTIONS: Final = (1, 64)
READ_FROM: Final = 10_000

LOADED: Final = 100_000
NDJSON: Final = "NDJSON"
TRANSACTIONS: Final = "transactions of 128"
INSERT_NEW: Final = "INSERT"
COPY: Final = "COPY"

INSERT: Final = "insert"
UPDATE: Final = "update"
PRESSED: Final = ((INSERT, 1), (UPDATE, 1), (UPDATE, 64))
FEW: Final = 10_000
STEPS: Final = (10_000, 30_000, 100_000, 300_000)
GROWING: Final = "growing"
"""The system's name while it is filled. What is pressed then: see PRESSED_GROWING."""
PRESSED_GROWING: Final = ((INSERT, 1), (UPDATE, 64))
EXPORTED_TIMES: Final = 3
EXPORT: Final = "export: NDJSON"
LIST: Final = "export: ObtenerTodosLosFormularios"


def read(level: str) -> str:
    """How a read is called."""
    return f"{level} read"


def loaded(way: str) -> str:
    """How an import is called."""
    return f"import: {way}"


def connections(count: int) -> str:
    """As one says it."""
    return "1 connection" if count == 1 else f"{count} connections"
