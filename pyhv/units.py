"""Sizes and durations as people write them."""

from __future__ import annotations

from pyhv.errors import ConfigError

_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_MAX_DIGITS = 18
_MAX_SECONDS = 1e9


def parse_size(value: int | str, option: str = "size") -> int:
    """Bytes from 268435456, "256M", "1GiB". Raises ConfigError that names `option`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number, unit = _split(value.strip().upper()) if isinstance(value, str) else ("", "")
    if not 0 < len(number) <= _MAX_DIGITS or unit not in _SHIFT:
        raise ConfigError(f"{option}: {value!r} is not a size; use a number with an optional K, M, G or T, as in 256M")
    return int(number) << _SHIFT[unit]


def check_timeout(value: object) -> None:
    """Raises ConfigError unless it is a number of seconds that one can wait, or None for no limit; below 0 is as 0."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value <= _MAX_SECONDS):
        return
    raise ConfigError(f"timeout: {value!r} is not a number of seconds up to {_MAX_SECONDS:.0e}, nor None for no limit")


def _split(text: str) -> tuple[str, str]:
    """"256MIB" to "256" and "M"; the number is empty where there is none."""
    unit = text.lstrip("0123456789")
    number = text[: len(text) - len(unit)]
    if not number.isascii():
        return "", ""
    return number, unit.strip().removesuffix("B").removesuffix("I")


def format_size(size: int) -> str:
    """The shortest exact form: 256M, 4K, 1000."""
    for unit in "TGMK":
        shift = _SHIFT[unit]
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)
