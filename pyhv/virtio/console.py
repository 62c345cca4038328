"""The console device (virtio 1.2, 5.3): terminals and byte streams, several over one device."""

from __future__ import annotations

import struct

from pyhv._builtin import partial
from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.virtio.device import VirtioDevice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from pyhv.virtio.console_port import VirtioPort
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

F_SIZE, F_MULTIPORT, F_EMERG_WRITE = 0, 1, 2

DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY = 0, 1, 2, 3
CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = 4, 5, 6, 7

MAX_PORTS: Final = 31
CONTROL_RECEIVE, CONTROL_TRANSMIT = 2, 3
DATA_SIZE, CONTROL_SIZE = 64, 32
"""Buffers of a data and of a control queue."""
PIECE: Final = 1 << 16
"""Bytes that are handed to a port's `output` at once."""
BUDGET: Final = 1 << 20
"""Bytes of one port's output before others get their turn."""
LAST_BUDGET: Final = 64 << 20
"""Bytes of one port's output that are taken at the machine's end."""

_CONTROL: Final = struct.Struct("<IHH")
_CONFIG: Final = struct.Struct("<HHII")
EMERGENCY_OFFSET: Final = 8


class VirtioConsole(VirtioDevice):
    """`ports` in their order; port 0 is the one that a driver without MULTIPORT sees, as a terminal.

    MULTIPORT is offered for a single terminal as well: without it Linux loses what comes before it has set the port up, and
    never asks for the size. Raises ConfigError for no port, too many, or names that repeat.
    """

    name = "console"
    device_id = 3

    def __init__(self, ports: Sequence[VirtioPort], *, transport: str = "pci") -> None:
        super().__init__(transport=transport)
        if not 1 <= len(ports) <= MAX_PORTS:
            raise ConfigError(f"console: {len(ports)} ports are not 1 to {MAX_PORTS}")
        names = [port.name for port in ports if port.name]
        if len(set(names)) < len(names):
            raise ConfigError(f"console: port names repeat: {', '.join(names)}")
        self.ports = tuple(ports)
        for index, port in enumerate(ports):
            port.belong(self, index)
        self.features = 1 << F_MULTIPORT | 1 << F_EMERG_WRITE
        if ports[0].console:
            self.features |= 1 << F_SIZE
        self.queue_sizes = (DATA_SIZE, DATA_SIZE, CONTROL_SIZE, CONTROL_SIZE) + (DATA_SIZE,) * (2 * len(ports) - 2)
        self._messages: dict[tuple[int, int], bytes] = {}
        self._era = 0

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self.active = False
        self.deactivate()

    # Configuration space

    def config(self) -> bytes:
        columns, rows = self.ports[0].size
        return _CONFIG.pack(columns, rows, len(self.ports), 0)

    def write_config(self, offset: int, data: bytes) -> None:
        """An emergency write: one character for port 0, taken in any state, dropped only while its output is paused."""
        port = self.ports[0]
        if offset == EMERGENCY_OFFSET and data and port.output is not None and not port.paused:
            port.output(data[:1])

    # The host's side

    def input_changed(self, port: VirtioPort) -> None:
        """There is input for the guest, or the host opened or closed a port."""
        self.guarded(partial(self.pump, port))()

    def output_wanted(self, port: VirtioPort) -> None:
        """A port takes output again."""
        self.guarded(partial(self.drain_port, port))()

    def resized(self, port: VirtioPort) -> None:
        """A port has a new size."""
        if port.index == 0:
            self.config_changed()
        if self._multiport and port.ready:
            self._announce_size(port)
            self.guarded(self._send_messages)()

    # Driver

    @property
    def _multiport(self) -> bool:
        return self.active and self.has(F_MULTIPORT)

    def activate(self) -> None:
        if not self.has(F_MULTIPORT):
            port = self.ports[0]
            port.added = port.ready = True
            port.set_guest_open(True)
            self.pump(port)

    def deactivate(self) -> None:
        self._messages.clear()
        self._era += 1
        for port in self.ports:
            port.forget_driver()

    def queue_reset(self, queue: VirtQueue) -> None:
        for port in self.ports:
            if self._transmit_queue(port) is queue:
                port.chain, port.offset = None, 0

    def close(self) -> None:
        self.drain()
        super().close()

    def drain(self) -> None:
        """Take what the guest has put into the queues, before the machine goes; from a port that is paused as well."""
        for port in self.ports:
            left = LAST_BUDGET
            while left > 0 and self.active and (port.index == 0 or self.has(F_MULTIPORT)):
                port.paused = False
                taken = self._take_output(port, self._transmit_queue(port))
                if not taken:
                    break
                left -= taken

    def handle(self, queue: VirtQueue) -> None:
        index = queue.index
        if index == CONTROL_RECEIVE:
            self._send_messages(flush=False)
        elif index == CONTROL_TRANSMIT:
            self._receive_messages(queue)
        else:
            port = self.ports[index // 2 - (index > CONTROL_TRANSMIT)]
            if index & 1:
                self.drain_port(port, flush=False)
            else:
                self.pump(port, flush=False)

    def _receive_queue(self, port: VirtioPort) -> VirtQueue:
        return self.queues[2 * port.index + (2 if port.index else 0)]

    def _transmit_queue(self, port: VirtioPort) -> VirtQueue:
        return self.queues[2 * port.index + (3 if port.index else 1)]

    # Data

    def pump(self, port: VirtioPort, *, flush: bool = True) -> None:
        """Give the guest what waits for it, as far as it has buffers; then, how the host's side stands."""
        if not self.active or not port.ready:
            port.tell_room()
            return
        queue = self._receive_queue(port)
        given = False
        while port.waiting and port.guest_open and queue.ready:
            chain = queue.pop()
            if chain is None:
                break
            data = port.peek(chain.writable_size)
            chain.write(data)
            queue.push(chain, len(data))
            port.consume(len(data))
            given = True
        if given and flush:
            queue.flush()
        port.tell_room()
        self._announce_open(port)

    def _announce_open(self, port: VirtioPort) -> None:
        opened = port.open or port.waiting > 0
        if self._multiport and opened != port.announced:
            port.announced = opened
            self._post(port, PORT_OPEN, int(opened))
            self._send_messages()

    def drain_port(self, port: VirtioPort, *, flush: bool = True) -> None:
        """Take the guest's output, a bounded amount at once."""
        if not self.active or not port.ready:
            return
        queue = self._transmit_queue(port)
        if not queue.ready:
            return
        left = BUDGET
        while left > 0:
            taken = self._take_output(port, queue)
            if not taken:
                break
            left -= taken
        else:
            self.platform.events.call_soon(self.guarded(partial(self._drain_later, port, self._era)))
        if flush:
            queue.flush()

    def _drain_later(self, port: VirtioPort, era: int) -> None:
        if era == self._era:
            self.drain_port(port)

    def _take_output(self, port: VirtioPort, queue: VirtQueue) -> int:
        """Hand one piece of output to the host; about how much work that was, 0 where there is none or it is paused."""
        if port.paused:
            return 0
        chain = port.chain or queue.pop()
        if chain is None:
            return 0
        data = chain.read(port.offset, min(PIECE, chain.readable_size - port.offset))
        port.chain, port.offset = chain, port.offset + len(data)
        if port.offset >= chain.readable_size:
            queue.push(chain)
            port.chain, port.offset = None, 0
        if data and port.output is not None:
            port.output(data)
        return max(len(data), 256)

    # Control messages (5.3.6.2)

    def _post(self, port: VirtioPort, event: int, value: int = 0, tail: bytes = b"") -> None:
        """Queue a message to the driver; a newer one of its kind takes the place of one that still waits."""
        key = port.index, event
        self._messages.pop(key, None)
        self._messages[key] = _CONTROL.pack(port.index, event, value) + tail

    def _send_messages(self, *, flush: bool = True) -> None:
        queue = self.queues[CONTROL_RECEIVE]
        sent = False
        while self._messages and queue.ready:
            chain = queue.pop()
            if chain is None:
                break
            key = next(iter(self._messages))
            message = self._messages[key]
            sent = True
            if chain.writable_size < len(message):
                queue.push(chain)  # useless; the driver gets it back
                continue
            del self._messages[key]
            chain.write(message)
            queue.push(chain, len(message))
        if sent and flush:
            queue.flush()

    def _receive_messages(self, queue: VirtQueue) -> None:
        for chain in queue.chains():
            message = chain.read(0, min(_CONTROL.size, chain.readable_size))
            queue.push(chain)
            if len(message) < _CONTROL.size:
                event("console.short_control_message", size=len(message))
                continue
            self._control(*_CONTROL.unpack(message))
        self._send_messages()

    def _control(self, number: int, kind: int, value: int) -> None:
        if kind == DEVICE_READY:
            self._driver_ready(value)
            return
        port = self.ports[number] if number < len(self.ports) else None
        if port is None or not port.added:
            event("console.unknown_port", port=number, message=kind)
        elif kind == PORT_READY:
            self._port_ready(port, value)
        elif kind == PORT_OPEN:
            port.set_guest_open(bool(value))
            self.pump(port)
        else:
            event("console.unknown_control_message", port=number, message=kind)

    def _driver_ready(self, value: int) -> None:
        if value != 1:
            event("console.driver_failed")
            return
        for port in self.ports:
            if not port.added:
                port.added = True
                self._post(port, DEVICE_ADD)

    def _port_ready(self, port: VirtioPort, value: int) -> None:
        if value != 1:
            event("console.port_failed", port=port.name)
            return
        if port.ready:
            return
        port.ready = True
        if port.console:
            self._post(port, CONSOLE_PORT, 1)
            self._announce_size(port)
        if port.name:
            self._post(port, PORT_NAME, 1, port.name.encode(errors="replace"))
        self.pump(port)
        self.drain_port(port)

    def _announce_size(self, port: VirtioPort) -> None:
        """RESIZE, columns first (5.3.6.2; Linux before 6.15, without later fixes, takes them for the rows)."""
        if port.console and port.size != (0, 0) and self.has(F_SIZE):
            self._post(port, RESIZE, 0, struct.pack("<HH", *port.size))
