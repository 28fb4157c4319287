"""What the API's description says of a method: parameters, answers and problems it shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from api_gateway.openapi.components import Json, ref
from api_gateway.web.problems import CONTENT_TYPE, Problem

JSON: Final = "application/json"
CSV: Final = "text/csv"
EVENTS: Final = "text/event-stream"
LINES: Final[Json] = {"type": "string", "description": "A JSON object on each line."}

ALWAYS: Final = (
    Problem.INVALID_REQUEST,
    Problem.EXPECTATION_FAILED,
    Problem.TOO_MANY_REQUESTS,
    Problem.INTERNAL_ERROR,
    Problem.UNAVAILABLE,
)
NAMED: Final = (*ALWAYS, Problem.INVALID_ID, Problem.NO_SUCH_COLLECTION)
READ: Final = (*NAMED, Problem.INVALID_QUERY)
WRITE: Final = (
    *NAMED,
    Problem.IDEMPOTENCY_KEY_REUSED,
    Problem.OUTCOME_UNKNOWN,
    Problem.STORAGE_FULL,
)
BODY: Final = (
    Problem.INVALID_JSON,
    Problem.BODY_TOO_SLOW,
    Problem.TOO_LARGE,
    Problem.UNSUPPORTED_MEDIA_TYPE,
)

COLLECTION: Final = ref("parameters", "collection")
ID: Final = ref("parameters", "id")
FRESHNESS: Final = (
    ref("parameters", "consistency"),
    ref("parameters", "consistencyInQuery"),
    ref("parameters", "minIndex"),
)
KEY: Final = ref("parameters", "idempotencyKey")
IF_MATCH: Final = ref("parameters", "ifMatch")
IF_NONE_MATCH: Final = ref("parameters", "ifNoneMatch")
KNOWN_ETAGS: Final = ref("parameters", "knownEtags")

PROOF: Final = {
    "X-Replicad-Index": ref("headers", "Index"),
    "X-Replicad-Epoch": ref("headers", "Epoch"),
    "X-Replicad-Digest": ref("headers", "Digest"),
    "X-Replicad-Acks": ref("headers", "Acks"),
    "Idempotency-Replayed": ref("headers", "Replayed"),
}
SEEN: Final = {
    "X-Replicad-Index": ref("headers", "Index"),
    "X-Replicad-Replica": ref("headers", "Replica"),
    "X-Replicad-Staleness-Ms": ref("headers", "Staleness"),
}
TAGGED: Final = {"ETag": ref("headers", "ETag")}
PLACED: Final = {"Location": ref("headers", "Location")}
_PROBLEM_HEADERS: Final[Mapping[Problem, Json]] = {
    Problem.TOO_MANY_REQUESTS: {"Retry-After": ref("headers", "RetryAfter")},
    Problem.UNAVAILABLE: {"Retry-After": ref("headers", "RetryAfter")},
    Problem.OUTCOME_UNKNOWN: {"Idempotency-Key": ref("headers", "IdempotencyKey")},
}


def answer(description: str, content: Mapping[str, Json], headers: Json | None = None) -> Json:
    """An answer, with a schema for each media type."""
    answer: Json = {"description": description}
    if content:
        answer["content"] = {name: {"schema": schema} for name, schema in content.items()}
    return {**answer, **({"headers": headers} if headers else {})}


def json_answer(name: str, description: str, headers: Json | None = None) -> Json:
    """An answer whose body is this schema."""
    return answer(description, {JSON: ref("schemas", name)}, headers)


def _refusals(problems: Sequence[Problem]) -> Json:
    """An answer for each status, which names the kinds of problems that it may be."""
    by_status: dict[int, list[Problem]] = {}
    for problem in sorted(set(problems), key=lambda each: (each.status, each.slug)):
        by_status.setdefault(problem.status, []).append(problem)
    answers: Json = {}
    for status, kinds in by_status.items():
        schema = {
            "allOf": [ref("schemas", "Problem")],
            "properties": {"type": {"enum": [kind.type for kind in kinds]}},
        }
        headers = {
            name: header
            for kind in kinds
            for name, header in _PROBLEM_HEADERS.get(kind, {}).items()
        }
        text = " or ".join(kind.slug for kind in kinds)
        answers[str(status)] = answer(text, {CONTENT_TYPE: schema}, headers)
    return answers


def operation(
    tag: str,
    name: str,
    summary: str,
    *,
    answers: Mapping[int, Json],
    problems: Sequence[Problem],
    parameters: Sequence[Json] = (),
    body: Json | None = None,
    description: str = "",
) -> Json:
    """A method of a path; each refusal is told with the kinds of problems that it may be."""
    operation: Json = {"tags": [tag], "operationId": name, "summary": summary}
    if description:
        operation["description"] = description
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    told = {str(status): answer for status, answer in answers.items()}
    return {**operation, "responses": {**told, **_refusals(problems)}}


def query_parameter(name: str, schema: Json, description: str) -> Json:
    """A parameter in the query string; never required."""
    return {"name": name, "in": "query", "schema": schema, "description": description}
