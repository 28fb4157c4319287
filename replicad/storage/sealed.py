"""One line of text that ends with its own SHA-256: `<text> <64 hex digits>`.

For small files that say what must not be misread. A disk that flips a bit in them is found out.
"""

from __future__ import annotations

from hashlib import sha256


def seal(text: bytes) -> bytes:
    """The line, with its newline. The text holds no line break."""
    return b"%b %b\n" % (text, sha256(text).hexdigest().encode())


def unseal(data: bytes) -> bytes | None:
    """The text of a sealed line; None if anything about it is wrong."""
    text, _, _ = data.rpartition(b" ")
    return text if data == seal(text) else None
