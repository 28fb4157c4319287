"""What a call of the client raises.

ClientError
|-- ProblemError                the gateway's answer says why; `slug` is its stable name
|   |-- InvalidRequestError         400, 406, 413, 415, 422: sending it again does not help
|   |   `-- InvalidRecordError          422: the record does not fit its collection's schema
|   |-- NotFoundError               404
|   |-- ConflictError               409: the record exists, the collection is not empty, ...
|   |-- GoneError                   410: the log no longer reaches so far back
|   |-- PreconditionFailedError     412: the record has another version
|   `-- KeyReusedError              422: the idempotency key came before with another body
|-- NotJsonError                the value is none that JSON has: nothing was sent
|-- UnavailableError            nothing was done by the deadline; try again later
|-- BrokenOffError              a stream ended in the middle: what came is not all
|-- OutcomeUnknownError         a write was sent and may or may not be stored: ask with its key
`-- ProtocolError               the answer is none that a gateway gives
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replicad.errors import ReplicadError


class ClientError(ReplicadError):
    """A call did not do what was asked."""


class ProblemError(ClientError):
    """The gateway refused: RFC 9457 problem details.

    Attributes:
        status: The HTTP status.
        slug: What the problem is called, for ever: `no-such-record`, for instance.
        problem: All members of the answer.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        """Take an answer."""
        self.status = status
        self.problem = problem
        self.slug = str(problem.get("type", "")).removeprefix("urn:replicad:")
        detail = problem.get("detail") or problem.get("title") or f"the answer was {status}"
        super().__init__(str(detail))


class InvalidRequestError(ProblemError):
    """The request breaks a rule; it would be refused again."""


class InvalidRecordError(InvalidRequestError):
    """The record does not fit the schema of its collection.

    Attributes:
        errors: What is wrong where: `{"path", "message"}` each.
    """

    @property
    def errors(self) -> list[dict[str, str]]:
        """See above."""
        return list(self.problem.get("errors", ()))


class NotFoundError(ProblemError):
    """There is no such record, collection or path."""


class ConflictError(ProblemError):
    """What there is does not allow it."""


class GoneError(ProblemError):
    """The log no longer reaches so far back."""


class PreconditionFailedError(ProblemError):
    """The record has another version than the one named, or is there, or is not.

    Attributes:
        etag: Of the record as it is; None if there is none.
    """

    @property
    def etag(self) -> str | None:
        """See above."""
        etag: str | None = self.problem.get("etag")
        return etag


class KeyReusedError(ProblemError):
    """The idempotency key belongs to another request."""


class NotJsonError(ClientError):
    """A value that JSON does not have, such as NaN or a lone surrogate. Nothing was sent."""


class UnavailableError(ClientError):
    """Nobody could serve the call by its deadline. Nothing was changed."""


class BrokenOffError(ClientError):
    """A stream ended before it was complete."""


class OutcomeUnknownError(ClientError):
    """A write was sent, and no answer came by the deadline.

    Attributes:
        key: Its idempotency key. Sending the same write with it again, or asking `outcome(key)`,
            tells what became of it.
    """

    def __init__(self, key: str) -> None:
        """Keep the key."""
        self.key = key
        super().__init__(f"it is not known whether the write with the key {key} is stored")


class ProtocolError(ClientError):
    """What answered is no gateway, or one of another version."""


_BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: InvalidRequestError,
    404: NotFoundError,
    406: InvalidRequestError,
    409: ConflictError,
    410: GoneError,
    412: PreconditionFailedError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
}
_BY_SLUG: Mapping[str, type[ProblemError]] = {
    "invalid-record": InvalidRecordError,
    "idempotency-key-reused": KeyReusedError,
}


def problem_error(status: int, problem: Mapping[str, Any]) -> ProblemError:
    """The error that an answer stands for."""
    slug = str(problem.get("type", "")).removeprefix("urn:replicad:")
    kind = _BY_SLUG.get(slug) or _BY_STATUS.get(status) or ProblemError
    return kind(status, problem)
