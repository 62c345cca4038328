"""What the guest's init is to do: a file of NUL-terminated "name=value" strings, which init/job.c reads."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.record import field, record

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE_LIMIT = (1 << 20) - 1
COUNT_LIMIT = 1 << 15
"""Arguments, variables or modules."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME_LIMIT = 64

CONTROL, INPUT, OUTPUT, ERRORS, TERMINAL = (f"pyhv.{name}" for name in ("control", "stdin", "stdout", "stderr", "tty"))
"""Names of the console's ports."""


@record(frozen=True)
class Network:
    """Static addresses of eth0, as dotted quads."""

    address: str
    netmask: str
    gateway: str = ""
    nameserver: str = ""


USER_NETWORK = Network("10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3")
"""What libslirp's network is, unless told otherwise."""


@record(frozen=True)
class Job:
    """One command and what is around it.

    - `tag`: of the virtio-fs that is the root; None: the initramfs itself. `writable`: writes go to it, not to memory.
    - `modules`: paths in the initramfs, in load order; `module_tree`: a folder of the root to show as /lib/modules/`release`.
    - `stdin`: whether it has any; `terminal`: columns and rows of its terminal, instead of three streams.

    Raises ConfigError for what no guest could be told.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    tag: str | None = None
    writable: bool = False
    hostname: str = "pyhv"
    modules: tuple[str, ...] = ()
    module_tree: str | None = None
    release: str = ""
    network: Network | None = None
    stdin: bool = False
    terminal: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ConfigError("command: it is empty")
        if not 0 < len(os.fsencode(self.hostname)) <= HOSTNAME_LIMIT:
            raise ConfigError(f"hostname: {self.hostname!r} is not a name of at most {HOSTNAME_LIMIT} bytes")
        for name in self.environment:
            if not name or "=" in name:
                raise ConfigError(f"environment: {name!r} is not a variable's name")

    def encode(self) -> bytes:
        """The job file. Raises ConfigError where it would be too long."""
        lists = (
            ("module", self.modules),
            ("argument", self.command),
            ("variable", [f"{name}={value}" for name, value in self.environment.items()]),
        )
        for name, values in lists:
            if len(values) > COUNT_LIMIT:
                raise ConfigError(f"command: {len(values)} of {name} are too many; at most {COUNT_LIMIT} are taken")
        entries = [("control", CONTROL), *self._streams(), ("directory", self.directory), ("hostname", self.hostname)]
        entries += [("root", "none")] if self.tag is None else [("root", "share"), ("tag", self.tag)]
        entries += [("writable", str(int(self.writable)))]
        if self.module_tree is not None and self.release:
            entries += [("modules", self.module_tree), ("release", self.release)]
        if self.network is not None:
            fields = ("address", "netmask", "gateway", "nameserver")
            entries += [(name, getattr(self.network, name)) for name in fields if getattr(self.network, name)]
        entries += [(name, value) for name, values in lists for value in values]
        return _pack(entries)

    def _streams(self) -> list[tuple[str, str]]:
        if self.terminal is not None:
            columns, rows = self.terminal
            return [("terminal", TERMINAL), ("rows", str(rows)), ("columns", str(columns))]
        streams = [("output", OUTPUT), ("errors", ERRORS)]
        return [*streams, ("input", INPUT)] if self.stdin else streams


def _pack(entries: list[tuple[str, str]]) -> bytes:
    chunks = []
    for name, value in entries:
        if "\0" in value:
            raise ConfigError(f"{name}: {value!r} contains a NUL character")
        try:
            chunks.append(os.fsencode(f"{name}={value}") + b"\0")
        except UnicodeEncodeError:
            raise ConfigError(f"{name}: {value!r} cannot be encoded") from None
    data = b"".join(chunks)
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"command: with its environment it is {len(data)} bytes; at most {SIZE_LIMIT} are taken")
    return data
