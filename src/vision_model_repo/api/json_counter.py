"""Counting the brackets, colons and commas of JSON outside of its strings, piece by piece, before it is parsed."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from vision_model_repo.api.json_bounds import JsonSize, lists_of, most_of
from vision_model_repo.errors import TooLarge
from vision_model_repo.settings import Settings

PIECE_BYTES = 65_536
"""Counted at once, in 0.2 ms where it is nothing but brackets; the event loop has its turn between two pieces."""
LARGE_BYTES = 2**20
"""More is not looked at between two turns of the event loop, even if there is nothing to count."""
BYTES_EACH = 64
"""Most bytes that a number may take with the blanks around it, on average."""
ESCAPE_BYTES = 3
"""What an escape counts as: most letters that are written as one take so many bytes without."""
SIGNS = {"lists": b"[", "objects": b"{", "members": b":", "commas": b","}


class JsonCounter:
    """Counts a body piece by piece, outside of its strings.

    Args:
        model: schema of the body.
    """

    def __init__(self, model: type[BaseModel], settings: Settings) -> None:
        self._most = most = most_of(model, settings)
        self._model = model
        # Such text takes thirty times as long to read.
        self._max_text_mb = settings.max_text_mb
        total = most.lists + most.objects + most.members + most.commas
        # Each string is a member's name or a value, and each value has a sign of its own but one.
        self._most_quotes = 4 * (total + 1)
        self._most_bytes = BYTES_EACH * (total + 1)
        self.size = JsonSize()
        self._quotes = self._bytes = self._text_bytes = 0
        self._in_string = False
        self._held = b""

    async def add_all(self, data: bytes) -> None:
        """Counts the next part of a body, however large. Raises TooLarge."""
        if self._is_within_string(data):
            return
        for start in range(0, len(data), PIECE_BYTES):
            if start:
                await asyncio.sleep(0)
            self.add(data[start : start + PIECE_BYTES])

    def _is_within_string(self, data: bytes) -> bool:
        """Whether data is a part of a long string, such as an image, of which nothing is to be counted."""
        usual = self._in_string and not self._held and len(data) <= LARGE_BYTES
        return usual and data.isascii() and b'"' not in data and b"\\" not in data

    async def add_text(self, text: str) -> None:
        """Counts a document of its own, such as a field of a form. Raises TooLarge."""
        self._in_string, self._held = False, b""
        await self.add_all(text.encode(errors="replace"))

    def add(self, piece: bytes) -> None:
        """Counts the next piece, of up to `PIECE_BYTES`. Raises TooLarge."""
        piece, self._held = self._held + piece, b""
        if b"\\" in piece:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                # What it escapes comes with the next piece.
                piece, self._held = piece[:-1], b"\\"
            self._text_bytes += ESCAPE_BYTES * piece.count(b"\\")
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        if not piece.isascii():
            self._text_bytes += len(piece)
        if self._text_bytes > self._max_text_mb * 2**20:
            raise TooLarge(
                f"The body has more than {self._max_text_mb} MB of text that is not plain ASCII, or of escapes. Send "
                "fewer or shorter texts, and images as base64."
            )
        # Of a long string, such as an image, this is all there is to do.
        if self._in_string and b'"' not in piece:
            return
        parts = piece.split(b'"')
        self._count(b"".join(parts[self._in_string :: 2]))
        self._quotes += len(parts) - 1
        if self._quotes > self._most_quotes:
            raise self._refusal("strings", self._most_quotes // 2)
        self._in_string ^= len(parts) % 2 == 0

    def _count(self, outside: bytes) -> None:
        for name, sign in SIGNS.items():
            most, count = getattr(self._most, name), getattr(self.size, name) + outside.count(sign)
            setattr(self.size, name, count)
            if count > most:
                raise self._refusal(name, most)
        self._bytes += len(outside)
        if self._bytes > self._most_bytes:
            raise TooLarge(
                f"The body has more than {self._most_bytes} bytes of numbers and blanks. Send fewer or shorter ones."
            )

    def _refusal(self, name: str, most: int) -> TooLarge:
        lists = ", ".join(lists_of(self._model))
        advice = f"Send shorter lists ({lists})." if lists else "Send fewer."
        return TooLarge(f"The body has more than {most} {name}, and no request to this route needs so many. {advice}")
