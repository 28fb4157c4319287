from __future__ import annotations

import pytest

from api_gateway.web.languages import Language, preferred_language


@pytest.mark.parametrize(
    "header",
    ["es", "ES", "es-MX", "es-419,es;q=0.9,en;q=0.8", "es,en", "fr, es;q=0.5", "en;q=0.2, *"],
)
def test_spanish(header: str) -> None:
    assert preferred_language(header) is Language.SPANISH


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "en",
        "en,es",
        "es;q=0.5,en-GB;q=0.6",
        "*",
        "fr",
        "es;q=0",
        "es;q=0, en;q=0",
        "es;q=7",
        "español",
    ],
)
def test_english_otherwise(header: str | None) -> None:
    assert preferred_language(header) is Language.ENGLISH
