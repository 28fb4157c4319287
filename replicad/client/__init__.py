"""A client for programs: asynchronous (`Client`) and synchronous (`SyncClient`).

See docs/client.md.
"""

from replicad.client.aio import Client, Collection, Reading
from replicad.client.errors import (
    BrokenOffError,
    ClientError,
    ConflictError,
    GoneError,
    InvalidRecordError,
    InvalidRequestError,
    KeyReusedError,
    NotFoundError,
    NotJsonError,
    OutcomeUnknownError,
    PreconditionFailedError,
    ProblemError,
    ProtocolError,
    UnavailableError,
)
from replicad.client.sync import SyncClient, SyncCollection
from replicad.client.types import (
    BatchReceipt,
    Change,
    ImportResult,
    ImportStatus,
    Receipt,
    Record,
    Version,
)

__all__ = [
    "BatchReceipt",
    "BrokenOffError",
    "Change",
    "Client",
    "ClientError",
    "Collection",
    "ConflictError",
    "GoneError",
    "ImportResult",
    "ImportStatus",
    "InvalidRecordError",
    "InvalidRequestError",
    "KeyReusedError",
    "NotFoundError",
    "NotJsonError",
    "OutcomeUnknownError",
    "PreconditionFailedError",
    "ProblemError",
    "ProtocolError",
    "Reading",
    "Receipt",
    "Record",
    "SyncClient",
    "SyncCollection",
    "UnavailableError",
    "Version",
]
