from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.web.negotiation import best_media_type, qualities


@pytest.mark.parametrize(
    ("header", "weights"),
    [
        ("", {}),
        ("gzip", {"gzip": 1.0}),
        ("GZip;Q=0.5 , br ;  q=1.000", {"gzip": 0.5, "br": 1.0}),
        ("text/csv;charset=utf-8;q=0.25, */*", {"text/csv": 0.25, "*/*": 1.0}),
        ("a;q=2, b;q=0.1234, c;q=-1, d;q=, e f, ;, g;q=0", {"g": 0.0}),
        ("es;q=0.1, es;q=0.9", {"es": 0.1}),
    ],
)
def test_weights(header: str, weights: dict[str, float]) -> None:
    assert qualities(header) == weights
    assert list(qualities(header)) == list(weights)


@given(st.text(max_size=300))
def test_any_header_is_read(header: str) -> None:
    assert all(0 <= weight <= 1 for weight in qualities(header).values())


def test_only_the_first_elements_count() -> None:
    assert len(qualities(",".join(f"x{number}" for number in range(1000)))) == 64


OFFERED = ("application/x-ndjson", "text/csv")


@pytest.mark.parametrize(
    ("header", "best"),
    [
        (None, "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv;q=0.4, application/*;q=0.3", "text/csv"),
        ("text/*;q=0.9, text/csv;q=0.1, */*;q=0.5", "application/x-ndjson"),
        ("text/csv;q=0, */*;q=0.1", "application/x-ndjson"),
        ("text/html", None),
        ("", None),
        ("*/*;q=0", None),
    ],
)
def test_best_media_type(header: str | None, best: str | None) -> None:
    assert best_media_type(header, OFFERED) == best
