"""Sizes and durations as people write them."""

from __future__ import annotations

import re

from pyhv.errors import ConfigError

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(value: int | str, option: str = "size") -> int:
    """Bytes from 268435456, "256M", "1GiB". Raises ConfigError that names `option`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or len(match[1]) > 18:
        raise ConfigError(f"{option}: {value!r} is not a size; use a number with an optional K, M, G or T, as in 256M")
    return int(match[1]) << _SHIFT[match[2].upper()]


def format_size(size: int) -> str:
    """The shortest exact form: 256M, 4K, 1000."""
    for unit in "TGMK":
        shift = _SHIFT[unit]
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)
