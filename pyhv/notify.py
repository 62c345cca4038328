"""Notifications without exits: a guest's write as an event (ioeventfd), an interrupt message by an event (irqfd).

Both are the plain thing on a backend that lacks them: the write arrives at the bus, the message goes to the local APICs.
"""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.errors import HostError
from pyhv.log import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.events import HostEvents
    from pyhv.hv.api import VmHandle
    from pyhv.irq import Msi


class Doorbell:
    """Guest writes to one address that signal an eventfd instead of stopping the vCPU; `callback` follows each, merged."""

    def __init__(
        self,
        handle: VmHandle,
        events: HostEvents,
        callback: Callable[[], None],
        address: int,
        size: int,
        *,
        pio: bool = False,
        datamatch: int | None = None,
    ) -> None:
        self._handle = handle
        self._events = events
        self._callback = callback
        self._where = (address, size, pio, datamatch)
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            handle.add_ioeventfd(self._fd, address, size, pio=pio, datamatch=datamatch)
            try:
                events.add_reader(self._fd, self._ring)
            except BaseException:
                handle.remove_ioeventfd(self._fd, address, size, pio=pio, datamatch=datamatch)
                raise
        except BaseException:
            os.close(self._fd)
            raise

    def _ring(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
        self._callback()

    def close(self) -> None:
        """Let the writes be exits again. A ring that nobody has heard yet is heard now. Idempotent."""
        if self._fd < 0:
            return
        fd = self._fd
        address, size, pio, datamatch = self._where
        self._handle.remove_ioeventfd(fd, address, size, pio=pio, datamatch=datamatch)
        self._events.remove_reader(fd)
        self._ring()
        self._fd = -1
        os.close(fd)


class MessageSource(Protocol):
    """One message-signalled interrupt of a device."""

    def set(self, message: Msi | None) -> None:
        """What `send` delivers from now on; None for nothing."""
        ...

    def send(self) -> None:
        """Deliver the message."""
        ...

    def close(self) -> None:
        """Give the backend's resources back. Idempotent."""
        ...


class DirectMessage:
    """A message that the VMM hands to the local APICs itself."""

    __slots__ = ("_message", "_send")

    def __init__(self, send: Callable[[Msi], None]) -> None:
        self._send = send
        self._message: Msi | None = None

    def set(self, message: Msi | None) -> None:
        self._message = message

    def send(self) -> None:
        if self._message is not None:
            self._send(self._message)

    def close(self) -> None:
        self._message = None


class MessageRoutes:
    """The GSIs above the I/O APIC's pins, `first` to `last`, that carry messages, each with an eventfd (irqfd)."""

    def __init__(self, handle: VmHandle, first: int, last: int, changed: Callable[[], None]) -> None:
        self.routes: dict[int, Msi] = {}
        self._handle = handle
        self._next = first
        self._last = last
        self._free: list[int] = []
        self._changed = changed

    def source(self) -> MessageSource:
        """A new message, on a GSI of its own; where none is left the VMM sends it."""
        if self._free:
            return IrqfdMessage(self, self._handle, self._free.pop())
        if self._next > self._last:
            return DirectMessage(self._handle.signal_msi)
        self._next += 1
        return IrqfdMessage(self, self._handle, self._next - 1)

    def change(self, gsi: int, message: Msi | None) -> None:
        """Route a GSI anew; tells the backend where that changes anything. A route that it refuses is none."""
        if self.routes.get(gsi) == message:
            return
        if message is None:
            del self.routes[gsi]
        else:
            self.routes[gsi] = message
        try:
            self._changed()
        except HostError:
            self.routes.pop(gsi, None)
            raise

    def give_back(self, gsi: int) -> None:
        """The GSI can be another message's."""
        self.change(gsi, None)
        self._free.append(gsi)


class IrqfdMessage:
    """A message that leaves by an eventfd: any thread, or another process, may send it without the VMM.

    Where the host has no more descriptors or routes to give, the VMM sends it.
    """

    def __init__(self, routes: MessageRoutes, handle: VmHandle, gsi: int) -> None:
        self._routes = routes
        self._handle = handle
        self._gsi = gsi
        self._fd = -1
        self._message: Msi | None = None

    def set(self, message: Msi | None) -> None:
        self._message = message
        try:
            self._routes.change(self._gsi, message)
            if message is not None and self._fd < 0:
                self._connect()
        except (HostError, OSError) as error:
            event("irqfd_refused", gsi=self._gsi, error=str(error))
            self._disconnect()

    def _connect(self) -> None:
        fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._handle.add_irqfd(fd, self._gsi)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _disconnect(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._handle.remove_irqfd(fd, self._gsi)
            os.close(fd)

    def send(self) -> None:
        if self._message is None:
            return
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)
        else:
            self._handle.signal_msi(self._message)

    def close(self) -> None:
        if self._gsi < 0:
            return
        self._disconnect()
        self._message = None
        self._routes.give_back(self._gsi)
        self._gsi = -1
