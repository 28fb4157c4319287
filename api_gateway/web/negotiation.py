"""What a client prefers, by the quality values of its Accept headers.

Source: RFC 9110, 12.4 and 12.5.
"""

from __future__ import annotations

import re
from typing import Final

# token or media range, then parameters of which only the weight counts.
_ELEMENT: Final = re.compile(
    r"[ \t]*(?P<range>[!#$%&'*+.^_`|~0-9A-Za-z/-]+)(?P<parameters>(?:[ \t]*;[^;,]*)*)[ \t]*"
)
_WEIGHT: Final = re.compile(r";[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|$)", re.I)
_ELEMENTS_MAX: Final = 64


def qualities(header: str) -> dict[str, float]:
    """Each range of an Accept header, in lower case, and its weight from 0 to 1, in their order.

    Elements that break the grammar are left out, and so is what comes after the first 64: the
    header is a wish, and a request is not refused for a bad one.
    """
    weights: dict[str, float] = {}
    for element in header.split(",", _ELEMENTS_MAX)[:_ELEMENTS_MAX]:
        if not (match := _ELEMENT.fullmatch(element)):
            continue
        parameters = match["parameters"]
        weight = _WEIGHT.search(parameters)
        if weight is None and re.search(r";[ \t]*q=", parameters, re.I):
            continue
        weights.setdefault(match["range"].lower(), float(weight[1]) if weight else 1.0)
    return weights


def best_media_type(header: str | None, offered: tuple[str, ...]) -> str | None:
    """The media type that the client likes best; None if it accepts none of them.

    Args:
        header: Accept, or None when there is none, which accepts anything.
        offered: Lower case, without parameters; among equals the first one is taken.
    """
    weights = qualities(header) if header is not None else {"*/*": 1.0}
    ranked = [(_media_quality(weights, name), name) for name in offered]
    quality, best = max(ranked, key=lambda pair: pair[0])
    return best if quality > 0 else None


def _media_quality(weights: dict[str, float], media_type: str) -> float:
    """The most specific range decides."""
    for accepted in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if accepted in weights:
            return weights[accepted]
    return 0.0
