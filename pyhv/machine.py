"""A machine's description: frozen, comparable, and (but for devices written in Python) a TOML or JSON document."""

from __future__ import annotations

from os import fspath

from pyhv._types import TYPE_CHECKING
from pyhv.device import Device
from pyhv.errors import ConfigError
from pyhv.record import default_of, field, field_names, record, replace
from pyhv.units import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike
    from typing import Any

    from pyhv.peripherals import Peripheral
    from pyhv.result import Result
    from pyhv.vm import Vm

FORMATS = ("auto", "flat", "multiboot", "pvh", "bzimage", "elf")
MAX_CPUS = 255
MIN_MEMORY = 1 << 20
MAX_MEMORY = 1 << 40
IRQCHIPS = ("split", "kernel")
HUGEPAGES = ("none", "transparent", "2M", "1G")
ON_RESET = ("exit", "restart")
UNPACK = ("auto", "yes", "no")


@record(frozen=True, init=False)
class Machine:
    """A virtual machine before it runs. Raises ConfigError, naming the field, for values that make no sense.

    - `kernel`: path of an image; `format` forces how it is read (see FORMATS); `initrd`: path of an initial RAM disk.
    - `modules`: "path" or "path arguments" of multiboot and PVH modules, after the initrd.
    - `memory`: bytes, or text such as "256M"; `cpus`: 1 to 255.
    - `devices`: descriptions of devices (`pyhv.Disk` and its like), and devices of a user's own (see `pyhv.device`).
    - `cpu`, `features`: CPUID template, and "+name"/"-name" changes to it.
    - `irqchip`: "split" (PIC, PIT, I/O APIC in Python) or "kernel" (all in the kernel, KVM only).
    - `hugepages`: "none", "transparent", "2M" or "1G".
    - `debug_exit`: port of the debug exit device, or None (in documents "none") to leave it out.
    - `load_address`, `entry`: for flat images, where they go and start (entry defaults to the load address).
    - `on_reset`: a guest's reset ends the run ("exit"), or starts it again ("restart").
    - `date`: what the machine's clock shows at its start, in ISO 8601, UTC unless it says otherwise. None: the host's
      time; 2026-01-01 on a deterministic backend.
    - `unpack`: a bzImage's kernel is unpacked on the host and entered directly ("yes"), or unpacks itself ("no"). "auto" is
      "yes" where it can be done and the backend is deterministic.
    - `firmware`: path of a PC firmware image that starts the machine and boots the kernel, a bzImage or a flat image, for
      those that need a BIOS.
    """

    kernel: str
    initrd: str | None = None
    cmdline: str = ""
    modules: tuple[str, ...] = ()
    memory: int = 256 << 20
    cpus: int = 1
    format: str = "auto"
    devices: tuple[Device | Peripheral, ...] = ()
    cpu: str = "host"
    features: tuple[str, ...] = ()
    irqchip: str = "split"
    hugepages: str = "none"
    debug_exit: int | None = 0xF4
    load_address: int = 0x7C00
    entry: int | None = None
    on_reset: str = "exit"
    date: str | None = None
    unpack: str = "auto"
    firmware: str | None = None
    name: str = field(default="", compare=False)

    def __init__(
        self,
        kernel: str | PathLike[str],
        *,
        initrd: str | PathLike[str] | None = None,
        cmdline: str = "",
        modules: Iterable[str] = (),
        memory: int | str = "256M",
        cpus: int = 1,
        format: str = "auto",
        devices: Iterable[Device | Peripheral] = (),
        cpu: str = "host",
        features: Iterable[str] = (),
        irqchip: str = "split",
        hugepages: str = "none",
        debug_exit: int | str | None = 0xF4,
        load_address: int = 0x7C00,
        entry: int | None = None,
        on_reset: str = "exit",
        date: str | None = None,
        unpack: str = "auto",
        firmware: str | PathLike[str] | None = None,
        name: str = "",
    ) -> None:
        put = object.__setattr__
        put(self, "kernel", _path("kernel", kernel))
        put(self, "initrd", None if initrd is None else _path("initrd", initrd))
        put(self, "cmdline", _text("cmdline", cmdline))
        put(self, "modules", _texts("modules", modules))
        put(self, "memory", _memory(memory))
        put(self, "cpus", _integer("cpus", cpus, 1, MAX_CPUS))
        put(self, "format", _choice("format", format, FORMATS))
        put(self, "devices", _devices(devices))
        put(self, "cpu", _text("cpu", cpu))
        put(self, "features", _features(features))
        put(self, "irqchip", _choice("irqchip", irqchip, IRQCHIPS))
        put(self, "hugepages", _choice("hugepages", hugepages, HUGEPAGES))
        no_debug_exit = debug_exit is None or debug_exit == "none"
        put(self, "debug_exit", None if no_debug_exit else _integer("debug_exit", debug_exit, 0, 0xFFFC))
        put(self, "load_address", _integer("load_address", load_address, 0, (1 << 32) - 1))
        put(self, "entry", None if entry is None else _integer("entry", entry, 0, (1 << 32) - 1))
        put(self, "on_reset", _choice("on_reset", on_reset, ON_RESET))
        put(self, "date", None if date is None else _date(date))
        put(self, "unpack", _choice("unpack", unpack, UNPACK))
        put(self, "firmware", None if firmware is None else _path("firmware", firmware))
        put(self, "name", _text("name", name))

    def replace(self, **changes: Any) -> Machine:
        """A copy with some fields changed and checked."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields at their defaults are left out. Raises ConfigError when there are Python devices."""
        out: dict[str, Any] = {}
        for name in field_names(self):
            value = getattr(self, name)
            if name == "devices":
                if value:
                    from pyhv.peripherals import to_document

                    out[name] = [to_document(device) for device in value]
            elif name == "kernel" or value != default_of(Machine, name):
                out[name] = list(value) if isinstance(value, tuple) else "none" if value is None else value
        if "memory" in out:
            out["memory"] = format_size(self.memory)
        return out

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Machine:
        """The inverse of `to_dict`. Raises ConfigError for unknown or missing fields and wrong values."""
        known = set(field_names(cls))
        for key in document:
            if key not in known:
                shown = key if key.isidentifier() else repr(key)
                raise ConfigError(f"{shown}: not a field of a machine; there are {', '.join(sorted(known))}")
        if "kernel" not in document:
            raise ConfigError("kernel: missing; a machine needs an image to boot")
        if "devices" in document:
            from pyhv.peripherals import from_documents

            return cls(**{**document, "devices": from_documents(document["devices"])})
        return cls(**document)

    def to_json(self) -> str:
        """The machine as a JSON object."""
        import json

        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Machine:
        """Read a JSON object. Raises ConfigError."""
        import json

        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"machine: not JSON: {error}") from None
        if not isinstance(document, dict):
            raise ConfigError("machine: the JSON document is not an object")
        return cls.from_dict(document)

    def to_toml(self) -> str:
        """The machine as a TOML document."""
        import json

        # JSON's numbers, arrays and strings are TOML's as well, but for DEL, and for pairs of surrogates as escapes.
        return "".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
            for key, value in self._toml_pairs()
        )

    def _toml_pairs(self) -> Iterable[tuple[str, Any]]:
        """Keys and plain values; in TOML a device is a table of its own, at the end."""
        document = self.to_dict()
        devices = document.pop("devices", ())
        yield from document.items()
        for device in devices:
            for number, (key, value) in enumerate(device.items()):
                yield f"[[devices]]\n{key}" if number == 0 else key, value

    @classmethod
    def from_toml(cls, text: str) -> Machine:
        """Read a TOML document. Raises ConfigError."""
        import tomllib

        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"machine: not TOML: {error}") from None
        return cls.from_dict(document)

    def start(self, *, backend: str = "auto", seed: int = 0, **options: Any) -> Vm:
        """Build and start this machine; options as of `pyhv.vm.start`. Use the Vm as a context manager."""
        from pyhv.vm import start

        return start(self, backend=backend, seed=seed, **options)

    def run(self, *, timeout: float | None = None, backend: str = "auto", seed: int = 0) -> Result:
        """Run to the end and give the verdict; the same as `pyhv.run(machine, ...)`."""
        from pyhv.vm import run

        return run(self, timeout=timeout, backend=backend, seed=seed)


def _path(name: str, value: str | PathLike[str]) -> str:
    try:
        path = fspath(value)
    except TypeError:
        raise ConfigError(f"{name}: {value!r} is not a path") from None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"{name}: {path!r} is not a path")
    return path


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name}: {value!r} is not text")
    if "\0" in value:
        raise ConfigError(f"{name}: {value!r} contains a NUL character")
    return value


def _texts(name: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ConfigError(f"{name}: {values!r} is not a list of texts")
    return tuple(_text(name, v) for v in values)


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}: {value!r} is not an integer from {low} to {high}")
    return value


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(choices)}")
    return value


def _date(value: object) -> str:
    text = _text("date", value)
    date_ns(text)
    return text


def date_ns(text: str) -> int:
    """A date in ISO 8601 as nanoseconds since 1970, UTC. Raises ConfigError."""
    from datetime import UTC, datetime

    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        passed = when - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        passed = None
    if passed is None or passed.days < 0:
        raise ConfigError(f"date: {text!r} is not a date from 1970 on, as in 2026-12-31 or 2026-12-31T23:59:50")
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1_000


def _memory(value: int | str) -> int:
    size = parse_size(value, "memory") if isinstance(value, (int, str)) and not isinstance(value, bool) else -1
    if size < MIN_MEMORY or size > MAX_MEMORY:
        raise ConfigError(f"memory: {value!r} is not from {format_size(MIN_MEMORY)} to {format_size(MAX_MEMORY)}")
    return (size + 0xFFF) & ~0xFFF


def _devices(values: Iterable[Device | Peripheral]) -> tuple[Device | Peripheral, ...]:
    try:
        devices = tuple(values)
    except TypeError:
        raise ConfigError(f"devices: {values!r} is not a list of devices") from None
    for device in devices:
        if isinstance(device, type) or not (isinstance(device, Device) or hasattr(type(device), "build")):
            raise ConfigError(f"devices: {device!r} is not a pyhv.Device instance, nor a description such as pyhv.Disk")
    if len(devices) > 1:
        from pyhv.peripherals import check_together

        check_together(devices)
    return devices


def _features(values: object) -> tuple[str, ...]:
    features = _texts("features", values)
    for feature in features:
        if len(feature) < 2 or feature[0] not in "+-":
            raise ConfigError(f"features: {feature!r} is not +NAME or -NAME")
    return features
