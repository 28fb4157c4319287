"""Ids of records, and the forms that the paths under /API/ take. Pure."""

from __future__ import annotations

import re
from typing import Final

from api_gateway.errors import InvalidIdError, InvalidRequestError
from api_gateway.records.strict_json import ObjectText, parse_object

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_id(key: object) -> bool:
    """Whether a record may have this id."""
    return isinstance(key, str) and _ID.fullmatch(key) is not None


def check_id(key: object) -> str:
    """Return the id of a record.

    Raises:
        InvalidIdError: It is not an id.
    """
    if not isinstance(key, str) or not _ID.fullmatch(key):
        raise InvalidIdError(
            "An id must be a text of 1 to 128 characters of A-Z a-z 0-9 . _ - "
            "that begins with a letter or a digit.",
            "El id debe ser un texto de 1 a 128 caracteres de A-Z a-z 0-9 . _ - "
            "que comience con una letra o un dígito.",
        )
    return key


def parse_form(body: bytes) -> ObjectText:
    """Validate the body of a request, in time linear in its length.

    Raises:
        InvalidRequestError: The body breaks a rule; the error says which.
    """
    form = parse_object(body)
    if "id" not in form.document:
        raise InvalidRequestError("The field id is missing.", "Falta el campo id.")
    check_id(form.document["id"])
    return form
