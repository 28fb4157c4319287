"""JSON values of all kinds, for hypothesis."""

from __future__ import annotations

from typing import Final

import orjson
from hypothesis import strategies as st

# Everything but lone surrogates, which no UTF-8 holds.
TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
# As it may stand in a text: other than a library would write it.
_WRITTEN: Final = st.sampled_from([b"1.0", b"1.0e0", b"1E5", b'"\\u00f1"', b'"\\/"', b"-0"])
_ENCODED: Final = st.recursive(
    (st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT).map(orjson.dumps) | _WRITTEN,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: b"[%b]" % b",".join(values))
        | st.dictionaries(TEXT, inner, max_size=3).map(lambda members: _object_of(members))
    ),
    max_leaves=6,
)


def _object_of(members: dict[str, bytes]) -> bytes:
    named = (b"%b:%b" % (orjson.dumps(name), value) for name, value in members.items())
    return b"{%b}" % b",".join(named)


OBJECTS: Final = st.dictionaries(TEXT, _ENCODED, max_size=4).map(_object_of)
"""Objects without white space between their tokens, as bytes."""
