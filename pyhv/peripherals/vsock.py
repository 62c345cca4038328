"""A socket device, as a machine's description says it."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from typing import ClassVar

    from pyhv.device import Device

MAX_PATH = 96
"""A Unix socket's address has 108 bytes, and "_4294967295" is appended to it."""


@record(frozen=True)
class Vsock:
    """AF_VSOCK sockets of the guest, joined to Unix sockets of the host as Firecracker does.

    To port 1234 of the guest: connect to the socket `path`, send "CONNECT 1234" and a newline, read "OK ..." in answer. From
    the guest to port 1234 of the host (CID 2): listen at `path_1234`. `cid` is the guest's own. Raises ConfigError.
    """

    kind: ClassVar[str] = "vsock"
    main: ClassVar[str] = "path"
    unique: ClassVar[tuple[str, ...]] = ("cid",)

    path: str
    cid: int = 3
    max_connections: int = 256
    transport: str = "pci"

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < len(os.fsencode(self.path)) <= MAX_PATH or "\0" in self.path:
            raise ConfigError(f"vsock: path: {self.path!r} is not a path of 1 to {MAX_PATH} bytes")
        between("vsock", "cid", self.cid, 3, 0xFFFF_FFFE)
        between("vsock", "max_connections", self.max_connections, 1, 1 << 16)

    def build(self) -> Device:
        """The device."""
        from pyhv.virtio.vsock import VirtioVsock

        return VirtioVsock(
            path=self.path, cid=self.cid, max_connections=self.max_connections, transport=self.transport
        )
