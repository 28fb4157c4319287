from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.storage.sealed import seal, unseal

texts = st.binary(max_size=40).filter(lambda text: b"\n" not in text)


@given(texts)
def test_what_was_sealed_is_read_back(text: bytes) -> None:
    assert unseal(seal(text)) == text


@given(texts, st.data())
def test_any_change_is_noticed(text: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(text))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert unseal(bytes(sealed)) != text


def test_nothing_is_no_sealed_line() -> None:
    assert unseal(b"") is None
