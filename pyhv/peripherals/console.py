"""A virtio console, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from typing import ClassVar

    from pyhv.device import Device

MAX_NAME = 128


@record(frozen=True)
class Console:
    """A terminal (Linux: /dev/hvc0), or with a `name` a byte stream (/dev/virtio-ports/NAME).

    What the guest writes goes to `output`, a file or a FIFO that somebody reads; or both directions to `socket`, the path of
    a Unix socket that listens. `columns` and `rows` are the terminal's size, 0 for unknown. Raises ConfigError.
    """

    kind: ClassVar[str] = "console"
    main: ClassVar[str] = "output"
    unique: ClassVar[tuple[str, ...]] = ("output", "name")

    output: str = ""
    socket: str = ""
    name: str = ""
    columns: int = 0
    rows: int = 0
    transport: str = "pci"

    def __post_init__(self) -> None:
        check_fields(self)
        if bool(self.output) == bool(self.socket):
            raise ConfigError("console: output: a file, or socket: a Unix socket; one of the two is needed")
        if len(self.name.encode(errors="replace")) > MAX_NAME or "/" in self.name or "\0" in self.name:
            raise ConfigError(f"console: name: {self.name!r} is not a name of at most {MAX_NAME} bytes without / in it")
        between("console", "columns", self.columns, 0, 0xFFFF)
        between("console", "rows", self.rows, 0, 0xFFFF)

    def build(self) -> Device:
        """The device."""
        from pyhv.virtio.console_host import HostConsole
        from pyhv.virtio.console_port import VirtioPort

        port = VirtioPort(self.name, console=not self.name)
        port.resize(self.columns, self.rows)
        return HostConsole(port, output=self.output, socket=self.socket, transport=self.transport)
