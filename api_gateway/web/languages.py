"""In which language a client is told of a problem: English, or Spanish if it prefers that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import orjson

from api_gateway.web.negotiation import qualities


class Language(StrEnum):
    """A language, by its tag (RFC 5646)."""

    ENGLISH = "en"
    SPANISH = "es"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text for people, in both languages; it may stand anywhere in what `encode` takes."""

    english: str
    spanish: str

    def tell(self, language: Language) -> str:
        """The text in one language."""
        return self.spanish if language is Language.SPANISH else self.english


def encode(value: object, language: Language) -> bytes:
    """A value as JSON, in which every Phrase is told in one language."""

    def tell(inner: object) -> str:
        if isinstance(inner, Phrase):
            return inner.tell(language)
        raise TypeError

    return orjson.dumps(value, default=tell, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def preferred_language(header: str | None) -> Language:
    """The language that an Accept-Language header asks for; English when it does not say.

    A range such as `es-MX` stands for its language (RFC 4647, 3.4). Between equal weights the
    one that the client names first wins.
    """
    if not header:
        return Language.ENGLISH
    weights: dict[str, float] = {}
    for name, weight in qualities(header).items():
        language = name.partition("-")[0]
        weights[language] = max(weights.get(language, 0.0), weight)
    anything = weights.get("*", 0.0)
    spanish = weights.get(Language.SPANISH, anything)
    english = weights.get(Language.ENGLISH, anything)
    if spanish == english:
        named = [name for name in weights if name in (Language.SPANISH, Language.ENGLISH)]
        return Language(named[0]) if named and spanish else Language.ENGLISH
    return Language.SPANISH if spanish > english else Language.ENGLISH
