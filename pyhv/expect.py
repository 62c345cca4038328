"""Waiting for a pattern in growing output: what `Console.expect` stands on."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.console import replace_invalid

if TYPE_CHECKING:
    import re
    from typing import Any

LOOKBACK = 4096
"""Bytes before new output that a search covers again at once; a longer match is found by the full searches."""
CONTEXT = 256
"""Bytes before that, for ^, \\b and lookbehind."""
GROWTH = 4
"""A full search runs when the output grew by 1/GROWTH since the last, or paused: linear work for any amount of it."""


class Search:
    """One expectation over growing output; positions are absolute (they count dropped bytes)."""

    def __init__(self, pattern: re.Pattern[Any], start: int) -> None:
        self.pattern = pattern
        self.start = start
        self.end = start
        self._scanned = start
        self._full = start

    @property
    def behind(self) -> bool:
        """Whether output came since the last full search."""
        return self._scanned != self._full

    def look(self, data: bytearray, dropped: int, *, full: bool) -> re.Match[Any] | None:
        """Search what came since; with `full`, or when much came, everything since the last match."""
        start = max(self.start, dropped)
        stop = dropped + len(data)
        if full or (stop - self._full) * GROWTH >= self._full - start:
            self._full = self._scanned = stop
            return self._search(data, dropped, start)
        resume = max(start, self._scanned - LOOKBACK)
        self._scanned = stop
        if self._search(data, dropped, resume) is None:
            return None
        self._full = stop
        return self._search(data, dropped, start)

    def _search(self, data: bytearray, dropped: int, start: int) -> re.Match[Any] | None:
        """Search from `start`, showing the pattern a little of what is before."""
        base = max(dropped, start - CONTEXT)
        before = start - base
        window = bytes(data[base - dropped :])
        match: re.Match[Any] | None
        if isinstance(self.pattern.pattern, bytes):
            match = self.pattern.search(window, before)
            if match is not None:
                self.end = base + match.end()
            return match
        raw = window.decode("utf-8", "surrogateescape")
        skip = len(window[:before].decode("utf-8", "surrogateescape"))
        match = self.pattern.search(replace_invalid(raw), skip)
        if match is not None:
            self.end = base + len(raw[: match.end()].encode("utf-8", "surrogateescape"))
        return match
