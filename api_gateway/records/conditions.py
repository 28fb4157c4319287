"""ETags and the conditions that clients make with them. Pure.

A record's ETag is its version in quotes. Any other tag is valid, and never that of a record.

Source: RFC 9110, sections 8.8.3 and 13.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from api_gateway.errors import (
    CollectionNotEmptyError,
    InvalidRequestError,
    NoSuchRecordError,
    PreconditionFailedError,
    RecordExistsError,
    RequestError,
)
from replicad.core.effects import Reason, Rejected
from replicad.core.write import Condition, Wanted

# Empty elements of a list are legal; a weak tag never matches strongly.
_TAG: Final = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)")?[ \t]*(?:,|\Z)')
_VERSION: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_TAGS_MAX: Final = 100
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


def etag_of(version: int) -> str:
    """The ETag of a record of this version."""
    return f'"{version}"'


def condition_of(
    if_match: Sequence[str], if_none_match: Sequence[str], *, name: str = "If-Match"
) -> Condition:
    """What a write's headers, each as often as it came, ask of the record.

    Args:
        if_match: Values of If-Match.
        if_none_match: Values of If-None-Match.
        name: How the client calls the first one.

    Raises:
        InvalidRequestError: A header breaks the rule; or both are there; or If-None-Match has
            anything but `*`.
    """
    if if_match and if_none_match:
        raise InvalidRequestError(
            "If-Match and If-None-Match exclude each other.",
            "If-Match e If-None-Match se excluyen.",
        )
    if if_none_match:
        if _joined(if_none_match) != "*":
            raise InvalidRequestError(
                "A write takes If-None-Match only with *.",
                "Una escritura admite If-None-Match solo con *.",
            )
        return Wanted.ABSENT
    if not if_match:
        return Wanted.ANYTHING
    if _joined(if_match) == "*":
        return Wanted.PRESENT
    return _versions(_joined(if_match), name, weak=False)


def is_known(if_none_match: Sequence[str], version: int) -> bool:
    """Whether a read's If-None-Match says that the client has this version already.

    Raises:
        InvalidRequestError: The header breaks the rule.
    """
    if not if_none_match:
        return False
    text = _joined(if_none_match)
    return text == "*" or version in _versions(text, "If-None-Match", weak=True)


def refusal_of(
    rejected: Rejected, *, conditional: bool, extensions: Mapping[str, object] = _NOTHING
) -> RequestError:
    """What a client is told of a write that cannot be.

    Args:
        rejected: Why it cannot be.
        conditional: Whether the client made a condition with ETags.
        extensions: Further members of the problem.
    """
    etag = etag_of(rejected.version) if rejected.version else None
    match rejected.reason:
        case Reason.NOT_EMPTY:
            return CollectionNotEmptyError()
        case Reason.EXISTS if not conditional:
            return RecordExistsError(extensions={"etag": etag, **extensions})
        case Reason.MISSING if not conditional:
            return NoSuchRecordError(extensions=extensions)
    return PreconditionFailedError(extensions={"etag": etag, **extensions})


def _joined(values: Sequence[str]) -> str:
    return ",".join(values).strip(" \t")


def _versions(text: str, name: str, *, weak: bool) -> tuple[int, ...]:
    versions: list[int] = []
    at = tags = 0
    while at < len(text):
        tag = _TAG.match(text, at)
        if tag is None:
            break
        at = tag.end()
        if tag[2] is not None:
            tags += 1
            if (weak or tag[1] is None) and _VERSION.fullmatch(tag[2]):
                versions.append(int(tag[2]))
    if at < len(text) or not 0 < tags <= _TAGS_MAX:
        raise InvalidRequestError(
            f"{name} must be * or 1 to {_TAGS_MAX} ETags, each in quotes.",
            f"{name} debe ser * o de 1 a {_TAGS_MAX} ETag, cada una entre comillas.",
        )
    return tuple(versions)
