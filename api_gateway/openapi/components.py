"""What several operations of the API's description have in common: data, parameters, headers."""

from __future__ import annotations

from typing import Any, Final

from api_gateway.web.problems import Problem

Json = dict[str, Any]

NDJSON: Final = "application/x-ndjson"
_DIGEST: Final = "2f0c1b7b5f3a4d3e9c1f0a7d6b5c4e3f2a1908f7e6d5c4b3a29180f7e6d5c4b3"
_FIELD: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "description": "A field, as a dotted path.",
}
_NUMBER_OR_NULL: Final[Json] = {"type": ["integer", "null"]}
_TEXT_OR_NULL: Final[Json] = {"type": ["string", "null"]}

RECORD_EXAMPLE: Final[Json] = {"id": "00001", "nombres": "Ana", "genero": "Femenino", "edad": 34}
DEFINITION_EXAMPLE: Final[Json] = {
    "schema": {
        "type": "object",
        "required": ["id"],
        "properties": {"id": {"type": "string"}, "edad": {"type": "integer", "minimum": 0}},
    },
    "indexes": ["edad"],
    "search": ["nombres"],
    "key": "id",
}


def ref(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(properties: Json, *, optional: tuple[str, ...] = (), **more: object) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, **more}


_ENTRY: Final[Json] = {
    "index": ref("schemas", "Index"),
    "epoch": {
        **_NUMBER_OR_NULL,
        "description": "Of the leader that wrote it; null once the log has dropped the entry.",
    },
    "digest": {
        **_TEXT_OR_NULL,
        "description": "SHA-256 chain up to the entry, in hex; null as with epoch.",
    },
    "replicas": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Those that had it on disk when it was acknowledged.",
    },
}
_OPERATION: Final[Json] = {"type": "string", "enum": ["insert", "update", "delete"]}
_ETAG: Final[Json] = {
    **_TEXT_OR_NULL,
    "description": "Of the record since then; null once it is deleted.",
}
_DEFINITION: Final[Json] = {
    "schema": {
        "type": ["object", "null"],
        "description": "JSON Schema, draft 2020-12, of at most 256 KiB, that refers to nothing "
        "outside itself; null for any object.",
    },
    "indexes": {
        "type": "array",
        "items": _FIELD,
        "maxItems": 16,
        "uniqueItems": True,
        "description": "Fields by which queries find records quickly.",
    },
    "search": {
        "type": "array",
        "items": _FIELD,
        "maxItems": 8,
        "uniqueItems": True,
        "description": "Fields whose words full-text queries find.",
    },
    "key": {
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "description": "The field that holds the id.",
        "default": "id",
    },
}

_IF_MATCH: Final[Json] = {"type": "string", "pattern": r'^(\*|"[!#-~]*"(, ?"[!#-~]*")*)$'}
_ID: Final[Json] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}


def _batch_operation(
    *names: str, without: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> Json:
    members: Json = {
        "operation": {"type": "string", "enum": list(names)},
        "id": _ID,
        "value": ref("schemas", "Record"),
        "if_match": {**_IF_MATCH, "description": "One or more ETags, or * for any."},
    }
    told = {name: schema for name, schema in members.items() if name not in without}
    return _object(told, optional=optional, additionalProperties=False)


SCHEMAS: Final[Json] = {
    "Index": {
        "type": "integer",
        "minimum": 1,
        "description": "A place in the replicated log.",
        "examples": [4711],
    },
    "Problem": _object(
        {
            "type": {
                "type": "string",
                "enum": [problem.type for problem in Problem],
                "description": "The kind of problem; never changes.",
            },
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What happened, for people."},
            "errors": {
                "type": "array",
                "items": _object({"path": {"type": "string"}, "message": {"type": "string"}}),
                "description": "invalid-record: where the record breaks the schema.",
            },
            "etag": {
                **_TEXT_OR_NULL,
                "description": "Of a failed condition: what there is; null if there is nothing.",
            },
            "position": {"type": "integer", "description": "Of a batch: which operation."},
            "id": {"type": "string", "description": "Of a batch: which record."},
        },
        optional=("errors", "etag", "position", "id"),
        description="RFC 9457. A kind may have further members.",
    ),
    "Record": {
        "type": "object",
        "description": "As it is stored.",
        "examples": [RECORD_EXAMPLE],
    },
    "Receipt": _object(
        {
            "collection": {"type": "string"},
            "id": {"type": "string"},
            "operation": _OPERATION,
            **_ENTRY,
            "etag": _ETAG,
        },
        description="What a write did, and who holds it.",
        examples=[
            {
                "collection": "formularios",
                "id": "00001",
                "operation": "insert",
                "index": 4711,
                "epoch": 3,
                "digest": _DIGEST,
                "replicas": ["n1", "n2", "n3"],
                "etag": '"4711"',
            }
        ],
    ),
    "BatchReceipt": _object(
        {
            "collection": {"type": "string"},
            **_ENTRY,
            "results": {
                "type": "array",
                "items": _object(
                    {"id": {"type": "string"}, "operation": _OPERATION, "etag": _ETAG}
                ),
                "description": "In the order of the operations.",
            },
        },
        description="What a batch did, in one log entry.",
        examples=[
            {
                "collection": "formularios",
                "index": 4712,
                "epoch": 3,
                "digest": _DIGEST,
                "replicas": ["n1", "n2", "n3"],
                "results": [
                    {"id": "00001", "operation": "update", "etag": '"4712"'},
                    {"id": "00002", "operation": "delete", "etag": None},
                ],
            }
        ],
    ),
    "NewDefinition": _object(
        {"name": {"type": "string", "description": "As in the path."}, **_DEFINITION},
        optional=("name", *_DEFINITION),
        description="How a collection is to be.",
        examples=[DEFINITION_EXAMPLE],
    ),
    "Collection": _object(
        {
            "name": {"type": "string"},
            **_DEFINITION,
            "version": {
                "type": "integer",
                "minimum": 0,
                "description": "The log index of the definition; 0 for the built-in one.",
            },
        },
        description="How a collection is defined.",
        examples=[{"name": "censo", **DEFINITION_EXAMPLE, "version": 42}],
    ),
    "Defined": {
        "allOf": [
            ref("schemas", "Collection"),
            _object(
                {
                    **{name: _ENTRY[name] for name in ("epoch", "digest", "replicas")},
                    "failing": _object(
                        {"count": {"type": "integer"}, "records": {"type": "array"}},
                        description="With force=true: records that do not pass the new schema.",
                    ),
                },
                optional=("failing",),
            ),
        ],
        "description": "A collection as it is now defined, and the receipt of that.",
    },
    "Batch": _object(
        {
            "operations": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1000,
                "items": ref("schemas", "BatchOperation"),
            }
        },
        additionalProperties=False,
        examples=[
            {
                "operations": [
                    {"operation": "insert", "id": "00002", "value": {"id": "00002"}},
                    {"id": "00001", "value": RECORD_EXAMPLE, "if_match": '"4711"'},
                    {"operation": "delete", "id": "00003"},
                ]
            }
        ],
    ),
    "BatchOperation": {
        "oneOf": [
            _batch_operation("put", "update", optional=("operation", "if_match")),
            _batch_operation("insert", without=("if_match",)),
            _batch_operation("delete", without=("value",), optional=("if_match",)),
        ]
    },
    "Change": _object(
        {
            "index": ref("schemas", "Index"),
            "position": {"type": "integer", "minimum": 0},
            "time": {"type": "string", "format": "date-time"},
            "operation": _OPERATION,
            "collection": {"type": "string"},
            "id": {"type": "string"},
            "value": {"type": ["object", "null"], "description": "null once it is deleted."},
            "digest": {"type": "string"},
        },
        description="One line of the change feed.",
    ),
    "Version": _object(
        {
            "index": ref("schemas", "Index"),
            "time": {"type": "string", "format": "date-time"},
            "operation": _OPERATION,
            "digest": {"type": "string"},
            "value": {"type": ["object", "null"]},
        },
        description="One version of a record.",
    ),
    "Outcome": _object(
        {
            "state": {"type": "string", "enum": ["committed", "unknown"]},
            "index": ref("schemas", "Index"),
            "epoch": _NUMBER_OR_NULL,
            "digest": _TEXT_OR_NULL,
            "collection": {"type": "string"},
            "key": {**_TEXT_OR_NULL, "description": "The record's id; null for a batch."},
            "done": {"type": "string", "description": "A letter each: i, u or d."},
            "time": {"type": "string", "format": "date-time"},
        },
        optional=("index", "epoch", "digest", "collection", "key", "done", "time"),
        description="What became of a write.",
    ),
    "Copies": _object(
        {
            "collection": {"type": "string"},
            "id": {"type": "string"},
            "agree": {"type": "boolean"},
            "replicas": {
                "type": "object",
                "additionalProperties": {"type": "object"},
                "description": "By name: version, sha256 and applied_index, or error.",
            },
        },
        description="One record at every replica.",
    ),
    "Cluster": _object(
        {
            "leader": _TEXT_OR_NULL,
            "epoch": {"type": "integer"},
            "isr": {"type": "array", "items": {"type": "string"}},
            "min_in_sync": _NUMBER_OR_NULL,
            "replicas": {"type": "array", "items": {"type": "object"}},
        },
        description="Who leads, who is in sync, how far each replica is.",
    ),
    "History": _object(
        {"failovers": {"type": "array", "items": {"type": "object"}}},
        description="Who led when, and why that changed.",
    ),
}


_LEVEL: Final[Json] = {
    "type": "string",
    "enum": ["strong", "session", "local"],
    "default": "strong",
}


def _parameter(
    name: str, place: str, schema: Json, description: str, *, required: bool = False, **more: object
) -> Json:
    parameter: Json = {"name": name, "in": place, "description": description, "schema": schema}
    return {**parameter, **({"required": True} if required else {}), **more}


_ENTITY_TAGS: Final = r'^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$'

PARAMETERS: Final[Json] = {
    "collection": _parameter(
        "collection",
        "path",
        {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "The collection's name.",
        required=True,
        example="formularios",
    ),
    "id": _parameter(
        "id",
        "path",
        _ID,
        "The record's id.",
        required=True,
        example="00001",
    ),
    "consistency": _parameter(
        "X-Replicad-Consistency",
        "header",
        _LEVEL,
        "How fresh the read must be; session needs X-Replicad-Min-Index.",
    ),
    "consistencyInQuery": _parameter(
        "consistency", "query", _LEVEL, "As X-Replicad-Consistency, which goes before it."
    ),
    "minIndex": _parameter(
        "X-Replicad-Min-Index",
        "header",
        {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
        "A session read shows at least what the log held up to here.",
    ),
    "idempotencyKey": _parameter(
        "Idempotency-Key",
        "header",
        {"type": "string", "pattern": "^[!-~]{1,128}$"},
        "Makes repetitions of a request one: for 24 hours its first outcome is told again.",
    ),
    "ifMatch": _parameter(
        "If-Match",
        "header",
        _IF_MATCH,
        "Only if the record has one of these ETags, or with * if it is there.",
    ),
    "ifNoneMatch": _parameter(
        "If-None-Match",
        "header",
        {"type": "string", "const": "*"},
        "Only if the record is not there.",
    ),
    "knownEtags": _parameter(
        "If-None-Match",
        "header",
        {"type": "string", "pattern": _ENTITY_TAGS},
        "The ETags that the client has: 304 if one of them is that of the record.",
    ),
}

HEADERS: Final[Json] = {
    "ETag": {"schema": {"type": "string"}, "description": "The record's version, in quotes."},
    "Location": {"schema": {"type": "string"}, "description": "Of the new resource."},
    "Index": {
        "schema": {"type": "integer", "minimum": 0},
        "description": "Of a write: its log index. Of a read: the index that it reflects.",
    },
    "Epoch": {"schema": {"type": "integer"}, "description": "Of the leader that wrote."},
    "Digest": {"schema": {"type": "string"}, "description": "SHA-256 chain up to the entry."},
    "Acks": {"schema": {"type": "string"}, "description": "Who holds it, separated by commas."},
    "Replica": {"schema": {"type": "string"}, "description": "Who answered."},
    "Staleness": {
        "schema": {"type": "string", "pattern": "^([0-9]+|unknown)$"},
        "description": "The replica was level with its leader at most so many milliseconds ago.",
    },
    "Replayed": {
        "schema": {"type": "string", "const": "true"},
        "description": "This is the outcome of an earlier request with the same key.",
    },
    "RetryAfter": {
        "schema": {"type": "integer", "minimum": 1},
        "description": "Seconds after which to try again.",
    },
    "Next": {
        "schema": {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$"},
        "description": "The cursor after what this answer tells, for since.",
    },
    "IdempotencyKey": {
        "schema": {"type": "string"},
        "description": "To repeat the request with, or to ask about its outcome.",
    },
}
