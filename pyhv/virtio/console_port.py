"""One port of a virtio console, as the host's side of it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pyhv.virtio.console import VirtioConsole
    from pyhv.virtio.queue import Chain

INPUT_LIMIT: Final = 1 << 16
"""Bytes of input that wait for the guest before `input` takes no more."""
MAX_SIDE: Final = 0xFFFF


class VirtioPort:
    """A byte stream in both directions between a program on the host and one in the guest.

        out = bytearray()
        stdin, stdout = VirtioPort("stdin"), VirtioPort("stdout", output=out.extend)
        console = VirtioConsole([stdin, stdout])
        stdin.input(b"to the guest")
        stdin.close()                       # the guest reads end of file after that

    `name` is what a guest finds it by (Linux: /dev/virtio-ports/NAME); a `console` port is a terminal (/dev/hvc0).

    - `output(data)` takes what the guest wrote; nothing is ever dropped. It may call `pause()`: the guest then waits,
      until `resume()`.
    - `input(data)` takes what there is room for; `on_room()` tells that there is room again. It waits until the guest has
      opened the port.
    - `on_open(opened)` hears the guest open and close the port; `guest_open` tells it.

    Callbacks come, and methods are to be called, with the machine's lock held (`vm.lock`, `platform.events.call_soon`).
    """

    def __init__(
        self,
        name: str = "",
        *,
        console: bool = False,
        output: Callable[[bytes], object] | None = None,
        on_open: Callable[[bool], object] | None = None,
        on_room: Callable[[], object] | None = None,
        limit: int = INPUT_LIMIT,
    ) -> None:
        if len(name.encode(errors="replace")) > 128 or "/" in name or "\0" in name:
            raise ConfigError(f"console: port {name!r} is not a name of at most 128 bytes without / in it")
        self.name = name
        self.console = console
        self.output = output
        self.on_open = on_open
        self.on_room = on_room
        self.limit = limit
        self.index = -1
        self.guest_open = False
        self.size = (0, 0)
        """Columns and rows of a console; 0 for unknown."""
        self.paused = False
        self._device: VirtioConsole | None = None
        self._open = True
        self._pending = bytearray()
        self._refused = False
        # What the device knows of the driver's side.
        self.added = self.ready = self.announced = False
        self.chain: Chain | None = None
        self.offset = 0

    def __repr__(self) -> str:
        return f"VirtioPort({self.name!r}, index={self.index})"

    def belong(self, device: VirtioConsole, index: int) -> None:
        """Become a port of a device. Raises ConfigError when it is another's."""
        if self._device not in (None, device):
            raise ConfigError(f"console: port {self.name!r} belongs to another device")
        self._device = device
        self.index = index

    # The host's program

    @property
    def room(self) -> int:
        """Bytes that `input` takes now."""
        return max(0, self.limit - len(self._pending)) if self._open else 0

    @property
    def waiting(self) -> int:
        """Bytes of input that the guest was not given yet."""
        return len(self._pending)

    @property
    def open(self) -> bool:
        """Whether the host's side is open; a guest sees it closed once all input before that was given to it."""
        return self._open

    def input(self, data: bytes | bytearray | memoryview) -> int:
        """Give bytes to the guest; how many were taken. The rest is to be given again after `on_room`.

        Raises ConfigError after `close()`.
        """
        if not self._open:
            raise ConfigError(f"console: port {self.name!r} was closed by the host")
        taken = data[: self.room]
        self._refused = len(taken) < len(data)
        self._pending += taken
        if taken and self._device is not None:
            self._device.input_changed(self)
        return len(taken)

    def want_room(self) -> None:
        """Have `on_room` called once there is room."""
        self._refused = True

    def close(self) -> None:
        """Hang up: the guest reads what was taken before, then end of file. Idempotent."""
        if self._open:
            self._open = False
            if self._device is not None:
                self._device.input_changed(self)

    def reopen(self) -> None:
        """Connect again after `close`. Idempotent."""
        if not self._open:
            self._open = True
            if self._device is not None:
                self._device.input_changed(self)

    def pause(self) -> None:
        """Take no more output; the guest's buffers wait where they are."""
        self.paused = True

    def resume(self) -> None:
        """Take output again."""
        if self.paused:
            self.paused = False
            if self._device is not None:
                self._device.output_wanted(self)

    def resize(self, columns: int, rows: int) -> None:
        """Tell a console port its size. Raises ConfigError."""
        if not (0 <= columns <= MAX_SIDE and 0 <= rows <= MAX_SIDE):
            raise ConfigError(f"console: {columns}x{rows} is not a size up to {MAX_SIDE}x{MAX_SIDE}")
        if (columns, rows) != self.size:
            self.size = (columns, rows)
            if self._device is not None:
                self._device.resized(self)

    # The device

    def peek(self, size: int) -> bytes:
        """The next bytes of input."""
        return bytes(self._pending[:size])

    def consume(self, size: int) -> None:
        """They are the guest's now."""
        del self._pending[:size]

    def tell_room(self) -> None:
        """Call `on_room` where `input` took less than it was offered and there is room."""
        if self._refused and self.room and self.on_room is not None:
            self._refused = False
            self.on_room()

    def set_guest_open(self, opened: bool) -> None:
        """The guest opened or closed its side."""
        if opened != self.guest_open:
            self.guest_open = opened
            if self.on_open is not None:
                self.on_open(opened)

    def forget_driver(self) -> None:
        """The driver is gone; what it had not taken of the input stays for the next."""
        self.added = self.ready = self.announced = False
        self.chain = None
        self.offset = 0
        self.set_guest_open(False)
