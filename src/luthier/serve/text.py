"""Tokens to text while they arrive: whole characters only, and nothing that may still become a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "�"  # what decoders put for bytes that are not a character yet
MAX_OPEN = 16  # tokens after which broken bytes are taken as they are: no character is that long


class TextStream:
    """Feeds on tokens, gives the text that is certain. The deltas joined equal the decoded whole (up to a stop)."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()):
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._shown = self._read = 0  # ids before _read are in the text; decoding starts at _shown for their context
        self._held = ""
        self.stopped = False
        """A stop string was found; the text ends before it and later tokens are ignored."""

    def push(self, tokens: Sequence[int]) -> str:
        """The text that became certain through these tokens."""
        if self.stopped:
            return ""
        self._ids.extend(tokens)
        return self._release(self._advance(final=False), final=False)

    def flush(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return ""
        return self._release(self._advance(final=True), final=True)

    def _advance(self, *, final: bool) -> str:
        known = self._decode(self._ids[self._shown : self._read])
        text = self._decode(self._ids[self._shown :])
        open_ids = len(self._ids) - self._read
        if text.endswith(BROKEN) and not final and open_ids < MAX_OPEN:
            return ""
        self._shown, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _release(self, fresh: str, *, final: bool) -> str:
        text = self._held + fresh
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        hold = 0 if final else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that could be the beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
