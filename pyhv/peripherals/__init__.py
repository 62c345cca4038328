"""Descriptions of a machine's devices: frozen records, a document each, made into devices when a machine is built.

    pyhv.Machine("vmlinuz", devices=[pyhv.Disk("root.img", readonly=True), pyhv.Net.user()])

A description says its kind ("disk"), checks its own fields, and builds its device. As text, for the command line, it is a
list such as `path=root.img,ro`: fields in any order, the first word alone being the kind's main field; two commas stand for
one.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.errors import ConfigError
from pyhv.record import default_of, field_names
from pyhv.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, ClassVar

    from pyhv.device import Device

KINDS = {
    "balloon": ("pyhv.peripherals.balloon", "Balloon"),
    "console": ("pyhv.peripherals.console", "Console"),
    "disk": ("pyhv.peripherals.disk", "Disk"),
    "entropy": ("pyhv.peripherals.entropy", "Entropy"),
    "net": ("pyhv.peripherals.net", "Net"),
    "pmem": ("pyhv.peripherals.pmem", "Pmem"),
    "share": ("pyhv.peripherals.share", "Share"),
    "vsock": ("pyhv.peripherals.vsock", "Vsock"),
    "watchdog": ("pyhv.peripherals.watchdog", "Watchdog"),
}
"""Where the description of each kind is; imported when it is used."""

TRUE, FALSE = ("", "yes", "on", "true", "1"), ("no", "off", "false", "0")


class Peripheral(Protocol):
    """A description.

    Its class may have `main`: the field that a word alone gives; `aliases`: in text, other words for a field, or for
    NAME=VALUE; `unique`: fields in which no two descriptions of the kind in one machine may be alike, unless they are
    empty; and `check_text(values)`, which sees what a text said and raises ConfigError.
    """

    kind: ClassVar[str]

    def build(self) -> Device:
        """The device for one machine. Raises ConfigError or HostError for what the host lacks."""
        ...


def class_of(kind: str) -> type[Any]:
    """The record class of a kind. Raises ConfigError."""
    where = KINDS.get(kind)
    if where is None:
        raise ConfigError(f"devices: {kind!r} is not one of {', '.join(KINDS)}")
    from importlib import import_module

    found: type[Any] = getattr(import_module(where[0]), where[1])
    return found


def to_document(device: Device | Peripheral) -> dict[str, Any]:
    """A description as plain values; fields at their defaults are left out. Raises ConfigError for a Python device."""
    kind = getattr(type(device), "kind", None)
    if kind not in KINDS:
        label = getattr(device, "label", type(device).__name__)
        raise ConfigError(f"devices: {label}: devices written in Python cannot be saved in a document")
    out: dict[str, Any] = {"kind": kind}
    for name in field_names(device):
        value = getattr(device, name)
        if value != default_of(type(device), name):
            if not isinstance(value, (str, int, bool, tuple)):
                raise ConfigError(f"devices: {kind}: {name}: {value!r} cannot be saved in a document")
            out[name] = list(value) if isinstance(value, tuple) else value
    return out


def from_documents(documents: object) -> tuple[Peripheral, ...]:
    """The inverse of `to_document`, for a list. Raises ConfigError."""
    if not isinstance(documents, list):
        raise ConfigError(f"devices: {documents!r} is not a list of tables")
    return tuple(from_document(document) for document in documents)


def from_document(document: object) -> Peripheral:
    """One description from plain values. Raises ConfigError for unknown or missing fields and wrong values."""
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise ConfigError(f"devices: {document!r} is not a table with a kind ({', '.join(KINDS)})")
    values = dict(document)
    kind = values.pop("kind")
    return _make(kind, {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def parse(kind: str, text: str) -> Peripheral:
    """A description from text such as `path=root.img,ro`. Raises ConfigError that begins with the kind."""
    cls = class_of(kind)
    values: dict[str, Any] = {}
    for number, word in enumerate(_words(text)):
        name, equals, value = _field(cls, word)
        known = name in field_names(cls)
        if not equals and number == 0 and not (known and _type(cls, name) == "bool"):
            name, value, known = getattr(cls, "main", ""), word, True
            if not name:
                raise ConfigError(f"{kind}: {word!r} is not NAME=VALUE")
        if not known:
            raise _unknown(kind, word.partition("=")[0], cls)
        converted = _convert(kind, name, value, _type(cls, name))
        if isinstance(converted, tuple):
            converted = (*values.get(name, ()), *converted)
        elif name in values:
            raise ConfigError(f"{kind}: {name}: {value or word!r} is one too many; it can be given once")
        values[name] = converted
    if hasattr(cls, "check_text"):
        cls.check_text(values)
    return _make(kind, values)


def check_together(devices: Iterable[object]) -> None:
    """Raises ConfigError for two descriptions of one machine that cannot be told apart, as shared folders of one tag."""
    seen = set()
    for device in devices:
        kind = getattr(type(device), "kind", "")
        for name in getattr(type(device), "unique", ()):
            value = getattr(device, name)
            if value and (kind, name, value) in seen:
                raise ConfigError(f"{kind}: {name}: {value!r} is there twice; each {kind} of a machine needs another")
            seen.add((kind, name, value))


def _words(text: str) -> list[str]:
    words = [""]
    for piece in text.replace(",,", "\0").split(","):
        words.append(piece.replace("\0", ","))
    return [word for word in words if word]


def _field(cls: type[Any], word: str) -> tuple[str, str, str]:
    """A word as name, "=" if that is in it, and value."""
    aliases: Mapping[str, str] = getattr(cls, "aliases", {})
    if "=" in aliases.get(word, ""):
        word = aliases[word]
    name, equals, value = word.partition("=")
    alias = aliases.get(name, name)
    return (name if "=" in alias else alias).replace("-", "_"), equals, value


def _type(cls: type[Any], name: str) -> str:
    """A field's type as it was written, without the None that it may be."""
    return str(cls.__annotations__[name]).replace(" ", "").replace("|None", "")


def _convert(kind: str, name: str, value: str, wanted: str) -> Any:
    if wanted == "bool":
        if value.lower() in TRUE or value.lower() in FALSE:
            return value.lower() in TRUE
        raise ConfigError(f"{kind}: {name}: {value!r} is not yes or no")
    if wanted == "int":
        try:
            return parse_size(value)
        except ConfigError:
            raise ConfigError(f"{kind}: {name}: {value!r} is not a number such as 4, 64K or 256M") from None
    if wanted.startswith("tuple"):
        return (value,)
    if wanted != "str":
        raise ConfigError(f"{kind}: {name}: can only be given in Python")
    return value


def _unknown(kind: str, name: str, cls: type[Any]) -> ConfigError:
    names = [field for field in field_names(cls) if _type(cls, field) in ("str", "int", "bool", "tuple[str,...]")]
    return ConfigError(f"{kind}: {name!r} is not one of {', '.join(names)}")


def _make(kind: str, values: Mapping[str, Any]) -> Peripheral:
    cls = class_of(kind)
    names = field_names(cls)
    for name in values:
        if name not in names:
            raise _unknown(kind, name, cls)
    for name in _required(cls):
        if name not in values:
            raise ConfigError(f"{kind}: {name}: missing")
    made: Peripheral = cls(**values)
    return made


def _required(cls: type[Any]) -> Iterable[str]:
    defaults = cls.__record_defaults__
    return [name for name in field_names(cls) if name not in defaults]
