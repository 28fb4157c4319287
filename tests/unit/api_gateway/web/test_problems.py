from __future__ import annotations

import re
from http import HTTPStatus

import orjson
import pytest

from api_gateway import errors
from api_gateway.errors import (
    OutcomeUnknownError,
    PreconditionFailedError,
    RequestError,
    StorageFullError,
    UnavailableError,
)
from api_gateway.web import responses
from api_gateway.web.languages import Language
from api_gateway.web.problems import Problem


def test_slugs_are_distinct_and_statuses_are_errors() -> None:
    assert len({problem.slug for problem in Problem}) == len(Problem)
    for problem in Problem:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", problem.slug)
        assert HTTPStatus(problem.status) >= 400


def test_titles_differ_by_language() -> None:
    for problem in Problem:
        assert problem.title(Language.ENGLISH) != problem.title(Language.SPANISH)


def test_every_kind_has_an_error() -> None:
    kinds = {
        each.problem
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, RequestError) and each is not RequestError
    }
    assert kinds == set(Problem)


@pytest.mark.parametrize(
    ("accept_language", "language", "title"),
    [
        (None, "en", "Precondition failed"),
        ("es-MX,en;q=0.5", "es", "No se cumple la condición"),
    ],
)
def test_a_problem_is_told_in_the_clients_language(
    accept_language: str | None, language: str, title: str
) -> None:
    failure = PreconditionFailedError("There is 7.", "Hay 7.", extensions={"etag": '"7"'})
    response = responses.refusal(
        failure, path="/v1/collections/a/records/b", accept_language=accept_language
    )
    assert response.status == 412
    assert response.content_type == "application/problem+json"
    assert response.headers["Content-Language"] == language
    assert response.headers["Vary"] == "Accept-Language"
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {
        "type": "urn:replicad:precondition-failed",
        "title": title,
        "status": 412,
        "detail": "There is 7." if language == "en" else "Hay 7.",
        "etag": '"7"',
    }


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (StorageFullError(), "No queda espacio en disco: el registro no fue ingresado."),
        (
            UnavailableError(),
            "No hay un líder disponible en este momento. Intente de nuevo.",
        ),
        (
            OutcomeUnknownError("k"),
            "No se sabe si el registro fue ingresado: no hubo respuesta a tiempo. "
            "Repita la solicitud con la misma Idempotency-Key para saberlo.",
        ),
    ],
)
def test_the_older_paths_say_what_they_always_said(failure: RequestError, message: str) -> None:
    response = responses.refusal(failure, path="/API/IngresarFormulario", accept_language="en")
    assert response.status == failure.status
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {"status": "error", "message": message}
    assert "Content-Language" not in response.headers


def test_headers_are_sent_along() -> None:
    for path in ("/v1/cluster", "/API/IngresarFormulario"):
        response = responses.refusal(UnavailableError(), path=path, accept_language=None)
        assert response.headers["Retry-After"] == "1"
