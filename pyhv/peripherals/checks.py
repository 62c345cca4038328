"""What descriptions of devices check alike: types of their fields, and the transport of the virtio ones."""

from __future__ import annotations

from os import fspath

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.record import field_names

if TYPE_CHECKING:
    from typing import Any

TRANSPORTS = ("pci", "mmio")
_TYPES = {"str": (str, "text"), "int": (int, "a number"), "bool": (bool, "true or false")}


def check_fields(description: Any) -> None:
    """Raises ConfigError for a field that is not of its type, text with a NUL in it, or an unknown `transport`.

    A path object becomes the text that it stands for.
    """
    cls = type(description)
    for name in field_names(description):
        value = getattr(description, name)
        wanted, shown = _TYPES.get(str(cls.__annotations__[name]), (object, ""))
        if wanted is str and hasattr(value, "__fspath__"):
            value = fspath(value)
            object.__setattr__(description, name, value)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise ConfigError(f"{cls.kind}: {name}: {value!r} is not {shown}")
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{cls.kind}: {name}: {value!r} has a NUL in it")
        if name == "transport" and value not in TRANSPORTS:
            raise ConfigError(f"{cls.kind}: transport: {value!r} is not one of {', '.join(TRANSPORTS)}")


def between(kind: str, name: str, value: int, low: int, high: int, what: str = "") -> None:
    """Raises ConfigError unless `low` <= `value` <= `high`."""
    if not low <= value <= high:
        raise ConfigError(f"{kind}: {name}: '{value}' is not from {low} to {high}{what and ' ' + what}")
