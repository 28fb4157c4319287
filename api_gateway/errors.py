"""Every way in which the gateway does not do what was asked.

ReplicadError
|-- RequestError                the client gets this status and this Spanish message
|   |-- InvalidRequestError         400: a header, an id or a body that breaks a rule
|   |-- FormNotFoundError           404
|   |-- BodyTooSlowError            408
|   |-- FormExistsError             409
|   |-- BodyTooLargeError           413
|   |-- UnsupportedEncodingError    415: a Content-Encoding other than gzip
|   |-- KeyReusedError              422: the Idempotency-Key came before with another form
|   |-- UnavailableError            503: nothing was stored; try again after Retry-After
|   |-- OutcomeUnknownError         504: it may or may not have been stored
|   `-- StorageFullError            507: nothing was stored
`-- LeaderError                 one attempt at a replica failed; the gateway tries again
    |-- NothingDoneError            the leader has certainly not acted on it
    |   `-- BehindError                 the replica has not applied as much as was asked for
    `-- NoAnswerError               the leader may or may not have acted on it
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from replicad.errors import ReplicadError

RETRY_AFTER: Final = {"Retry-After": "1"}
"""One second: about what an election or a shrink of the ISR takes."""


class RequestError(ReplicadError):
    """The answer to a request that could not be served.

    Attributes:
        status: The HTTP status.
        message: What the client reads, in Spanish.
        headers: To be sent along.
        closes: Whether the connection must end, since the rest of the body was not read.
    """

    status: ClassVar[int]
    message: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    closes: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        """Take `message`, or the class's own when there is one."""
        self.message = message if message is not None else self.message
        super().__init__(self.message)


class InvalidRequestError(RequestError):
    """A header, an id or a body breaks a rule; the message says which."""

    status = 400


class FormNotFoundError(RequestError):
    """No form has this id."""

    status = 404
    message = "El registro No existe en el sistema."


class BodyTooSlowError(RequestError):
    """The body did not arrive in time."""

    status = 408
    message = "El cuerpo de la solicitud tardó demasiado en llegar."
    closes = True


class FormExistsError(RequestError):
    """Another request stored a form under this id."""

    status = 409
    message = "El registro ya existe en el sistema."


class BodyTooLargeError(RequestError):
    """The body, or what it decompresses to, is beyond the limit."""

    status = 413
    message = "El cuerpo de la solicitud supera el límite de 1 MiB."
    closes = True


class UnsupportedEncodingError(RequestError):
    """The body is encoded in a way that is not understood."""

    status = 415
    message = "El cuerpo debe enviarse sin codificar o con Content-Encoding: gzip."
    closes = True


class KeyReusedError(RequestError):
    """The Idempotency-Key belongs to a request with another body."""

    status = 422
    message = "Esta Idempotency-Key ya se usó con un formulario distinto."


class UnavailableError(RequestError):
    """The request cannot be served now. Nothing was stored."""

    status = 503
    message = "No hay un líder disponible en este momento. Intente de nuevo."
    headers = RETRY_AFTER


class OutcomeUnknownError(RequestError):
    """The write was sent, and no answer came in time: it may or may not be stored."""

    status = 504
    message = (
        "No se sabe si el registro fue ingresado: no hubo respuesta a tiempo. "
        "Repita la solicitud con la misma Idempotency-Key para saberlo."
    )

    def __init__(self, idempotency_key: str) -> None:
        """Give the key back: without it the outcome could not be asked about later."""
        super().__init__()
        self.headers = {"Idempotency-Key": idempotency_key}


class StorageFullError(RequestError):
    """The leader's disk is full. Nothing was stored; reads still work."""

    status = 507
    message = "No queda espacio en disco: el registro no fue ingresado."


class LeaderError(ReplicadError):
    """One attempt at the leader, or at another replica, failed. Never reaches a client."""


class NothingDoneError(LeaderError):
    """The leader was not reached, or said that it had not acted."""


class BehindError(NothingDoneError):
    """The replica has not applied yet what the read must show."""


class NoAnswerError(LeaderError):
    """The leader may have acted: the request was sent and no usable answer came."""
