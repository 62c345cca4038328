"""A console of one port whose host side is a file or a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import stat

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.virtio.console import VirtioConsole
from pyhv.virtio.console_stream import PortStream

if TYPE_CHECKING:
    from typing import Final

    from pyhv.virtio.console_port import VirtioPort
    from pyhv.virtio.transport import Transport

CONNECT_SECONDS: Final = 5.0


class HostConsole(VirtioConsole):
    """`output`: a file (made or emptied) or FIFO for what the guest writes; or `socket`: a Unix socket to connect to, for
    both directions. Both are opened when the device is attached, which raises ConfigError.
    """

    def __init__(self, port: VirtioPort, *, output: str = "", socket: str = "", transport: str = "pci") -> None:
        super().__init__((port,), transport=transport)
        self.live = bool(socket)  # and a FIFO is, as it can make the guest wait
        self._output = output
        self._socket = socket
        self._fd = -1
        self._stream: PortStream | None = None

    def connect(self, link: Transport) -> None:
        port = self.ports[0]
        if self._socket:
            self._fd = _connect(self._socket)
            self._stream = PortStream(port, source=self._fd, sink=self._fd, peer=True)
        else:
            self._fd = _open(self._output)
            self._stream = PortStream(port, sink=self._fd)
        self.live = not stat.S_ISREG(os.fstat(self._fd).st_mode)
        super().connect(link)
        self._stream.start(self.platform.events)

    def close(self) -> None:
        super().close()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        reason = "nobody reads this FIFO" if error.errno == errno.ENXIO else error.strerror
        raise ConfigError(f"console: output: '{path}' cannot be opened for writing: {reason}") from None


def _connect(path: str) -> int:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.settimeout(CONNECT_SECONDS)
        peer.connect(path)
        peer.setblocking(False)
        return peer.detach()
    except OSError as error:
        peer.close()
        raise ConfigError(f"console: socket: '{path}' cannot be connected to: {error.strerror or error}") from None
