"""The kinds of problems that a client may be told of; stable, so that programs may rely on them.

Source: RFC 9457; docs/api.md, "Errors".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from api_gateway.web.languages import Language

CONTENT_TYPE: Final = "application/problem+json"
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Problem(Enum):
    """A kind of problem.

    Attributes:
        slug: Its name, which never changes.
        status: The HTTP status it comes with.
    """

    INVALID_REQUEST = "invalid-request", 400, "Invalid request", "Solicitud no válida"
    INVALID_JSON = "invalid-json", 400, "Invalid JSON", "JSON no válido"
    INVALID_ID = "invalid-id", 400, "Invalid id", "Id no válido"
    INVALID_QUERY = "invalid-query", 400, "Invalid query", "Consulta no válida"
    NO_SUCH_ROUTE = "no-such-route", 404, "No such route", "La ruta no existe"
    NO_SUCH_COLLECTION = ("no-such-collection", 404, "No such collection", "La colección no existe")
    NO_SUCH_RECORD = "no-such-record", 404, "No such record", "El registro no existe"
    METHOD_NOT_ALLOWED = "method-not-allowed", 405, "Method not allowed", "Método no permitido"
    NOT_ACCEPTABLE = "not-acceptable", 406, "Not acceptable", "Ningún formato aceptable"
    BODY_TOO_SLOW = "body-too-slow", 408, "Body too slow", "Cuerpo demasiado lento"
    RECORD_EXISTS = "record-exists", 409, "The record exists", "El registro ya existe"
    COLLECTION_NOT_EMPTY = (
        "collection-not-empty",
        409,
        "The collection is not empty",
        "La colección no está vacía",
    )
    COLLECTION_BUILT_IN = (
        "collection-built-in",
        409,
        "The collection is built in",
        "La colección es del sistema",
    )
    RECORDS_WOULD_NOT_PASS = (
        "records-would-not-pass",
        409,
        "Records would not pass",
        "Hay registros que no cumplirían",
    )
    KEY_FIELD_FIXED = (
        "key-field-fixed",
        409,
        "The key field is fixed",
        "El campo clave no puede cambiar",
    )
    HISTORY_GONE = "history-gone", 410, "History gone", "Esa historia ya no se conserva"
    PRECONDITION_FAILED = (
        "precondition-failed",
        412,
        "Precondition failed",
        "No se cumple la condición",
    )
    TOO_LARGE = "too-large", 413, "Too large", "Demasiado grande"
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "Formato no admitido",
    )
    EXPECTATION_FAILED = (
        "expectation-failed",
        417,
        "Expectation failed",
        "Expectativa no admitida",
    )
    INVALID_RECORD = "invalid-record", 422, "Invalid record", "Registro no válido"
    INVALID_DEFINITION = ("invalid-definition", 422, "Invalid definition", "Definición no válida")
    IDEMPOTENCY_KEY_REUSED = (
        "idempotency-key-reused",
        422,
        "Idempotency key reused",
        "Idempotency-Key ya usada",
    )
    QUERY_TOO_BROAD = "query-too-broad", 422, "Query too broad", "Consulta demasiado amplia"
    TOO_MANY_REQUESTS = ("too-many-requests", 429, "Too many requests", "Demasiadas solicitudes")
    INTERNAL_ERROR = "internal-error", 500, "Internal error", "Error interno"
    UNAVAILABLE = "unavailable", 503, "Unavailable", "No disponible"
    OUTCOME_UNKNOWN = "outcome-unknown", 504, "Outcome unknown", "Resultado desconocido"
    STORAGE_FULL = "storage-full", 507, "Storage full", "Almacenamiento lleno"

    def __init__(self, slug: str, status: int, english: str, spanish: str) -> None:
        """Take the kind's members."""
        self.slug = slug
        self.status = status
        self._titles = {Language.ENGLISH: english, Language.SPANISH: spanish}

    @property
    def type(self) -> str:
        """The URI that names this kind."""
        return f"urn:replicad:{self.slug}"

    def title(self, language: Language) -> str:
        """What it is called; the same at every occurrence."""
        return self._titles[language]

    def describe(
        self, language: Language, detail: str, extensions: Mapping[str, object] = _NOTHING
    ) -> dict[str, object]:
        """The members of the JSON object that tells of one occurrence."""
        return {
            "type": self.type,
            "title": self.title(language),
            "status": self.status,
            "detail": detail or self.title(language),
            **extensions,
        }
