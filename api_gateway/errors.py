"""Every way in which the gateway does not do what was asked.

ReplicadError
|-- RequestError                the client gets this problem, in English or in Spanish
|   |-- InvalidRequestError         400: a header, a parameter or a body that breaks a rule
|   |   |-- InvalidJsonError
|   |   |-- InvalidIdError
|   |   `-- InvalidQueryError
|   |-- NoSuchRouteError            404
|   |-- NoSuchCollectionError       404
|   |-- NoSuchRecordError           404
|   |-- MethodNotAllowedError       405
|   |-- NotAcceptableError          406
|   |-- BodyTooSlowError            408
|   |-- RecordExistsError           409
|   |-- CollectionNotEmptyError     409
|   |-- CollectionBuiltInError      409
|   |-- RecordsWouldNotPassError    409
|   |-- KeyFieldFixedError          409
|   |-- HistoryGoneError            410
|   |-- PreconditionFailedError     412
|   |-- BodyTooLargeError           413
|   |-- WriteTooLargeError          413: what a batch stores
|   |-- UnsupportedMediaTypeError   415
|   |   `-- UnsupportedEncodingError    a Content-Encoding other than gzip
|   |-- ExpectationFailedError      417
|   |-- InvalidRecordError          422: valid JSON that the collection's schema refuses
|   |-- InvalidDefinitionError      422
|   |-- KeyReusedError              422: the Idempotency-Key came before with another request
|   |-- QueryTooBroadError          422
|   |-- TooManyRequestsError        429
|   |-- InternalError               500: a defect
|   |-- UnavailableError            503: nothing was stored; try again after Retry-After
|   |-- OutcomeUnknownError         504: it may or may not have been stored
|   `-- StorageFullError            507: nothing was stored
|-- RejectedError               the state does not allow a write; callers tell what that means
`-- LeaderError                 one attempt at a replica failed; the gateway tries again
    |-- NothingDoneError            the leader has certainly not acted on it
    |   |-- BehindError                 the replica has not applied as much as was asked for
    |   `-- GoneError                   the replica's log begins after what was asked for
    `-- NoAnswerError               the leader may or may not have acted on it
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from api_gateway.web.problems import Problem
from replicad.core.effects import Rejected
from replicad.errors import ReplicadError

RETRY_AFTER: Final = {"Retry-After": "1"}
"""One second: about what an election or a shrink of the ISR takes."""
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class RequestError(ReplicadError):
    """The answer to a request that could not be served.

    Attributes:
        problem: Its kind.
        english, spanish: What happened, for the client to read.
        older_spanish: What the paths under /API/ say instead, if they always said it otherwise.
        extensions: Further members of the problem, by name.
        headers: To be sent along.
        closes: Whether the connection must end, since the rest of the body was not read.
    """

    problem: ClassVar[Problem]
    english: str = ""
    spanish: str = ""
    older_spanish: ClassVar[str] = ""
    headers: Mapping[str, str] = MappingProxyType({})
    closes: ClassVar[bool] = False

    def __init__(
        self, english: str = "", spanish: str = "", *, extensions: Mapping[str, object] = _NOTHING
    ) -> None:
        """Take both texts, or the class's own where they are not given."""
        self.english = english or self.english
        self.spanish = spanish or self.spanish
        self.extensions = extensions
        super().__init__(self.english, self.spanish)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class InvalidRequestError(RequestError):
    """A header, a parameter or a body breaks a rule; the text says which."""

    problem = Problem.INVALID_REQUEST
    english = "The request is not valid."
    spanish = "La solicitud no es válida."


class InvalidJsonError(InvalidRequestError):
    """The body is not JSON as it can be kept."""

    problem = Problem.INVALID_JSON


class InvalidIdError(InvalidRequestError):
    """What should be an id, or a collection's name, is none."""

    problem = Problem.INVALID_ID


class InvalidQueryError(InvalidRequestError):
    """A query's parameter breaks a rule."""

    problem = Problem.INVALID_QUERY


class NoSuchRouteError(RequestError):
    """Nothing is served at this path."""

    problem = Problem.NO_SUCH_ROUTE
    english = "There is nothing at this path."
    spanish = "La ruta solicitada no existe."


class NoSuchCollectionError(RequestError):
    """No collection of this name is defined."""

    problem = Problem.NO_SUCH_COLLECTION
    english = "There is no collection of this name."
    spanish = "No hay una colección con este nombre."


class NoSuchRecordError(RequestError):
    """No record has this id."""

    problem = Problem.NO_SUCH_RECORD
    english = "There is no record with this id."
    spanish = "No hay un registro con este id."
    older_spanish = "El registro No existe en el sistema."


class MethodNotAllowedError(RequestError):
    """The path exists, but not for this method."""

    problem = Problem.METHOD_NOT_ALLOWED
    english = "This path does not serve this method; Allow lists those it does."
    spanish = "Esta ruta no admite este método; Allow indica cuáles admite."
    older_spanish = "El método no está permitido en esta ruta."

    def __init__(self, allow: str) -> None:
        """List the methods that the path serves, as the header does."""
        super().__init__()
        self.headers = {"Allow": allow}


class NotAcceptableError(RequestError):
    """The answer exists in none of the formats that the client accepts."""

    problem = Problem.NOT_ACCEPTABLE


class BodyTooSlowError(RequestError):
    """The body did not arrive in time."""

    problem = Problem.BODY_TOO_SLOW
    english = "The body of the request took too long to arrive."
    spanish = "El cuerpo de la solicitud tardó demasiado en llegar."
    closes = True


class RecordExistsError(RequestError):
    """Another request stored a record under this id."""

    problem = Problem.RECORD_EXISTS
    english = "There is a record with this id already."
    spanish = "Ya hay un registro con este id."
    older_spanish = "El registro ya existe en el sistema."


class CollectionNotEmptyError(RequestError):
    """A collection is removed only once it has no records."""

    problem = Problem.COLLECTION_NOT_EMPTY
    english = "The collection still has records: delete them first."
    spanish = "La colección todavía tiene registros: elimínelos primero."


class CollectionBuiltInError(RequestError):
    """The collection is always there."""

    problem = Problem.COLLECTION_BUILT_IN


class RecordsWouldNotPassError(RequestError):
    """Stored records break the new schema; `extensions` says which."""

    problem = Problem.RECORDS_WOULD_NOT_PASS


class KeyFieldFixedError(RequestError):
    """The key field was to change while there are records."""

    problem = Problem.KEY_FIELD_FIXED


class HistoryGoneError(RequestError):
    """The log does not reach back so far any more."""

    problem = Problem.HISTORY_GONE
    english = "The log does not reach back so far any more."
    spanish = "El registro de cambios ya no llega tan atrás."


class PreconditionFailedError(RequestError):
    """If-Match or If-None-Match does not hold; `etag` in `extensions` says what there is."""

    problem = Problem.PRECONDITION_FAILED
    english = "The record is not as the request wants it to be; nothing was done."
    spanish = "El registro no está como la solicitud lo pide; no se hizo nada."


class BodyTooLargeError(RequestError):
    """The body, or what it decompresses to, is beyond the limit."""

    problem = Problem.TOO_LARGE
    closes = True

    def __init__(self, mebibytes_max: int) -> None:
        """Say what the limit is, in MiB."""
        super().__init__(
            f"The body of the request exceeds the limit of {mebibytes_max} MiB.",
            f"El cuerpo de la solicitud supera el límite de {mebibytes_max} MiB.",
        )


class WriteTooLargeError(RequestError):
    """The operations do not fit into one entry of the log."""

    problem = Problem.TOO_LARGE
    english = (
        "The operations are too large for one entry of the log: their ids and values may have "
        "about 16 KiB less than 16 MiB together."
    )
    spanish = (
        "Las operaciones no caben en una sola entrada del registro: sus ids y valores pueden "
        "tener en total unos 16 KiB menos que 16 MiB."
    )


class UnsupportedMediaTypeError(RequestError):
    """The body is in a format that is not understood here."""

    problem = Problem.UNSUPPORTED_MEDIA_TYPE
    closes = True


class UnsupportedEncodingError(UnsupportedMediaTypeError):
    """The body is encoded in a way that is not understood."""

    english = "The body must be sent as it is or with Content-Encoding: gzip."
    spanish = "El cuerpo debe enviarse sin codificar o con Content-Encoding: gzip."
    headers = MappingProxyType({"Accept-Encoding": "gzip, identity"})


class ExpectationFailedError(RequestError):
    """The header Expect asks for something else than 100-continue."""

    problem = Problem.EXPECTATION_FAILED
    english = "The only expectation that is understood is 100-continue."
    spanish = "La única expectativa admitida es 100-continue."
    closes = True


class InvalidRecordError(RequestError):
    """The record breaks its collection's schema; `errors` in `extensions` says where."""

    problem = Problem.INVALID_RECORD


class InvalidDefinitionError(RequestError):
    """A collection's definition breaks a rule; the text says which."""

    problem = Problem.INVALID_DEFINITION


class KeyReusedError(RequestError):
    """The Idempotency-Key belongs to another request."""

    problem = Problem.IDEMPOTENCY_KEY_REUSED
    english = "This Idempotency-Key was used with another request."
    spanish = "Esta Idempotency-Key ya se usó con una solicitud distinta."
    older_spanish = "Esta Idempotency-Key ya se usó con un formulario distinto."


class QueryTooBroadError(RequestError):
    """The query would look at more records than a query may."""

    problem = Problem.QUERY_TOO_BROAD


class TooManyRequestsError(RequestError):
    """The client, or all of them together, ask too much at once."""

    problem = Problem.TOO_MANY_REQUESTS

    def __init__(self, english: str, spanish: str, *, retry_after_s: int) -> None:
        """Say which limit was reached, and after how many whole seconds to try again."""
        super().__init__(english, spanish)
        self.headers = {"Retry-After": str(retry_after_s)}


class InternalError(RequestError):
    """A defect of the gateway. Of a write the outcome is unknown."""

    problem = Problem.INTERNAL_ERROR
    english = "An internal error occurred. A write may or may not have taken place."
    spanish = "Ocurrió un error interno. Una escritura puede haberse realizado o no."
    older_spanish = "Ocurrió un error interno en el sistema."
    closes = True


class UnavailableError(RequestError):
    """The request cannot be served now. Nothing was stored."""

    problem = Problem.UNAVAILABLE
    english = "No leader is available at the moment. Try again."
    spanish = "No hay un líder disponible en este momento. Intente de nuevo."
    headers = RETRY_AFTER


class OutcomeUnknownError(RequestError):
    """The write was sent, and no answer came in time: it may or may not be stored."""

    problem = Problem.OUTCOME_UNKNOWN
    english = (
        "It is not known whether the write took place: no answer came in time. "
        "Repeat the request with the same Idempotency-Key to find out."
    )
    spanish = (
        "No se sabe si la escritura se realizó: no hubo respuesta a tiempo. "
        "Repita la solicitud con la misma Idempotency-Key para saberlo."
    )
    older_spanish = (
        "No se sabe si el registro fue ingresado: no hubo respuesta a tiempo. "
        "Repita la solicitud con la misma Idempotency-Key para saberlo."
    )

    def __init__(self, idempotency_key: str) -> None:
        """Give the key back: without it the outcome could not be asked about later."""
        super().__init__()
        self.headers = {"Idempotency-Key": idempotency_key}


class StorageFullError(RequestError):
    """The leader's disk is full. Nothing was stored; reads still work."""

    problem = Problem.STORAGE_FULL
    english = "The disk is full: nothing was stored."
    spanish = "No queda espacio en disco: no se guardó nada."
    older_spanish = "No queda espacio en disco: el registro no fue ingresado."


class RejectedError(ReplicadError):
    """The state does not allow a write: nothing was done. Whoever sent it tells the client."""

    def __init__(self, rejected: Rejected) -> None:
        """Take what the leader has confirmed."""
        super().__init__(rejected)
        self.rejected = rejected


class LeaderError(ReplicadError):
    """One attempt at the leader, or at another replica, failed. Never reaches a client."""


class NothingDoneError(LeaderError):
    """The leader was not reached, or said that it had not acted."""


class BehindError(NothingDoneError):
    """The replica has not applied yet what the read must show."""


class GoneError(NothingDoneError):
    """The replica's log begins after what was asked for."""


class NoAnswerError(LeaderError):
    """The leader may have acted: the request was sent and no usable answer came."""
