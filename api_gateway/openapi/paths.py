"""What the API's description says of each path and method."""

from __future__ import annotations

from typing import Final

from api_gateway.openapi.components import (
    DEFINITION_EXAMPLE,
    NDJSON,
    RECORD_EXAMPLE,
    Json,
    ref,
)
from api_gateway.openapi.operations import (
    ALWAYS,
    BODY,
    COLLECTION,
    CSV,
    EVENTS,
    FRESHNESS,
    ID,
    IF_MATCH,
    IF_NONE_MATCH,
    JSON,
    KEY,
    KNOWN_ETAGS,
    LINES,
    NAMED,
    PLACED,
    PROOF,
    READ,
    SEEN,
    TAGGED,
    WRITE,
    answer,
    json_answer,
    operation,
    query_parameter,
)
from api_gateway.web.problems import Problem


def _collections() -> Json:
    items = {"type": "array", "items": ref("schemas", "Collection")}
    listed = {"type": "object", "required": ["items"], "properties": {"items": items}}
    return {
        "get": operation(
            "Collections",
            "listCollections",
            "All collections",
            parameters=FRESHNESS,
            answers={200: answer("All of them, by name.", {JSON: listed})},
            problems=ALWAYS,
        )
    }


def _collection() -> Json:
    return {
        "parameters": [COLLECTION],
        "get": operation(
            "Collections",
            "getCollection",
            "How a collection is defined",
            parameters=(*FRESHNESS, KNOWN_ETAGS),
            answers={
                200: json_answer("Collection", "Its definition.", {**SEEN, **TAGGED}),
                304: answer("It is as the client knows it.", {}, TAGGED),
            },
            problems=READ,
        ),
        "put": operation(
            "Collections",
            "defineCollection",
            "Define a collection, anew or otherwise than before",
            description="Refused while stored records would not pass the new schema, "
            "unless force is true.",
            parameters=(
                query_parameter(
                    "force", {"type": "boolean", "default": False}, "Whatever is stored."
                ),
                KEY,
                IF_MATCH,
                IF_NONE_MATCH,
            ),
            body={JSON: {"schema": ref("schemas", "NewDefinition"), "example": DEFINITION_EXAMPLE}},
            answers={
                200: json_answer("Defined", "It is defined otherwise now.", {**PROOF, **TAGGED}),
                201: json_answer("Defined", "It is new.", {**PROOF, **TAGGED, **PLACED}),
            },
            problems=(
                *WRITE,
                *BODY,
                Problem.INVALID_QUERY,
                Problem.INVALID_DEFINITION,
                Problem.PRECONDITION_FAILED,
                Problem.RECORDS_WOULD_NOT_PASS,
                Problem.KEY_FIELD_FIXED,
            ),
        ),
        "delete": operation(
            "Collections",
            "deleteCollection",
            "Remove an empty collection",
            parameters=(KEY, IF_MATCH),
            answers={200: json_answer("Receipt", "It is gone.", PROOF)},
            problems=(
                *WRITE,
                Problem.COLLECTION_NOT_EMPTY,
                Problem.COLLECTION_BUILT_IN,
                Problem.PRECONDITION_FAILED,
            ),
        ),
    }


_CONDITIONS: Final[Json] = {
    "name": "conditions",
    "in": "query",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    "description": "FIELD=VALUE, or FIELD[OPERATOR]=VALUE with eq, ne, gt, gte, lt, lte, prefix, "
    "in (separated by commas) or exists (true, false). A field is a dotted path; all conditions "
    "must hold.",
    "example": {"genero": "Femenino", "edad[gte]": "18"},
}


def _records() -> Json:
    page = {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": ref("schemas", "Record")},
            "next": {"type": ["string", "null"], "description": "Of the next page, for cursor."},
            "count": {"type": "integer", "minimum": 0, "description": "With count=true."},
        },
    }
    return {
        "parameters": [COLLECTION],
        "get": operation(
            "Queries",
            "queryRecords",
            "Records that meet all conditions",
            parameters=(
                _CONDITIONS,
                query_parameter(
                    "q", {"type": "string"}, "Words that all must be in the search fields."
                ),
                query_parameter(
                    "sort", {"type": "string"}, "Fields, separated by commas; - reverses one."
                ),
                query_parameter(
                    "fields", {"type": "string"}, "Only these fields, separated by commas."
                ),
                query_parameter(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                    "Records in one answer.",
                ),
                query_parameter("cursor", {"type": "string"}, "What the page before told as next."),
                query_parameter(
                    "count", {"type": "boolean", "default": False}, "Count all of them, too."
                ),
                *FRESHNESS,
            ),
            answers={200: answer("A page of them.", {JSON: page}, SEEN)},
            problems=(*READ, Problem.QUERY_TOO_BROAD),
        ),
        "post": operation(
            "Records",
            "insertRecord",
            "Store a new record under the id in its key field",
            parameters=(KEY,),
            body={JSON: {"schema": ref("schemas", "Record"), "example": RECORD_EXAMPLE}},
            answers={201: json_answer("Receipt", "It is stored.", {**PROOF, **TAGGED, **PLACED})},
            problems=(*WRITE, *BODY, Problem.INVALID_RECORD, Problem.RECORD_EXISTS),
        ),
    }


def _get_record() -> Json:
    found = {"anyOf": [ref("schemas", "Copies"), ref("schemas", "Record")]}
    return operation(
        "Records",
        "getRecord",
        "One record, byte for byte as it is stored",
        parameters=(
            query_parameter("at_index", {"type": "integer", "minimum": 1}, "As of this log index."),
            query_parameter(
                "at_time", {"type": "string", "format": "date-time"}, "As of this moment."
            ),
            query_parameter(
                "verify", {"type": "string", "const": "all"}, "Its digest at every replica."
            ),
            *FRESHNESS,
            KNOWN_ETAGS,
        ),
        answers={
            200: answer("The record.", {JSON: found}, {**SEEN, **TAGGED}),
            304: answer("It is as the client knows it.", {}, {**SEEN, **TAGGED}),
        },
        problems=(*READ, Problem.NO_SUCH_RECORD, Problem.HISTORY_GONE),
    )


def _record() -> Json:
    written = {**PROOF, **TAGGED}
    patch = {"schema": {"type": "object"}, "example": {"edad": 35, "genero": None}}
    condition_failed = Problem.PRECONDITION_FAILED
    return {
        "parameters": [COLLECTION, ID],
        "get": _get_record(),
        "put": operation(
            "Records",
            "putRecord",
            "Store a record, whether or not there is one",
            description="The id in the body's key field must be that in the path.",
            parameters=(KEY, IF_MATCH, IF_NONE_MATCH),
            body={JSON: {"schema": ref("schemas", "Record"), "example": RECORD_EXAMPLE}},
            answers={
                200: json_answer("Receipt", "It replaces the one before.", written),
                201: json_answer("Receipt", "It is new.", {**written, **PLACED}),
            },
            problems=(*WRITE, *BODY, Problem.INVALID_RECORD, condition_failed),
        ),
        "patch": operation(
            "Records",
            "patchRecord",
            "Change fields of a record (RFC 7396)",
            parameters=(KEY, IF_MATCH),
            body={"application/merge-patch+json": patch, JSON: patch},
            answers={200: json_answer("Receipt", "It is changed.", written)},
            problems=(
                *WRITE,
                *BODY,
                Problem.NO_SUCH_RECORD,
                Problem.INVALID_RECORD,
                condition_failed,
            ),
        ),
        "delete": operation(
            "Records",
            "deleteRecord",
            "Delete a record",
            parameters=(KEY, IF_MATCH),
            answers={200: json_answer("Receipt", "It is deleted.", PROOF)},
            problems=(*WRITE, Problem.NO_SUCH_RECORD, condition_failed),
        ),
    }


def _record_history() -> Json:
    page = {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": ref("schemas", "Version")},
            "next": {"type": ["string", "null"], "description": "Of the next page, for cursor."},
            "from_index": {
                "type": "integer",
                "description": "What happened before this entry is not known any more.",
            },
        },
    }
    return {
        "parameters": [COLLECTION, ID],
        "get": operation(
            "History",
            "getRecordHistory",
            "Every version of a record that the log still has",
            parameters=(
                query_parameter(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                    "Versions in one answer.",
                ),
                query_parameter("cursor", {"type": "string"}, "What the page before told as next."),
                *FRESHNESS,
            ),
            answers={200: answer("A page of them.", {JSON: page}, SEEN)},
            problems=(*READ, Problem.NO_SUCH_RECORD),
        ),
    }


def _batch() -> Json:
    return {
        "parameters": [COLLECTION],
        "post": operation(
            "Records",
            "writeBatch",
            "Up to 1,000 operations, all or none of them",
            parameters=(KEY,),
            body={JSON: {"schema": ref("schemas", "Batch")}},
            answers={200: json_answer("BatchReceipt", "All are done, in one log entry.", PROOF)},
            problems=(
                *WRITE,
                *BODY,
                Problem.INVALID_RECORD,
                Problem.RECORD_EXISTS,
                Problem.NO_SUCH_RECORD,
                Problem.PRECONDITION_FAILED,
            ),
        ),
    }


def _import() -> Json:
    body = {
        NDJSON: {"schema": LINES, "example": '{"id":"00001"}\n{"id":"00002"}\n'},
        CSV: {"schema": {"type": "string"}, "example": "id,nombres\n00001,Ana\n"},
    }
    told = (
        "A line for each record, in their order: line, id, status (stored, duplicate, invalid or "
        "unknown) and reason. The last one is the tally."
    )
    return {
        "parameters": [COLLECTION],
        "post": operation(
            "Bulk",
            "importRecords",
            "Store any number of new records, as a stream",
            description="Safe to run again: what is stored already is told as a duplicate.",
            body=body,
            answers={200: answer(told, {NDJSON: LINES})},
            problems=(
                *NAMED,
                Problem.INVALID_QUERY,
                Problem.BODY_TOO_SLOW,
                Problem.TOO_LARGE,
                Problem.UNSUPPORTED_MEDIA_TYPE,
            ),
        ),
    }


def _export() -> Json:
    return {
        "parameters": [COLLECTION],
        "get": operation(
            "Bulk",
            "exportRecords",
            "All records as of one log index, as a stream",
            parameters=(
                query_parameter("fields", {"type": "string"}, "CSV only: the columns, by commas."),
                *FRESHNESS,
            ),
            answers={200: answer("All of them.", {NDJSON: LINES, CSV: {"type": "string"}}, SEEN)},
            problems=(*READ, Problem.NOT_ACCEPTABLE),
        ),
    }


def _changes() -> Json:
    return {
        "parameters": [COLLECTION],
        "get": operation(
            "Change feed",
            "followChanges",
            "What happened after a place in the log, and what happens next",
            description="As NDJSON: answers as soon as there is something, or after the timeout. "
            "As Server-Sent Events: goes on until the client goes away.",
            parameters=(
                query_parameter(
                    "since",
                    {"type": "string", "pattern": "^(now|[0-9]{1,18}(\\.[0-9]{1,4})?)$"},
                    "The cursor up to which the client knows everything, or now.",
                ),
                query_parameter(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000},
                    "Changes in one answer.",
                ),
                query_parameter(
                    "timeout",
                    {"type": "number", "minimum": 0, "maximum": 60, "default": 30},
                    "Seconds to wait for a change.",
                ),
                {
                    "name": "Last-Event-ID",
                    "in": "header",
                    "schema": {"type": "string"},
                    "description": "As since; what browsers send when they connect again.",
                },
            ),
            answers={
                200: answer(
                    "Changes, each as in the schema Change.",
                    {NDJSON: LINES, EVENTS: {"type": "string"}},
                    {"X-Replicad-Next": ref("headers", "Next")},
                )
            },
            problems=(*READ, Problem.NOT_ACCEPTABLE, Problem.HISTORY_GONE),
        ),
    }


def _request() -> Json:
    key = {
        "name": "key",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        "description": "The Idempotency-Key of a write.",
        "example": "0190a1b2c3d4e5f60718293a4b5c6d7e",
    }
    return {
        "parameters": [key],
        "get": operation(
            "Records",
            "getOutcome",
            "What became of a write",
            answers={
                200: json_answer("Outcome", "It is committed.", SEEN),
                404: json_answer("Outcome", "The leader knows of no such write.", SEEN),
            },
            problems=ALWAYS,
        ),
    }


def _cluster(name: str, schema: str, summary: str) -> Json:
    problems = (
        Problem.EXPECTATION_FAILED,
        Problem.TOO_MANY_REQUESTS,
        Problem.INTERNAL_ERROR,
    )
    return {
        "get": operation(
            "Operation",
            name,
            summary,
            answers={200: json_answer(schema, summary)},
            problems=problems,
        )
    }


def paths() -> Json:
    """All of them, by their templates."""
    collection = "/v1/collections/{collection}"
    return {
        "/v1/collections": _collections(),
        collection: _collection(),
        f"{collection}/records": _records(),
        f"{collection}/records/{{id}}": _record(),
        f"{collection}/records/{{id}}/history": _record_history(),
        f"{collection}/records:batch": _batch(),
        f"{collection}/records:import": _import(),
        f"{collection}/records:export": _export(),
        f"{collection}/changes": _changes(),
        "/v1/requests/{key}": _request(),
        "/v1/cluster": _cluster("getCluster", "Cluster", "The cluster's state"),
        "/v1/cluster/history": _cluster("getClusterHistory", "History", "Past elections"),
    }
